from __future__ import annotations

import logging
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import psycopg
import pytest
from sqlalchemy import Integer, insert, make_url, text

from oanim_server.database.engine import Database
from oanim_server.database.tables import generations, marks
from oanim_server.ledger.operations import OpenWallet
from oanim_server.ledger.refusals import (
    AccountFrozen,
    Conflict,
    DatabaseAway,
    Faulty,
    InsufficientCredits,
    NotFound,
    OutcomeUnknown,
    Refusal,
)
from oanim_server.ledger.values import SERVER, Line, Outcome, WalletFacts
from tests import migrated
from tests.ledger.driving import Driven, Recording, batch, in_threads, open_account
from tests.ledger.losing import Proxy, never_sent, not_answered, sent_late
from tests.postgresql import Cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def crashing_cluster() -> Iterator[Cluster]:
    """A PostgreSQL of this module's own, with its durability, to be killed."""
    cluster = Cluster({"max_connections": "50"})
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture
def crashing_url(crashing_cluster: Cluster) -> str:
    """A migrated database there."""
    return migrated.postgresql(crashing_cluster)


@pytest.fixture
def proxy(postgresql_url: str) -> Iterator[Proxy]:
    """A proxy before the test's PostgreSQL."""
    proxy = Proxy(postgresql_url)
    yield proxy
    proxy.close()


@pytest.fixture
def proxied(proxy: Proxy) -> Iterator[Driven]:
    """A ledger whose connections go through the proxy."""
    driven = Driven(Database.open_postgresql(proxy.url, unsafe=True)).start()
    yield driven
    driven.close()


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


@pytest.fixture
def on_postgresql(postgresql_url: str) -> Iterator[Driven]:
    """A ledger on PostgreSQL alone."""
    driven = Driven(Database.open_postgresql(postgresql_url, unsafe=True)).start()
    yield driven
    driven.close()


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


# A COMMIT that is not answered ----------------------------------------------------------------------

LOSSES = {"never sent": never_sent, "done": not_answered, "sent late": sent_late}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_an_unanswered_commit_is_settled_to_the_truth_before_anybody_is_answered(
    proxied: Driven, proxy: Proxy, loss: Callable[[bytes, socket.socket], None]
) -> None:
    wallet_id = proxied.open_wallet(1_000)
    number = proxied.hold(wallet_id, 100)
    proxy.at_commit = loss
    answers = in_threads([partial(proxied.run, proxied.commit(wallet_id, number, 30, key="one"))])
    assert proxy.lost == 1
    assert [(type(a), isinstance(a, Outcome) and a.replayed) for a in answers] == [(Outcome, False)]
    assert proxied.wallet(wallet_id) == WalletFacts(wallet_id, 970, 0, 0, 3, frozen=False)
    again = proxied.run(proxied.commit(wallet_id, number, 30, key="one"))
    assert again == answers[0]._replace(replayed=True)  # type: ignore[union-attr]
    assert proxied.problems() == []


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_a_group_whose_commit_is_not_answered_has_its_effects_once(
    proxied: Driven, proxy: Proxy, loss: Callable[[bytes, socket.socket], None]
) -> None:
    wallets = [proxied.open_wallet(1_000) for _ in range(3)]
    writes: list[int] = []

    def count(connection: Connection, _now: int) -> None:
        writes.append(1)
        connection.execute(text("UPDATE api_keys SET first_used_at = 1"))

    works = [proxied.reserve(w, 10 * n, key=f"{n}") for n in (1, 2, 300) for w in wallets]
    proxy.at_commit = loss
    answers = batch(proxied.ledger, [*works, count])
    # The first COMMIT was that of the write that keeps the committer busy: nothing but itself was in it.
    assert proxy.lost == 1
    assert [type(answer) for answer in answers] == [Outcome] * 6 + [InsufficientCredits] * 3 + [type(None)]
    for wallet_id in wallets:
        assert proxied.wallet(wallet_id) == WalletFacts(wallet_id, 1_000, 30, 0, 3, frozen=False)
    assert proxied.problems() == []


# What a server says whose disk failed while it wrote a COMMIT, before it begins anew from what it wrote.
PANIC = b"SPANIC\0VPANIC\0C58030\0Mcould not fdatasync file\0\0"


@pytest.mark.parametrize("operations", [1, 4])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_a_commit_of_a_postgresql_whose_disk_fails_is_unknown_and_is_settled(
    proxied: Driven, proxy: Proxy, loss: Callable[[bytes, socket.socket], None], operations: int
) -> None:
    wallets = [proxied.open_wallet(1_000) for _ in range(operations)]
    proxy.says = b"E" + (len(PANIC) + 4).to_bytes(4, "big") + PANIC

    once = iter([loss])

    def lose_this(_connection: Connection, _now: int) -> None:
        proxy.at_commit = next(once, None)

    answers = batch(proxied.ledger, [lose_this, *(proxied.reserve(w, 10) for w in wallets)])
    assert proxy.lost == 1
    assert [answer.replayed for answer in answers[1:]] == [False] * operations
    assert [proxied.wallet(w) for w in wallets] == [
        WalletFacts(w, 1_000, 10, 0, 2, frozen=False) for w in wallets
    ]
    assert proxied.problems() == []


class Unconfirmed(sqlite3.Connection):
    """A driver's connection whose disk fails at COMMIT: before what it writes is there, or after it."""

    fails: ClassVar[str] = ""

    def commit(self) -> None:
        how, Unconfirmed.fails = Unconfirmed.fails, ""
        if how == "after":
            super().commit()
        if how:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error
        super().commit()


@pytest.mark.parametrize("operations", [1, 4])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_of_sqlite_whose_disk_fails_is_unknown_and_is_settled(
    sqlite_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, operations: int
) -> None:
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Unconfirmed))
    ledger = Driven(Database.open_sqlite(sqlite_path)).start()
    wallets = [ledger.open_wallet(1_000) for _ in range(operations)]

    once = iter([when])

    def lose_this(_connection: Connection, _now: int) -> None:
        Unconfirmed.fails = next(once, "")

    answers = batch(ledger.ledger, [lose_this, *(ledger.reserve(w, 10) for w in wallets)])
    assert Unconfirmed.fails == ""
    assert [answer.replayed for answer in answers[1:]] == [False] * operations
    assert [ledger.wallet(w) for w in wallets] == [
        WalletFacts(w, 1_000, 10, 0, 2, frozen=False) for w in wallets
    ]
    assert ledger.problems() == []
    ledger.close()


def test_answers_are_made_during_the_commit_and_are_those_of_what_was_committed(
    proxied: Driven, proxy: Proxy, postgresql_url: str
) -> None:
    """The COMMIT is lost, and before the group is written again another server changes the wallet."""
    wallet_id = proxied.open_wallet(1_000)
    other = Driven(Database.open_postgresql(postgresql_url, unsafe=True)).start()
    made: list[int] = []
    both = threading.Event()
    seen: list[bool] = []

    def note(outcome: Outcome) -> int:
        made.append(outcome.wallet.seq)
        if len(made) == 2:
            both.set()
        return outcome.wallet.seq

    def overtake(_message: bytes, server: socket.socket) -> None:
        proxy.refusing = True
        seen.append(both.wait(10))
        server.shutdown(socket.SHUT_RDWR)
        other.run(other.reserve(wallet_id, 1, key="another server"))
        proxy.refusing = False

    once = iter([overtake])

    def lose_this(_connection: Connection, _now: int) -> None:
        proxy.at_commit = next(once, None)

    works = [(proxied.reserve(wallet_id, micros), note) for micros in (10, 20)]
    answers = batch(proxied.ledger, [lose_this, *works])
    other.close()
    assert (seen, proxy.lost) == ([True], 1)
    assert made == [2, 3, 3, 4]
    assert answers[1:] == [3, 4]
    assert proxied.problems() == []


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_usage_whose_commit_is_not_answered_is_counted_once(
    proxied: Driven, proxy: Proxy, loss: Callable[[bytes, socket.socket], None]
) -> None:
    """A report makes no row that could tell what became of it: written again, it changes nothing."""
    line = Line(1, "flux", "image", "fal", "image", 10, 1, 5)
    wallet_id = proxied.open_wallet(1_000)
    number = proxied.hold(wallet_id, 50, line=line)
    proxy.at_commit = loss
    proxied.run(proxied.report(wallet_id, number, 4))
    proxy.at_commit = loss
    used = proxied.run(proxied.use(wallet_id, line))
    assert proxy.lost == 2
    assert (used.charged_micros, used.replayed) == (50, False)
    assert proxied.run(proxied.release(wallet_id, number)).charged_micros == 40
    assert proxied.wallet(wallet_id).balance_micros == 1_000 - 90
    assert proxied.problems() == []


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_a_wallet_whose_first_commit_is_not_answered_is_there_once(
    proxied: Driven, proxy: Proxy, loss: Callable[[bytes, socket.socket], None]
) -> None:
    proxied.ledger.run_write(lambda connection, _now: open_account(connection, 7))
    proxy.at_commit = loss
    opened = proxied.run(OpenWallet(wallet_id=7, caller=SERVER, idempotency_key="sign-up", grant_micros=9))
    assert opened.wallet == proxied.wallet(7) == WalletFacts(7, 9, 0, 0, 1, frozen=False)
    assert proxied.problems() == []


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_a_refusal_whose_commit_is_not_answered_is_still_the_refusal(
    proxied: Driven, proxy: Proxy, loss: Callable[[bytes, socket.socket], None]
) -> None:
    wallet_id = proxied.open_wallet(1_000)
    proxy.at_commit = loss
    refusal = proxied.refused(proxied.reserve(wallet_id, 1_001, key="one"))
    assert (type(refusal), refusal.wallet_seq) == (InsufficientCredits, 1)
    assert proxied.count("refusals") == 1


@pytest.mark.torture
def test_a_server_that_stops_while_a_commit_is_unknown_says_so_and_the_key_tells(
    proxied: Driven, proxy: Proxy
) -> None:
    wallet_id = proxied.open_wallet(1_000)
    gone = threading.Event()

    def vanish(message: bytes, server: socket.socket) -> None:
        proxy.refusing = True
        not_answered(message, server)
        gone.set()

    proxy.at_commit = vanish
    reserve = proxied.reserve(wallet_id, 10, key="one")
    told: list[type[BaseException]] = []

    def ask() -> None:
        with pytest.raises(OutcomeUnknown) as raised:
            proxied.run(reserve)
        told.append(raised.type)

    asking = threading.Thread(target=ask)
    asking.start()
    assert gone.wait(10)
    began = time.monotonic()
    proxied.ledger.stop_now()
    assert time.monotonic() - began < 10
    asking.join(10)
    assert told == [OutcomeUnknown]
    proxy.refusing = False
    again = Driven(Database.open_postgresql(proxy.url, unsafe=True)).start()
    assert again.run(reserve).replayed
    again.close()


def test_a_connection_that_ended_between_two_groups_is_made_again(
    on_postgresql: Driven, postgresql_url: str
) -> None:
    wallet_id = on_postgresql.open_wallet(1_000)
    with psycopg.connect(
        make_url(postgresql_url).set(drivername="postgresql").render_as_string(), autocommit=True
    ) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
    reserve = on_postgresql.reserve(wallet_id, 10, key="one")
    try:
        on_postgresql.run(reserve)
    except DatabaseAway:
        on_postgresql.run(reserve)
    assert on_postgresql.wallet(wallet_id) == WalletFacts(wallet_id, 1_000, 10, 0, 2, frozen=False)


@pytest.mark.parametrize("delivered", [False, True])
def test_a_postgresql_that_dies_at_commit_and_comes_back_has_the_effect_once(
    crashing_cluster: Cluster, crashing_url: str, *, delivered: bool
) -> None:
    proxy = Proxy(crashing_url)
    driven = Driven(Database.open_postgresql(proxy.url)).start()
    wallet_id = driven.open_wallet(1_000)

    back = threading.Event()

    def die(message: bytes, server: socket.socket) -> None:
        if delivered:
            server.sendall(message)
        crashing_cluster.stop("immediate")
        crashing_cluster.start()
        back.set()

    proxy.at_commit = die
    outcome = driven.run(driven.reserve(wallet_id, 10, key="one"))
    assert back.wait(30)
    assert (outcome.replayed, proxy.lost) == (False, 1)
    assert driven.wallet(wallet_id) == WalletFacts(wallet_id, 1_000, 10, 0, 2, frozen=False)
    assert driven.problems() == []
    driven.close()
    proxy.close()


class Load:
    """Threads that reserve for ever, each key again until it is answered."""

    def __init__(self, ledger: Driven, wallet_id: int) -> None:
        self._ledger = ledger
        self._wallet_id = wallet_id
        self._stopping = threading.Event()
        self.asked: set[str] = set()
        self.acknowledged: dict[str, Outcome] = {}
        self._threads = [threading.Thread(target=self._work, args=(str(number),)) for number in range(8)]
        for thread in self._threads:
            thread.start()

    def _work(self, name: str) -> None:
        turn = 0
        while not self._stopping.is_set():
            key = f"{name}-{turn}"
            self.asked.add(key)
            try:
                self.acknowledged[key] = self._ledger.run(self._ledger.reserve(self._wallet_id, 1, key=key))
            except (DatabaseAway, Conflict, OutcomeUnknown):
                self._stopping.wait(0.05)
            else:
                turn += 1

    def go_on_for(self, answers: int) -> None:
        """Wait until so many more are answered."""
        wanted = len(self.acknowledged) + answers
        while len(self.acknowledged) < wanted:
            self._stopping.wait(0.01)

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)


def test_a_postgresql_that_dies_under_load_loses_nothing_that_was_acknowledged(
    crashing_cluster: Cluster, crashing_url: str
) -> None:
    driven = Driven(Database.open_postgresql(crashing_url)).start()
    wallet_id = driven.open_wallet(1_000_000)
    load = Load(driven, wallet_id)
    for _ in range(2):
        load.go_on_for(200)
        crashing_cluster.stop("immediate")
        crashing_cluster.start()
        began = time.monotonic()
        load.go_on_for(50)
        assert time.monotonic() - began < 5
    load.stop()
    for key, outcome in load.acknowledged.items():
        again = driven.run(driven.reserve(wallet_id, 1, key=key))
        assert again == outcome._replace(replayed=True)
    for key in load.asked - load.acknowledged.keys():
        driven.run(driven.reserve(wallet_id, 1, key=key))
    assert driven.wallet(wallet_id).held_micros == len(load.asked)
    assert driven.problems() == []
    driven.close()


def test_a_commit_that_the_standby_did_not_confirm_is_not_answered_until_it_has(
    crashing_url: str,
) -> None:
    driven = Driven(Database.open_postgresql(crashing_url)).start()
    wallet_id = driven.open_wallet(1_000)
    admin = psycopg.connect(
        make_url(crashing_url).set(drivername="postgresql").render_as_string(), autocommit=True
    )

    def waiting() -> int:
        """The backend that waits for the standby."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            row = admin.execute("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'").fetchone()
            if row is not None:
                return int(row[0])
        raise AssertionError

    def standby(name: str) -> None:
        admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
        admin.execute("SELECT pg_reload_conf()")

    answers: list[Outcome | Refusal] = []

    def ask() -> None:
        try:
            answers.append(driven.run(driven.reserve(wallet_id, 10, key="one")))
        except Refusal as refusal:
            answers.append(refusal)

    with admin:
        standby("nobody")
        try:
            asking = threading.Thread(target=ask)
            asking.start()
            for _ in range(2):
                # PostgreSQL gives up waiting and says "committed", with a warning: that is no answer.
                admin.execute("SELECT pg_cancel_backend(%s)", (waiting(),))
                asking.join(0.3)
                assert answers == []
            waiting()
        finally:
            standby("")
        asking.join(10)
    assert [(type(a), isinstance(a, Outcome) and a.replayed) for a in answers] == [(Outcome, False)]
    assert driven.wallet(wallet_id) == WalletFacts(wallet_id, 1_000, 10, 0, 2, frozen=False)
    driven.close()


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
