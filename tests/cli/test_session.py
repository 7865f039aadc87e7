"""A session is what the environment names, else the terminal, else the day."""

from __future__ import annotations

import re
import sys
import time
from typing import TYPE_CHECKING

import pytest

from oanim.cli import session
from oanim.cli.failures import Failure

if TYPE_CHECKING:
    from tests.cli.running import Cli

PRINT_TWICE = "from oanim.cli import session; print(session.current().scope)"


def scopes(shown: str) -> list[str]:
    return re.findall(r"session:\S+", shown)


def test_a_session_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANIMATE_SESSION_ID", "night-render")
    monkeypatch.setenv("ANIMATE_MAX_USD_PER_RUN", "5.00")
    assert session.current() == session.Session(scope="session:night-render", limit_micros=5_000_000)


@pytest.mark.parametrize("name", ["x" * 57, "é" * 29, "a\x07b", "\udcff"])
def test_a_name_that_no_scope_can_have_is_hashed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANIMATE_SESSION_ID", name)
    scope = session.current().scope
    assert re.fullmatch(r"session:id-[0-9a-f]{24}", scope)


def test_the_longest_name_that_fits_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANIMATE_SESSION_ID", "x" * 56)
    assert session.current().scope == "session:" + "x" * 56


def test_without_a_limit_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANIMATE_MAX_USD_PER_RUN", raising=False)
    assert session.limit_micros() is None


@pytest.mark.parametrize("text", ["", "nan", "inf", "-1", "0.0000001", "five"])
def test_a_limit_that_is_no_amount_is_a_mistake_in_usage(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANIMATE_MAX_USD_PER_RUN", text)
    with pytest.raises(Failure, match="ANIMATE_MAX_USD_PER_RUN must") as raised:
        session.limit_micros()
    assert raised.value.exit_code == 2


def test_commands_of_one_terminal_share_a_session_and_another_terminal_has_another(cli: Cli) -> None:
    twice = ["sh", "-c", f'"{sys.executable}" -c "{PRINT_TWICE}"; "{sys.executable}" -c "{PRINT_TWICE}"']
    first, second = cli.on_terminal(twice)[1], cli.on_terminal(twice)[1]
    here, there = scopes(first), scopes(second)
    assert [len(here), len(set(here)), len(there), len(set(there))] == [2, 1, 2, 1]
    assert here[0].startswith("session:tty-")
    assert here[0] != there[0]


def test_without_a_terminal_the_session_is_the_day(cli: Cli) -> None:
    before = time.strftime("%Y-%m-%d", time.gmtime())
    # No fal.ai is asked: a limit of nothing is refused first, and names the session.
    cli.variables |= {"ANIMATE_FAL_KEY": "id:secret", "ANIMATE_MAX_USD_PER_RUN": "0"}
    ended = cli.run("assets", "gen-image", "--prompt", "gradient")
    after = time.strftime("%Y-%m-%d", time.gmtime())
    assert ended.exit_code == 3
    found = re.search(r"the session day-([0-9-]{10})-[0-9a-f]{24} has used", ended.err)
    assert found
    assert found[1] in (before, after)
