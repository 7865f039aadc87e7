"""Reading the ledger: stored balances, never a sum over history.

A read before the wallet's `next_due_at` is one row. After it, what is due and not yet written is applied
to the values that were read, by the same step that will write it: a read shows no difference between a
server with a sweeper and one without. Where that is very much, every read would pay for it again, and
where it charges, sums over what is written would miss it: such a read is refused with DueFirstError until
it was written.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from sqlalchemy import func, literal, select, union_all

from oanim_server.database.columns import WALLET_COLUMNS
from oanim_server.database.engine import driver_of
from oanim_server.database.places import at_seq
from oanim_server.database.tables import (
    lots,
    notes,
    reservations,
    transactions,
    usage_days,
    usage_items,
    wallets,
)
from oanim_server.ledger import journal, rows, rules
from oanim_server.ledger.cold import Cold, last_seq
from oanim_server.ledger.due import due_on, write_due
from oanim_server.ledger.refusals import NotFound
from oanim_server.ledger.values import (
    Counter,
    Kind,
    LimitFacts,
    Line,
    Lot,
    Reservation,
    ReservationFacts,
    State,
    UsageItem,
    Wallet,
    WalletFacts,
)
from oanim_server.ledger.windows import window_of
from oanim_server.ledger.working import WorkingSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import ColumnElement, Connection

    from oanim_server.database.engine import Statements


# Rows of the operator's.
_NOTED = (Kind.GRANT, Kind.ADJUSTMENT, Kind.FREEZE)

_WALLET = [wallets.c[name] for name in WALLET_COLUMNS]

# How many rows of the journal are looked at in one step.
AT_ONCE = 10_000

# More than any wallet has due.
ALL = 2**31


class DueFirstError(Exception):
    """What is due on the wallet is more than a read applies by itself: it has to be written first."""


class Statement(NamedTuple):
    """A page of the journal, newest first, and the wallet and its open lots, in draw order, as of its time.

    `models` names the model of each reservation and usage item that the page mentions, by its number;
    `reasons` says why the operator made a row.
    """

    rows: list[journal.Row]
    wallet: WalletFacts
    lots: list[Lot]
    models: dict[int, str]
    reasons: dict[int, str]


class UsageTotal(NamedTuple):
    """What was charged to one group."""

    group: str | int
    charges: int
    charged_micros: int


class ChargeRecord(NamedTuple):
    """One charge: of a reservation, or of a usage item, which has the id of an event in its place."""

    wallet_id: int
    seq: int
    at: int
    provider: str
    model: str
    category: str
    charged_micros: int
    quantity: int
    reservation: int
    api_key_id: str
    project: str
    event_id: str


class UncollectedRecord(NamedTuple):
    """Work that was done and that no wallet covered; of a usage item the id of its event."""

    wallet_id: int
    reservation: int
    at: int
    model: str
    uncollected_micros: int
    event_id: str


class Grouping(StrEnum):
    """What usage is added up by: the columns of `usage_days`."""

    DAY = "day"
    MODEL = "model"
    CATEGORY = "category"
    API_KEY = "api_key_id"
    PROJECT = "project"


class Reads:
    """Queries for `Database.read`; each method takes a connection with one snapshot.

    :param most_due: how many expiries a read applies by itself; DueFirstError where there are more.
    """

    def __init__(self, statements: Statements, *, most_due: int = ALL) -> None:
        self._statements = statements
        self._most_due = most_due

    def wallet(self, connection: Connection, wallet_id: int) -> WalletFacts:
        """The wallet now."""
        return self.wallet_for(connection, wallet_id)[0]

    def wallet_for(self, connection: Connection, wallet_id: int) -> tuple[WalletFacts, int | None]:
        """The wallet now, and for how many microseconds it stays so by itself; None for ever."""
        wallet, now = self._wallet(connection, wallet_id)
        seq = wallet.seq
        if wallet.next_due_at is not None and wallet.next_due_at <= now:
            self._settled(connection, wallet, now)
        facts = journal.wallet_facts(wallet)._replace(seq=seq)
        return facts, None if wallet.next_due_at is None else wallet.next_due_at - now

    def reservation(self, connection: Connection, wallet_id: int, number: int) -> ReservationFacts:
        """One reservation now."""
        _, now = self._wallet(connection, wallet_id, what="reservation")
        found = self._statements.load_reservations(driver_of(connection), [(wallet_id, number)])
        if not found:
            raise NotFound(what="reservation")
        return self._standing(found, now)[0]

    def reservations(
        self, connection: Connection, wallet_id: int, *, active: bool, before: int | None, limit: int
    ) -> list[ReservationFacts]:
        """Reservations, newest first."""
        _, now = self._wallet(connection, wallet_id)
        query = select(reservations).where(reservations.c.wallet_id == wallet_id)
        if active:
            query = query.where(reservations.c.state == State.ACTIVE.value).where(
                reservations.c.expires_at.is_(None) | (reservations.c.expires_at > now)
            )
        if before is not None:
            query = query.where(reservations.c.number < before)
        query = query.order_by(reservations.c.number.desc()).limit(limit)
        return self._standing(connection.execute(query).all(), now)

    def statement(
        self, connection: Connection, wallet_id: int, *, as_of: int | None, before: int | None, limit: int
    ) -> Statement:
        """The statement as of a time; None is now. What was due by then counts as written."""
        wallet, now = self._wallet(connection, wallet_id)
        time = now if as_of is None else min(as_of, now)
        if time >= wallet.at:
            written = wallet.seq
            settled = self._settled(connection, wallet, time)
            coming = [row for row in settled.rows if before is None or row.seq < before]
            facts = journal.wallet_facts(wallet)
            open_lots = [lot for lot in wallet.lots.values() if lot.remaining_micros]
        else:
            written = last_seq(connection, wallet, time)
            coming = []
            facts = self._facts_at(connection, wallet_id, written)
            # It reads the rows on one side of that time, so only the first page has them.
            open_lots = self._lots_at(connection, wallet, written) if before is None else []
        page = coming[::-1][:limit]
        if len(page) < limit:
            last = written if before is None else min(written, before - 1)
            # They count up without gaps.
            after = max(last - (limit - len(page)), 0)
            found = _read(connection, self._statements.fetch_rows, wallet_id, after, last)
            page += [journal.Row(*row) for row in found]
        return Statement(
            page,
            facts,
            sorted(open_lots, key=rules.draw_order),
            {n: _model_of(work.line) for n, work in self._work_of(connection, wallet_id, page).items()},
            self._reasons(connection, wallet_id, page),
        )

    def limits(self, connection: Connection, wallet_id: int) -> list[LimitFacts]:
        """The limits now, and what each has in its present window."""
        wallet, now = self._wallet(connection, wallet_id)
        if not wallet.limits:
            return []
        working = self._settled(connection, wallet, now)
        return [working.limit_facts(wallet_id, limit) for limit in working.limits[wallet_id]]

    def usage(
        self, connection: Connection, wallet_id: int, *, first_day: int, last_day: int, group_by: Grouping
    ) -> list[UsageTotal]:
        """Totals over days since 1970, both ends included; days in order, others the largest first."""
        self._require_no_charge_due(connection, *self._wallet(connection, wallet_id))
        group = usage_days.c[group_by.value]
        charged = func.sum(usage_days.c.charged_micros)
        query = (
            select(group, func.sum(usage_days.c.charges), charged)
            .where(usage_days.c.wallet_id == wallet_id)
            .where(usage_days.c.day.between(first_day, last_day))
            .group_by(group)
        )
        query = query.order_by(group) if group_by is Grouping.DAY else query.order_by(charged.desc(), group)
        return [
            UsageTotal(name, int(charges), int(micros)) for name, charges, micros in connection.execute(query)
        ]

    def charges(
        self, connection: Connection, wallet_id: int, *, since: int | None, before: int | None, limit: int
    ) -> list[ChargeRecord]:
        """Charges one by one, newest first."""
        wallet, now = self._wallet(connection, wallet_id)
        self._require_no_charge_due(connection, wallet, now)
        after = last_seq(connection, wallet, since - 1) if since is not None else 0
        last = wallet.seq if before is None else min(wallet.seq, before - 1)
        fetch = self._statements.fetch_charges
        charges = _read(connection, fetch, wallet_id, after, last, at_once=2 * limit)
        page = [journal.Row(*row) for row in islice(charges, limit)]
        work = self._work_of(connection, wallet_id, page)
        return [_charge(row, work[_number_of(row)]) for row in page]

    def uncollected(
        self, connection: Connection, wallet_id: int | None, *, offset: int, limit: int
    ) -> list[UncollectedRecord]:
        """Work that no wallet covered, newest first; of one wallet, or of all."""
        r, i = reservations.c, usage_items.c
        held = select(
            r.wallet_id,
            r.number,
            r.ended_at.label("at"),
            r.pinned.label("said"),
            r.uncollected_micros,
            literal(0).label("item"),
        ).where(r.uncollected_micros > 0)
        items = select(i.wallet_id, literal(0), i.at, i.model, i.uncollected_micros, i.number).where(
            i.uncollected_micros > 0
        )
        if wallet_id is not None:
            self._require_no_charge_due(connection, *self._wallet(connection, wallet_id))
            # Little is uncollected: + 0 keeps SQLite from reading all that the wallet has ever held instead.
            held, items = held.where(r.wallet_id + 0 == wallet_id), items.where(i.wallet_id + 0 == wallet_id)
        both = union_all(held, items).subquery()
        page = select(both).order_by(*_newest_first(both.c)).offset(offset).limit(limit).subquery()
        # The id of an event is the key of its row.
        c, event_id = page.c, func.coalesce(transactions.c.idem_key, "")
        query = (
            select(c.wallet_id, c.number, c.at, c.said, c.uncollected_micros, event_id, c.item)
            .outerjoin(transactions, at_seq(c.wallet_id, c.item))
            .order_by(*_newest_first(c))
        )
        return [
            UncollectedRecord(
                w, number, at, said if item else _model_of(rows.pinned_of(said).line), micros, key
            )
            for w, number, at, said, micros, key, item in connection.execute(query)
        ]

    # Pieces ---------------------------------------------------------------------------------------

    def _require_no_charge_due(self, connection: Connection, wallet: Wallet, now: int) -> None:
        """See that no hold has run out that a counter charges, and that is not written yet."""
        if wallet.next_due_at is None or wallet.next_due_at > now:
            return
        r = reservations.c
        query = (
            select(r.number)
            .where(r.wallet_id == wallet.wallet_id, r.state == State.ACTIVE.value)
            .where(r.expires_at <= now, r.reported_quantity > 0)
            .limit(1)
        )
        if connection.execute(query).first() is not None:
            raise DueFirstError

    def _wallet(self, connection: Connection, wallet_id: int, what: str = "account") -> tuple[Wallet, int]:
        """A wallet's row, and the time on it."""
        # The time before the snapshot: by one after it, an old state would be judged by a later time.
        now = self._statements.snapshot_clock(driver_of(connection))
        found = connection.execute(select(*_WALLET).where(wallets.c.wallet_id == wallet_id)).one_or_none()
        if found is None:
            raise NotFound(what=what)
        wallet = rows.wallet_of(found)
        return wallet, max(now, wallet.at)

    def _settled(self, connection: Connection, wallet: Wallet, time: int) -> WorkingSet:
        """The wallet with what is due by a time applied, as it will be written."""
        statements, driver = self._statements, driver_of(connection)
        cold = Cold(connection, statements)
        working = WorkingSet(time, cold)
        working.wallets[wallet.wallet_id] = wallet
        if wallet.limits:
            working.limits = cold.limits([wallet.wallet_id])
            asked = [
                (wallet.wallet_id, limit.api_key_id, window_of(limit.period, time).name)
                for limit in working.limits[wallet.wallet_id]
            ]
            for *key, charged, held in statements.load_counters(driver, asked):
                working.counters[tuple(key)] = Counter(charged, held)
        if wallet.next_due_at is not None and wallet.next_due_at <= time:
            due = due_on(statements, driver, working, wallet, self._most_due)
            if not due.complete:
                raise DueFirstError
            working.begin_counting(wallet.wallet_id)
            write_due(working, due)
        return working

    def _standing(self, found: Sequence[Sequence[object]], now: int) -> list[ReservationFacts]:
        standing = []
        for row in found:
            reservation = rows.reservation_of(row)
            facts = journal.reservation_facts(reservation)._replace(
                reported_quantity=reservation.reported_quantity
            )
            if facts.state is State.ACTIVE and facts.expires_at is not None and facts.expires_at <= now:
                facts = _run_out(facts)
            standing.append(facts)
        return standing

    def _facts_at(self, connection: Connection, wallet_id: int, seq: int) -> WalletFacts:
        if seq == 0:
            return WalletFacts(wallet_id, 0, 0, 0, 0, frozen=False)
        row = journal.Row(*self._statements.fetch_row(driver_of(connection), wallet_id, seq))
        return journal.replay(row, None).wallet

    def _lots_at(self, connection: Connection, wallet: Wallet, seq: int) -> list[Lot]:
        """The lots after a row: by what rows did until then or, where those are fewer, have done since.

        The first row that names a lot brings what came in, so that before all rows there is nothing in it.
        """
        closed = connection.execute(select(lots).where(lots.c.wallet_id == wallet.wallet_id))
        found = wallet.lots | {row.lot: rows.lot_of(row[1:]) for row in closed}
        if seq <= wallet.seq - seq:
            after, last, sign = 0, seq, 1
            for lot in found.values():
                lot.remaining_micros = lot.held_micros = 0
        else:
            after, last, sign = seq, wallet.seq, -1
        for (moved,) in _read(connection, self._statements.fetch_moves, wallet.wallet_id, after, last):
            for number, remaining, held in orjson.loads(moved):
                found[number].remaining_micros += sign * remaining
                found[number].held_micros += sign * held
        return [lot for lot in found.values() if lot.remaining_micros]

    def _work_of(
        self, connection: Connection, wallet_id: int, page: Sequence[journal.Row]
    ) -> dict[int, Reservation | UsageItem]:
        """The reservations and usage items that rows name, by their numbers."""
        found: dict[int, Reservation | UsageItem] = {}
        held = {row.reservation for row in page if row.reservation}
        if held:
            ids = [(wallet_id, number) for number in held]
            for row in self._statements.load_reservations(driver_of(connection), ids):
                reservation = rows.reservation_of(row)
                found[reservation.number] = reservation
        items = {row.seq for row in page if row.kind == Kind.USAGE}
        if items:
            query = select(usage_items).where(usage_items.c.wallet_id == wallet_id)
            for row in connection.execute(query.where(usage_items.c.number.in_(items))):
                item = rows.item_of(row)
                found[item.number] = item
        return found

    def _reasons(self, connection: Connection, wallet_id: int, page: Sequence[journal.Row]) -> dict[int, str]:
        seqs = [row.seq for row in page if row.kind in _NOTED]
        if not seqs:
            return {}
        query = select(notes.c.seq, notes.c.reason).where(notes.c.wallet_id == wallet_id)
        return {row.seq: row.reason for row in connection.execute(query.where(notes.c.seq.in_(seqs)))}


def _read(
    connection: Connection,
    fetch: Callable[..., Any],
    wallet_id: int,
    after: int,
    last: int,
    *,
    at_once: int = AT_ONCE,
) -> Iterator[Any]:
    """What a statement finds of a wallet's rows after one, up to the last, newest first.

    :param at_once: at how many rows it looks first; twice as many each time.
    """
    while last > after:
        first = max(after, last - at_once) + 1
        yield from fetch(driver_of(connection), wallet_id, first, last)
        last, at_once = first - 1, min(2 * at_once, AT_ONCE)


def _run_out(facts: ReservationFacts) -> ReservationFacts:
    """How a hold stands whose time has run out, as the row will say that is not written yet."""
    if not facts.reported_quantity or facts.line is None:
        return facts._replace(state=State.EXPIRED)
    cost_micros = facts.line.cost_micros(facts.reported_quantity)
    charged_micros = min(cost_micros, facts.reserved_micros)
    return facts._replace(
        state=State.EXPIRED,
        captured_micros=charged_micros,
        uncollected_micros=cost_micros - charged_micros,
        captured_quantity=facts.reported_quantity,
    )


def _newest_first(uncollected: Any) -> tuple[ColumnElement[Any], ...]:
    return (uncollected.at.desc(), uncollected.wallet_id, uncollected.number, uncollected.item)


def _number_of(row: journal.Row) -> int:
    """The number of the reservation or of the usage item that a row charged."""
    return row.seq if row.kind == Kind.USAGE else row.reservation


def _model_of(line: Line | None) -> str:
    return line.model if line is not None else ""


def _charge(row: journal.Row, work: Reservation | UsageItem) -> ChargeRecord:
    line = work.line
    return ChargeRecord(
        wallet_id=row.wallet_id,
        seq=row.seq,
        at=row.at,
        provider=line.provider if line is not None else "",
        model=_model_of(line),
        category=line.category if line is not None else "",
        charged_micros=row.charged_micros,
        quantity=row.quantity,
        reservation=row.reservation,
        api_key_id=work.api_key_id,
        project=work.labels.get("project", ""),
        event_id=row.idem_key or "" if row.kind == Kind.USAGE else "",
    )
