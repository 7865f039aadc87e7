"""The worker's settings: what they default to, what they refuse, and that the docs know each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from oanim_farm.settings import BadSettingError, Settings, variables

DOCS = Path(__file__).parents[2] / "docs" / "farm.md"


def read(**given: str) -> Settings:
    return Settings.from_environment({"HOME": "/people/ada", **given})


def refusal(**given: str) -> str:
    with pytest.raises(BadSettingError) as caught:
        read(**given)
    return str(caught.value)


def test_without_a_variable_one_render_at_a_time_is_made_in_the_platforms_cache() -> None:
    assert read() == Settings(
        folder=Path("/people/ada/.cache/oanim-farm"), slots=1, memory_bytes=4_000_000_000, drain_seconds=30
    )
    assert read(XDG_CACHE_HOME="/cache").folder == Path("/cache/oanim-farm")
    assert read(XDG_CACHE_HOME="relative").folder == Path("/people/ada/.cache/oanim-farm")


def test_every_value_is_read() -> None:
    assert read(
        OANIM_FARM_FOLDER="/srv/farm",
        OANIM_FARM_SLOTS="3",
        OANIM_FARM_MEMORY_BYTES="8000000000",
        OANIM_FARM_BROWSER="/opt/chromium",
        OANIM_FARM_DRAIN_SECONDS="0",
        ANIMATE_API_KEY="anim_abc",
        OANIM_CA_FILE="/srv/ca.pem",
    ) == Settings(
        folder=Path("/srv/farm"),
        slots=3,
        memory_bytes=8_000_000_000,
        browser="/opt/chromium",
        drain_seconds=0,
    )


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    assert read(OANIM_FARM_SLOTS=" ") == read()


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("OANIM_FARM_SLOTS", "0"),
        ("OANIM_FARM_SLOTS", "65"),
        ("OANIM_FARM_SLOTS", "two"),
        ("OANIM_FARM_MEMORY_BYTES", "4"),
        ("OANIM_FARM_DRAIN_SECONDS", "-1"),
    ],
)
def test_a_number_out_of_range_is_refused_by_name(variable: str, text: str) -> None:
    assert re.fullmatch(
        rf"{variable} is '{text}', and must be a whole number .*\.", refusal(**{variable: text})
    )


def test_a_variable_that_is_no_setting_is_refused() -> None:
    assert refusal(OANIM_FARM_SLOT="2") == "OANIM_FARM_SLOT is no setting of a worker: see docs/farm.md."


def test_a_folder_that_no_socket_fits_below_is_refused() -> None:
    assert "OANIM_FARM_FOLDER is /" in refusal(OANIM_FARM_FOLDER="/" + "a" * 40)


def test_every_setting_has_a_heading_in_the_docs() -> None:
    headings = set(re.findall(r"^### (OANIM_FARM_\w+)$", DOCS.read_text(), re.MULTILINE))
    assert headings == set(variables())
