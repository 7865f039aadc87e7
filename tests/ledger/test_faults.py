from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import Integer, insert, make_url, text

from oanim_server.database.engine import Database
from oanim_server.database.tables import generations, marks
from oanim_server.ledger.refusals import (
    AccountFrozen,
    Conflict,
    Faulty,
    InsufficientCredits,
    NotFound,
)
from oanim_server.ledger.values import Outcome, WalletFacts
from tests.ledger.driving import Driven, Recording, batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

ROOT = Path(__file__).parents[2]


# One operation that spoils a group ------------------------------------------------------------------


def a_bug(_connection: Connection, _about: object) -> None:
    message = "secret-9"
    raise RuntimeError(message)


def against_a_check(connection: Connection, _about: object) -> None:
    connection.execute(text("UPDATE wallets SET held_micros = -1"))


def against_a_reference(connection: Connection, _about: object) -> None:
    """A job without its hold: found out by COMMIT itself."""
    values = {
        column.name: 0 if isinstance(column.type, Integer) else ""
        for column in generations.columns
        if not column.nullable
    }
    connection.execute(insert(generations).values({**values, "state": 1, "number": 999}))


def against_a_unique_key(connection: Connection, _about: object) -> None:
    """What is there already: no second try makes it new."""
    for _ in range(2):
        connection.execute(insert(marks).values(name="twice", value=""))


def behind_the_guard(connection: Connection, _about: object) -> None:
    """What another writer would do that forgot the lock."""
    connection.execute(text("UPDATE wallets SET seq = seq + 1"))


def a_refusal_too_late(_connection: Connection, _outcome: object) -> None:
    raise InsufficientCredits(required_micros=1, available_micros=2)


SPOILS = {
    "a bug at load": Recording(load=a_bug),
    "a bug at write": Recording(write=a_bug),
    "a value the database refuses at load": Recording(load=against_a_check),
    "a value the database refuses at write": Recording(write=against_a_check),
    "a row that is there already": Recording(write=against_a_unique_key),
    "a reference that COMMIT refuses": Recording(write=against_a_reference),
    "a change behind the guard": Recording(load=behind_the_guard),
    "a refusal after the money has moved": Recording(write=a_refusal_too_late),
}


@pytest.mark.parametrize("spoiling", SPOILS.values(), ids=SPOILS.keys())
def test_who_spoils_a_group_gets_faulty_and_its_neighbours_their_answers(
    ledger: Driven, spoiling: Recording
) -> None:
    first, second = ledger.open_wallet(1_000), ledger.open_wallet(1_000)
    answers = batch(
        ledger.ledger,
        [
            ledger.reserve(first, 10, key="a"),
            ledger.reserve(second, 10, key="b"),
            ledger.reserve(first, 20, key="spoils", companion=spoiling),
            ledger.reserve(first, 2_000, key="too much"),
            ledger.reserve(first, 40, key="c"),
        ],
    )
    assert [type(answer) for answer in answers] == [Outcome, Outcome, Faulty, InsufficientCredits, Outcome]
    assert [answers[index].replayed for index in (0, 1, 4)] == [False, False, False]
    assert answers[3].available_micros == 990
    assert ledger.wallet(first) == WalletFacts(first, 1_000, 50, 0, 3, frozen=False)
    # The key of what failed is free, and the ledger goes on.
    assert not ledger.run(ledger.reserve(first, 20, key="spoils")).replayed
    assert ledger.wallet(first).held_micros == 70
    assert ledger.problems() == []


def test_answers_that_were_made_before_a_commit_that_failed_are_not_given(ledger: Driven) -> None:
    first, second = ledger.open_wallet(1_000), ledger.open_wallet(1_000)
    made: list[Outcome] = []

    def note(outcome: Outcome) -> int:
        made.append(outcome)
        return len(made)

    spoiling = Recording(write=against_a_reference)
    answers = batch(
        ledger.ledger,
        [
            (ledger.reserve(first, 10), note),
            ledger.reserve(first, 20, companion=spoiling),
            (ledger.reserve(second, 30), note),
        ],
    )
    assert isinstance(answers[1], Faulty)
    # The first two were of the group that failed.
    assert [answers[0], answers[2]] == [3, 4]
    assert made[2] is not made[0]
    assert [outcome.wallet for outcome in made[2:]] == [ledger.wallet(first), ledger.wallet(second)]


def test_an_answer_that_cannot_be_made_is_told_to_its_caller_alone(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)

    def fail(_outcome: Outcome) -> int:
        message = "no such word"
        raise LookupError(message)

    answers = batch(
        ledger.ledger,
        [
            (ledger.reserve(wallet_id, 10), fail),
            (ledger.reserve(wallet_id, 20), lambda outcome: outcome.wallet.held_micros),
        ],
    )
    assert isinstance(answers[0], LookupError)
    assert answers[1] == 30
    assert ledger.wallet(wallet_id).held_micros == 30
    assert ledger.ledger.tally.faults == 0


def test_a_fault_is_logged_under_its_id_and_says_nothing_to_the_caller(
    ledger: Driven, caplog: pytest.LogCaptureFixture
) -> None:
    wallet_id = ledger.open_wallet(1_000)
    with caplog.at_level(logging.ERROR):
        fault = ledger.refused(ledger.reserve(wallet_id, 10, companion=Recording(write=a_bug)))
    assert isinstance(fault, Faulty)
    assert [record.__dict__["error_id"] for record in caplog.records] == [fault.error_id]
    assert "secret-9" in caplog.text
    assert "secret-9" not in repr(fault) + str(fault)


def test_a_write_that_fails_leaves_nothing_and_spoils_nothing(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)

    def half(connection: Connection, now: int) -> None:
        connection.execute(insert(marks).values(name="half", value=""))
        a_bug(connection, now)

    def whole(connection: Connection, now: int) -> int:
        connection.execute(insert(marks).values(name="whole", value=""))
        return now

    answers = batch(ledger.ledger, [whole, half, ledger.reserve(wallet_id, 10)])
    assert [type(answer) for answer in answers] == [int, Faulty, Outcome]
    assert ledger.rows("SELECT name FROM marks") == [("whole",)]


# Companions -----------------------------------------------------------------------------------------


def test_a_companion_writes_with_the_money_and_never_for_a_replay(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)

    def write(connection: Connection, outcome: Outcome) -> None:
        assert outcome.reservation is not None
        connection.execute(insert(marks).values(name="job", value=str(outcome.reservation.number)))

    first, again = Recording(write=write), Recording(write=write)
    ledger.run(ledger.reserve(wallet_id, 10, key="one", companion=first))
    ledger.run(ledger.reserve(wallet_id, 10, key="one", companion=again))
    assert (first.calls, again.calls) == (["load", "write"], [])
    assert ledger.rows("SELECT value FROM marks") == [("2",)]


def test_a_companion_that_refuses_before_the_decision_leaves_nothing(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)

    def refuse(_connection: Connection, _now: int) -> None:
        raise NotFound(what="upload")

    companion = Recording(load=refuse)
    answers = batch(
        ledger.ledger,
        [
            ledger.reserve(wallet_id, 10, key="one", companion=companion),
            ledger.reserve(wallet_id, 20, key="two"),
        ],
    )
    assert [type(answer) for answer in answers] == [NotFound, Outcome]
    assert companion.calls == ["load"]
    assert ledger.wallet(wallet_id) == WalletFacts(wallet_id, 1_000, 20, 0, 2, frozen=False)
    # It is not remembered: the same key is decided anew.
    assert not ledger.run(ledger.reserve(wallet_id, 10, key="one")).replayed


def test_what_the_rules_refuse_is_not_written_by_the_companion(ledger: Driven) -> None:
    wallet_id = ledger.open_wallet(1_000)
    ledger.freeze(wallet_id)
    companion = Recording()
    assert isinstance(
        ledger.refused(ledger.reserve(wallet_id, 10, key="one", companion=companion)), AccountFrozen
    )
    assert companion.calls == ["load"]
    ledger.freeze(wallet_id, frozen=False)
    again = ledger.refused(ledger.reserve(wallet_id, 10, key="one", companion=companion))
    assert (type(again), again.replayed, again.wallet_seq) == (AccountFrozen, True, 2)
    assert companion.calls == ["load"]


# Conflicts ------------------------------------------------------------------------------------------


def conflicting(times: int, code: str) -> Recording:
    """A companion that meets a conflict so many times."""
    left = iter([True] * times)

    def load(connection: Connection, _now: int) -> None:
        if next(left, False):
            connection.execute(text(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$"))

    return Recording(load=load)


@pytest.mark.parametrize("code", ["40001", "40P01"])
def test_a_conflict_runs_the_whole_group_again(on_postgresql: Driven, code: str) -> None:
    wallet_id = on_postgresql.open_wallet(1_000)
    neighbour, conflicted = Recording(), conflicting(2, code)
    answers = batch(
        on_postgresql.ledger,
        [
            on_postgresql.reserve(wallet_id, 10, companion=neighbour),
            on_postgresql.reserve(wallet_id, 20, companion=conflicted),
        ],
    )
    assert [type(answer) for answer in answers] == [Outcome, Outcome]
    assert neighbour.calls == ["load", "write"] * 3
    assert conflicted.calls == ["load", "load", "load", "write"]
    assert on_postgresql.wallet(wallet_id) == WalletFacts(wallet_id, 1_000, 30, 0, 3, frozen=False)


def test_after_three_tries_a_conflict_is_told(on_postgresql: Driven) -> None:
    wallet_id = on_postgresql.open_wallet(1_000)
    conflicted = conflicting(3, "40001")
    answers = batch(
        on_postgresql.ledger,
        [on_postgresql.reserve(wallet_id, 10), on_postgresql.reserve(wallet_id, 20, companion=conflicted)],
    )
    assert [type(answer) for answer in answers] == [Conflict, Conflict]
    assert conflicted.calls == ["load", "load", "load"]
    assert on_postgresql.wallet(wallet_id) == WalletFacts(wallet_id, 1_000, 0, 0, 1, frozen=False)


def test_a_wallet_that_somebody_else_locks_for_too_long_is_a_conflict_that_ends(
    on_postgresql: Driven, postgresql_url: str
) -> None:
    wallet_id = on_postgresql.open_wallet(1_000)
    other = psycopg.connect(make_url(postgresql_url).set(drivername="postgresql").render_as_string())
    with other:
        other.execute("SELECT * FROM wallets FOR UPDATE")
        waiting = threading.Thread(target=on_postgresql.run, args=(on_postgresql.reserve(wallet_id, 10),))
        waiting.start()
        deadline = time.monotonic() + 20
        while on_postgresql.ledger.tally.conflicts == 0:
            assert time.monotonic() < deadline
            waiting.join(0.05)
    waiting.join(20)
    assert on_postgresql.wallet(wallet_id) == WalletFacts(wallet_id, 1_000, 10, 0, 2, frozen=False)


# kill -9 --------------------------------------------------------------------------------------------


def under_load(dialect: str, where: str, wallet_id: int, run: str, seconds: float) -> list[list[str]]:
    """Drive the ledger in a process of its own, kill that, and answer what it had acknowledged."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.ledger.serving", dialect, where, str(wallet_id), run],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    threading.Timer(seconds, process.kill).start()
    lines = [first, *process.stdout.readlines()]
    process.stdout.close()
    process.wait()
    return [line.decode().split() for line in lines if line.endswith(b"\n")]


def killed_and_looked_at(dialect: str, where: str, open_database: Callable[[], Database], runs: int) -> None:
    driven = Driven(open_database()).start()
    wallet_id = driven.open_wallet(10**9)
    driven.close()
    acknowledged: list[list[str]] = []
    for run in range(runs):
        acknowledged += under_load(dialect, where, wallet_id, f"run{run}", 0.2 + 0.13 * (run % 5))
    driven = Driven(open_database())
    assert driven.problems() == []
    rows = driven.rows("SELECT method, idem_key, reservation, charged_micros FROM transactions WHERE seq > 1")
    written = {(method, key): (reservation, charged) for method, key, reservation, charged in rows}
    assert len(written) == len(rows)
    assert len(acknowledged) > 100 * runs
    for kind, key, number, *charged in acknowledged:
        expected = (int(number), int(charged[0]) if charged else 0)
        assert written[2 if kind == "reserve" else 3, key] == expected
    commits = sum(1 for method, _ in written if method == 3)
    reserves = len(written) - commits
    assert commits <= reserves <= commits + 16 * runs
    assert driven.wallet(wallet_id)[1:3] == (10**9 - 3 * commits, 5 * (reserves - commits))
    driven.database.close()


def test_a_killed_server_has_lost_and_doubled_nothing_on_sqlite(sqlite_path: Path) -> None:
    killed_and_looked_at("sqlite", str(sqlite_path), lambda: Database.open_sqlite(sqlite_path), 3)


def test_a_killed_server_has_lost_and_doubled_nothing_on_postgresql(postgresql_url: str) -> None:
    killed_and_looked_at(
        "postgresql", postgresql_url, lambda: Database.open_postgresql(postgresql_url, unsafe=True), 3
    )


@pytest.mark.torture
def test_a_server_that_is_killed_often_has_lost_and_doubled_nothing_on_sqlite(sqlite_path: Path) -> None:
    killed_and_looked_at("sqlite", str(sqlite_path), lambda: Database.open_sqlite(sqlite_path), 60)


@pytest.mark.torture
def test_a_server_that_is_killed_often_has_lost_and_doubled_nothing_on_postgresql(
    postgresql_url: str,
) -> None:
    killed_and_looked_at(
        "postgresql", postgresql_url, lambda: Database.open_postgresql(postgresql_url, unsafe=True), 40
    )
