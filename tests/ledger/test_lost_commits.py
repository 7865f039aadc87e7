"""A COMMIT that is not answered, or that a disk did not confirm: settled to the truth before anybody is."""

from __future__ import annotations

import socket
import sqlite3
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import psycopg
import pytest
from sqlalchemy import make_url, text

from oanim_server.database.engine import Database
from oanim_server.ledger.operations import OpenWallet
from oanim_server.ledger.refusals import (
    Conflict,
    DatabaseAway,
    InsufficientCredits,
    OutcomeUnknown,
    Refusal,
)
from oanim_server.ledger.values import SERVER, Line, Outcome, WalletFacts
from tests import migrated
from tests.ledger.driving import Driven, batch, in_threads, open_account
from tests.ledger.losing import Proxy, never_sent, not_answered, sent_late
from tests.postgresql import Cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection


@pytest.fixture(scope="module")
def crashing_cluster() -> Iterator[Cluster]:
    """A PostgreSQL of this module's own, with its durability, to be killed."""
    with Cluster({"max_connections": "50"}) as cluster:
        yield cluster


@pytest.fixture
def crashing_url(crashing_cluster: Cluster) -> str:
    """A migrated database there."""
    return migrated.postgresql(crashing_cluster)


@pytest.fixture
def proxied(proxy: Proxy) -> Iterator[Driven]:
    """A ledger whose connections go through the proxy."""
    driven = Driven(Database.open_postgresql(proxy.url, unsafe=True)).start()
    yield driven
    driven.close()


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
