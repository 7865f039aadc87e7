"""One group: lock, known?, rule, write; all in one database transaction.

The wallets are locked first, in a statement of its own; only then are the time, the keys, reservations,
lots, counters and what is due read: on PostgreSQL each statement has its own snapshot, also of those that
are sent in one round trip, and what was read before the lock may be older than it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from oanim_server.database.columns import Asked
from oanim_server.database.engine import driver_of
from oanim_server.ledger import journal, rows
from oanim_server.ledger.cold import Cold
from oanim_server.ledger.due import PORTION, Due, due_on, write_due
from oanim_server.ledger.operations import Companion, OnReservation, Operation
from oanim_server.ledger.refusals import REMEMBERED, IdempotencyKeyReused, Refusal
from oanim_server.ledger.values import REFUSAL_MEMORY, Counter, Outcome, Reservation
from oanim_server.ledger.working import Attempt, Identity, WorkingSet

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from oanim_server.database.engine import Changed, Statements
    from oanim_server.database.places import Places

# A write that moves no money: rows of a capability, at its turn, in the group's database transaction.
Change = Callable[["Connection", int], Any]
Work = Operation | Change

# The outcome of an operation that has to wait: more was due on its wallet than one group writes.
DEFERRED = object()


class GuardError(RuntimeError):
    """A guarded statement changed another number of rows than was decided."""


class Group:
    """The operations of one database transaction, and what became of them."""

    def __init__(self, connection: Connection, statements: Statements, works: Sequence[Work]) -> None:
        self._connection = connection
        self._driver = driver_of(connection)
        self._statements = statements
        self._works = works
        self._operations = [work for work in works if isinstance(work, Operation)]
        # What few operations change of each wallet, as it was loaded.
        self._terms: dict[int, tuple[Any, ...]] = {}
        # The reservations that Reserves had made before this group.
        self._made: dict[Identity, int] = {}
        self._answered: dict[Identity, tuple[bytes, Outcome | Refusal]] = {}
        self._refused: dict[Identity, tuple[bytes, Refusal]] = {}
        self._incomplete: set[int] = set()
        self._expected: list[tuple[Changed, int]] = []
        self._cold = Cold(connection, statements)
        self._last_place: int | None = None
        self.working = WorkingSet(0, self._cold)
        self.answers: list[Any] = []

    def run(self) -> None:
        """Load, decide and write; `answers` are in the order of the operations. The caller commits."""
        self._load()
        self.answers = [self._answer(work) for work in self._works]
        self._write()

    # Load -----------------------------------------------------------------------------------------

    def _load(self) -> None:
        working = self.working
        if not self._operations:
            working.now = self._statements.clock(self._driver)
            return
        self._load_rows()
        expiring = self._load_due()
        self._load_counters()
        for due in expiring:
            write_due(working, due)
            if not due.complete:
                self._incomplete.add(due.wallet.wallet_id)

    def _load_rows(self) -> None:
        working = self.working
        asked = _asked(self._operations)
        # The lock of I3 and I7: from here to the commit nobody else changes these wallets.
        found = self._statements.lock_and_load(self._driver, asked)
        working.now = found.now
        self._last_place = found.last_place
        for row in found.wallets:
            wallet = rows.wallet_of(row)
            working.wallets[wallet.wallet_id] = wallet
            self._terms[wallet.wallet_id] = rows.terms_of(wallet)
        for row in found.known:
            known = journal.Row(*row)
            working.known[known.idem_key or "", known.wallet_id, known.caller, known.method] = known
        for key, wallet_id, caller, method, fingerprint, reason, facts, at in found.refusals:
            if at > working.now - REFUSAL_MEMORY:
                self._answered[key, wallet_id, caller, method] = (fingerprint, revive(reason, facts))
        for row in found.reservations:
            self._keep(row)
        for key, wallet_id, caller, method, *row in found.made:
            self._made[key, wallet_id, caller, method] = self._keep(row).number
        # Of replays.
        made = {(row.wallet_id, row.reservation) for row in working.known.values() if row.reservation}
        missing = list(made - working.reservations.keys())
        for row in self._statements.load_reservations(self._driver, missing) if missing else ():
            self._keep(row)

    def _keep(self, row: Sequence[Any]) -> Reservation:
        reservation = rows.reservation_of(row)
        self.working.reservations[reservation.wallet_id, reservation.number] = reservation
        return reservation

    def _load_due(self) -> list[Due]:
        """What is due on each wallet, `PORTION` reservations in all: one with more leaves room for others."""
        working, left, found = self.working, PORTION, []
        wallets = [
            wallet
            for wallet in working.wallets.values()
            if wallet.next_due_at is not None and working.time(wallet) >= wallet.next_due_at
        ]
        for waiting, wallet in zip(range(len(wallets), 0, -1), wallets, strict=True):
            due = due_on(self._statements, self._driver, working, wallet, max(left // waiting, 1))
            left -= len(due.reservations)
            found.append(due)
        return found

    def _load_counters(self) -> None:
        working = self.working
        limited = [wallet.wallet_id for wallet in working.wallets.values() if wallet.limits]
        if limited:
            working.limits.update(self._cold.limits(limited))
        caps = {(o.wallet_id, cap) for o in self._operations for cap in o.caps(working)}
        for reservation in working.counting():
            caps.update((reservation.wallet_id, cap) for cap in working.caps_of(reservation))
        if not caps:
            return
        asked = list({(wallet_id, *cap.counted_under) for wallet_id, cap in caps})
        for *key, charged, held in self._statements.load_counters(self._driver, asked):
            working.counters[tuple(key)] = Counter(charged, held)
        for wallet_id, cap in caps:
            working.counter(wallet_id, cap)

    # Decide ---------------------------------------------------------------------------------------

    def _answer(self, work: Work) -> Any:
        """The outcome of one operation, or the refusal that it gets; neither spoils its neighbours."""
        try:
            if isinstance(work, OnReservation):
                self._name_reservation(work)
            if isinstance(work, Operation):
                return self._decide(work)
            return work(self._connection, self.working.now)
        except Refusal as refusal:
            if refusal.wallet_seq is None and isinstance(work, Operation):
                wallet = self.working.wallets.get(work.wallet_id)
                refusal.wallet_seq = wallet.seq if wallet is not None else None
            # Its frames have this group, which has it: only the collector would find them.
            return refusal.with_traceback(None)

    def _decide(self, operation: Operation) -> Any:
        working = self.working
        identity = operation.identity
        fingerprint = operation.fingerprint()
        known = self._known(identity)
        if known is not None:
            first, answer = known
            if first != fingerprint:
                raise IdempotencyKeyReused(operation.idempotency_key)
            if isinstance(answer, Refusal):
                raise answer.again()
            return answer._replace(replayed=True)
        if operation.wallet_id in self._incomplete:
            return DEFERRED
        written = len(working.rows)
        try:
            if operation.companion is not None:
                operation.companion.load(self._connection, working.now)
            outcome = operation.decide(
                working, Attempt(operation.caller, operation.method, operation.idempotency_key, fingerprint)
            )
        except Refusal as refusal:
            wallet = working.wallets.get(operation.wallet_id)
            refusal.wallet_seq = wallet.seq if wallet is not None else None
            if operation.starts_work and refusal.remembered and wallet is not None:
                self._answered[identity] = self._refused[identity] = (fingerprint, refusal)
            raise
        if operation.companion is not None:
            self._write_companion(operation.companion, outcome)
        if len(working.rows) > written:
            self._answered[identity] = (fingerprint, outcome)
        return outcome

    def _name_reservation(self, operation: OnReservation) -> None:
        """Give one that names its Reserve the number of what that made, before or in this group."""
        reserve = operation.reserve
        if reserve is None:
            return
        number = self._made.get(reserve)
        if number is None:
            _, answer = self._answered.get(reserve, (None, None))
            made = answer.reservation if isinstance(answer, Outcome) else None
            number = made.number if made is not None else 0
        operation.reservation = number

    def _write_companion(self, companion: Companion, outcome: Outcome) -> None:
        try:
            companion.write(self._connection, outcome)
        except Refusal as refusal:
            raise GuardError("a companion refused what had been decided") from refusal

    def _known(self, identity: Identity) -> tuple[bytes, Outcome | Refusal] | None:
        """What the key was answered, before this group or earlier in it; an effect before a refusal."""
        row = self.working.known.get(identity)
        if row is None:
            return self._answered.get(identity)
        reservation = self.working.reservations.get((row.wallet_id, row.reservation))
        return bytes(row.fingerprint or b""), journal.replay(row, reservation)

    # Write ----------------------------------------------------------------------------------------

    def _write(self) -> None:
        """Write all that was decided, in bulk; then see that the guards let through what was decided."""
        statements, working = self._statements, self.working
        closed = self._closed_lots()
        places = statements.places(self._last_place, working.rows, working.changed_wallets)
        with statements.together(self._driver):
            self._open_wallets(places)
            if working.rows:
                statements.insert_transactions(self._driver, working.rows, places)
            self._update_wallets(places)
            if working.new_items:
                items = [rows.item_row(item) for item in working.new_items]
                statements.insert_usage_items(self._driver, items)
            self._write_reservations()
            if closed:
                self._expect(statements.insert_lots, closed)
            if not working.changed_limits:
                self._write_counters()
            if self._refused:
                statements.insert_refusals(self._driver, [self._remembered(i) for i in self._refused])
        for changed, decided in self._expected:
            if changed.rowcount != decided:
                message = f"{changed.rowcount} rows changed where {decided} were decided"
                raise GuardError(message)
        if working.changed_limits:
            # One that is taken away takes its counters with it: what this group counts comes after that.
            self._cold.write_limits(working.changed_limits, working.ended_limits)
            self._write_counters()
        self._cold.write_credits(working.new_credits.values(), working.changed_credits.values())
        self._cold.write_notes(working.notes)

    def _closed_lots(self) -> list[tuple[Any, ...]]:
        """Rows of the lots that have closed. All that changed are looked at: no check sees the open ones."""
        closed = []
        for (wallet_id, number), lot in self.working.changed_lots.items():
            if not lot.sound:
                raise GuardError(f"lot {number} would have amounts that no lot can have")
            if not lot.remaining_micros:
                closed.append((wallet_id, *rows.lot_fields(lot)))
        return closed

    def _open_wallets(self, places: Places | None) -> None:
        working = self.working
        if working.new_wallets:
            opened = [rows.wallet_row(working.wallets[wallet_id]) for wallet_id in working.new_wallets]
            self._expect(self._statements.insert_wallets, opened, places)

    def _update_wallets(self, places: Places | None) -> None:
        working = self.working
        updated, rewritten = [], []
        for wallet_id, former in working.changed_wallets.items():
            if wallet_id not in working.new_wallets:
                wallet = working.wallets[wallet_id]
                if rows.terms_of(wallet) == self._terms[wallet_id]:
                    updated.append(rows.wallet_update(wallet, former))
                else:
                    rewritten.append(rows.wallet_rewrite(wallet, former))
        if updated:
            self._expect(self._statements.update_wallets, updated, places)
        if rewritten:
            self._expect(self._statements.rewrite_wallets, rewritten, places)

    def _write_reservations(self) -> None:
        working = self.working
        if working.new_reservations:
            made = [rows.reservation_row(reservation) for reservation in working.new_reservations.values()]
            self._expect(self._statements.insert_reservations, made)
        if working.changed_reservations:
            changed = [
                rows.reservation_update(working.reservations[key], former)
                for key, former in working.changed_reservations.items()
            ]
            self._expect(self._statements.update_reservations, changed)

    def _write_counters(self) -> None:
        working = self.working
        if working.changed_counters:
            counters = [
                (*key, working.counters[key].charged_micros, working.counters[key].held_micros)
                for key in working.changed_counters
            ]
            self._statements.upsert_counters(self._driver, counters)
        if working.usage:
            totals = [(*key, *total) for key, total in working.usage.items()]
            self._statements.add_usage(self._driver, totals)

    def _expect(self, write: Callable[..., Changed], decided: list[tuple[Any, ...]], *how: object) -> None:
        self._expected.append((write(self._driver, decided, *how), len(decided)))

    def _remembered(self, identity: Identity) -> tuple[Any, ...]:
        key, wallet_id, caller, method = identity
        fingerprint, refusal = self._refused[identity]
        facts = {**refusal.facts(), "wallet_seq": refusal.wallet_seq}
        name = type(refusal).__name__
        return (wallet_id, caller, method, key, fingerprint, name, journal.compact(facts), self.working.now)


def _asked(operations: Sequence[Operation]) -> Asked:
    """What the operations need of what is stored."""
    identities, starting, numbers, reserves = set(), [], set(), set()
    for operation in operations:
        if operation.idempotency_key:
            identities.add(identity := operation.identity)
            if operation.starts_work:
                starting.append(identity)
        if isinstance(operation, OnReservation):
            if (reserve := operation.reserve) is not None:
                reserves.add(reserve)
            elif operation.reservation:
                numbers.add((operation.wallet_id, operation.reservation))
    wallet_ids = sorted({operation.wallet_id for operation in operations if not operation.opens_wallet})
    return Asked(wallet_ids, list(identities), starting, list(numbers), list(reserves))


def revive(reason: str, facts: str) -> Refusal:
    """A refusal that a key remembers."""
    fields = json.loads(facts)
    wallet_seq = fields.pop("wallet_seq")
    refusal = REMEMBERED[reason].revive(fields)
    refusal.wallet_seq = wallet_seq
    return refusal
