"""What goes straight to fal.ai is counted before it is sent, by all commands at once, never too little."""

from __future__ import annotations

import stat
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING

import pytest

from oanim.cli.assets import spending
from oanim.cli.failures import Failure
from oanim.cli.session import Session

if TYPE_CHECKING:
    from pathlib import Path

LIMITED = Session("session:a", 100_000)
UNLIMITED = Session("session:a", None)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def book(key: str, amount_micros: int, session: Session = LIMITED, work: str = "w") -> spending.Job:
    return spending.book(key=key, fingerprint=work, model="m", amount_micros=amount_micros, session=session)[
        0
    ]


def refused(key: str, amount_micros: int, session: Session = LIMITED) -> bool:
    try:
        book(key, amount_micros, session)
    except Failure as failure:
        return failure.exit_code == 3
    return False


def test_a_limit_may_be_reached_exactly_and_not_passed() -> None:
    assert [refused("1", 60_000), refused("2", 40_001), refused("3", 40_000), refused("4", 1)] == [
        False,
        True,
        False,
        True,
    ]


def test_what_was_spent_before_the_limit_was_set_counts() -> None:
    book("1", 90_000, UNLIMITED)
    assert [refused("2", 20_000), refused("3", 10_000)] == [True, False]


def test_another_session_has_its_own_total() -> None:
    book("1", 100_000)
    assert not refused("2", 100_000, Session("session:b", 100_000))


def test_what_was_never_bought_is_given_back_and_its_key_is_free() -> None:
    spending.forget(book("1", 100_000))
    assert not refused("1", 100_000)


def test_a_job_is_corrected_once() -> None:
    job = book("1", 100_000)
    spending.settle(job, 0)
    spending.settle(job, 100_000)
    assert [refused("2", 100_000), refused("3", 1)] == [False, True]


def test_the_same_key_finds_the_same_job_and_is_counted_once() -> None:
    job = book("1", 60_000)
    job.request_id = "r"
    spending.sent(job)
    assert spending.book(key="1", fingerprint="w", model="m", amount_micros=60_000, session=LIMITED) == (
        job,
        False,
    )
    assert spending.find("r") == job
    assert not refused("2", 40_000)


def test_the_same_key_for_other_work_is_refused() -> None:
    book("1", 1)
    with pytest.raises(Failure, match="named another request before"):
        book("1", 1, work="other")


def test_an_unknown_job_is_not_found() -> None:
    assert spending.find("r") is None


def test_a_file_that_cannot_be_read_spends_nothing(home: Path) -> None:
    book("1", 1)
    (home / ".oanim" / "direct.json").write_text('{"jobs": [{}]}')
    with pytest.raises(Failure, match="cannot be read"):
        book("2", 1)


def test_the_file_is_its_owners_alone(home: Path) -> None:
    book("1", 1)
    assert stat.S_IMODE((home / ".oanim" / "direct.json").stat().st_mode) == 0o600


def test_commands_at_once_never_pass_the_limit_together() -> None:
    keys = [str(number) for number in range(40)]
    with ProcessPoolExecutor(8, mp_context=get_context("spawn")) as processes:
        outcomes = list(processes.map(refused, keys, [10_000] * len(keys)))
    assert outcomes.count(False) == 10
