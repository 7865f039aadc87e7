"""The checks of one wallet: what is stored of it against what its journal says."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from oanim_server.database.columns import LOT_COLUMNS
from oanim_server.ledger import journal, rows
from oanim_server.ledger.audit_counts import Counts, Subject
from oanim_server.ledger.audit_credits import PAID, Credits
from oanim_server.ledger.audit_findings import Findings
from oanim_server.ledger.audit_holds import Holds
from oanim_server.ledger.audit_items import Items
from oanim_server.ledger.audit_places import Places
from oanim_server.ledger.values import Account, Kind, Limit, Lot, Note, Origin, Wallet
from oanim_server.ledger.windows import Period, window_named

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Rows that have the operator's name and reason.
_NOTED = (Kind.GRANT, Kind.ADJUSTMENT, Kind.FREEZE)
# Lots that were paid from promotions, besides the bonus of a purchase.
_GIFTS = (Origin.SIGN_UP, Origin.GRANT)
# Where an open lot says when it expires, if it does.
_EXPIRES_AT = LOT_COLUMNS.index("expires_at") - 1


@dataclass(slots=True)
class Report:
    """What was looked at, and what was found to be off; all is well when `problems` is empty."""

    wallets: int = 0
    transactions: int = 0
    entries: int = 0
    lots: int = 0
    reservations: int = 0
    balance_micros: int = 0
    held_micros: int = 0
    # How many heads are as an earlier audit wrote them down, and whether there were any to compare with.
    anchored: int = 0
    anchor_was_there: bool = False
    problems: list[str] = field(default_factory=list)
    heads: dict[str, tuple[int, str]] = field(default_factory=dict)


@dataclass(slots=True)
class _Sealed:
    """A row that made lots, or with which something else was said."""

    kind: int
    seal: bytes | None
    lots: list[int]
    # The purchase's credit that it made or changed, 0 for none.
    credit: int


@dataclass(slots=True)
class _Replay:
    """What the journal of one wallet says: built row by row."""

    link: bytes = journal.GENESIS
    seq: int = 0
    at: int = 0
    balance_micros: int = 0
    debt_micros: int = 0
    held_micros: int = 0
    frozen: bool = False
    remaining_micros: int = 0
    lots: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    sealed: dict[int, _Sealed] = field(default_factory=dict)
    # What each system account has, but for the rows that payments made.
    otherwise: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))


class Check:
    """The checks of one wallet."""

    def __init__(self, report: Report, name: str, wallet: Wallet, anchored: tuple[int, str] | None) -> None:
        self._report = report
        self._findings = Findings(name, report.problems)
        self._off, self._same = self._findings.off, self._findings.same
        self._wallet = wallet
        self._anchored = anchored
        # Numbers of lots, also of those that cannot be read.
        self._seen: set[int] = set()
        self._lots: dict[int, Lot] = {}
        self._stored: dict[Subject, list[int]] = {}
        self._counts = Counts(self._stored)

    def counted(self, found: Iterator[Any]) -> None:
        """Remember what is stored of spend scopes and limits: only of those in use is anything counted."""
        for _, subject, window, charged, held in found:
            self._stored[subject, window] = [charged, held]

    def holds(self, found: Iterator[Any]) -> Holds:
        """The wallet's reservations, to be walked along beside its journal."""
        return Holds(found, self._findings, self._counts)

    def items(self, found: Iterator[Any]) -> Items:
        """The wallet's usage items, to be walked along beside its journal."""
        return Items(found, self._findings, self._counts)

    def places(self, filed: Iterator[Any], latest: str | None) -> Places:
        """Where the wallet looks for its rows, to be walked along beside them."""
        return Places(filed, latest, self._findings)

    def bought(self, found: Iterator[Any]) -> Credits:
        """What the wallet's purchases credited, to be walked along beside its journal."""
        return Credits(found, self._findings)

    def replay(
        self, found: Iterator[Any], holds: Holds, items: Items, places: Places, bought: Credits
    ) -> _Replay:
        """I1 and I13: entries, running balances, gapless numbers, links; what was held and used beside it."""
        replay = _Replay()
        for *values, place in found:
            self._report.transactions += 1
            row = journal.Row(*values)
            self._row(row, replay, bought)
            holds.row(row)
            items.row(row)
            places.row(row.seq, place)
        holds.end()
        items.end()
        places.end()
        bought.end()
        self._report.reservations += holds.count
        wallet = self._wallet
        self._same("rows in the journal", replay.seq, wallet.seq)
        self._same("the head of the chain", replay.link.hex(), wallet.link.hex())
        self._same("balance", replay.balance_micros, wallet.balance_micros)
        self._same("debt", replay.debt_micros, wallet.debt_micros)
        self._same("time of the last row", replay.at, wallet.at)
        self._same("frozen", replay.frozen, wallet.frozen)
        if self._anchored is not None and self._anchored[0] > replay.seq:
            self._off(f"the anchor knows {self._anchored[0]} rows, the journal {replay.seq}")
        return replay

    def _row(self, row: journal.Row, replay: _Replay, bought: Credits) -> None:
        where = f"row {row.seq}: "
        self._same(where + "number", row.seq, replay.seq + 1)
        if row.at < replay.at:
            self._off(f"{where}it is earlier than the row before it")
        entries = self._entries(where, row, replay)
        self._lot_movements(where, row, replay, entries, bought)
        replay.link = journal.link_of(replay.link, tuple(row[:-1]))
        if replay.link != bytes(row.link):
            self._off(f"{where}the chain is broken: this row or one before it was changed or removed")
            replay.link = bytes(row.link)
        if self._anchored == (row.seq, replay.link.hex()):
            self._report.anchored += 1
        elif self._anchored is not None and self._anchored[0] == row.seq:
            self._off(f"{where}its link is not the one in the anchor: the journal was written anew")
        replay.seq = row.seq
        replay.at = row.at
        replay.debt_micros = row.debt_micros
        replay.frozen = bool(row.frozen)

    def _entries(self, where: str, row: journal.Row, replay: _Replay) -> list[list[int]]:
        entries = self._findings.numbers(where + "its entries", row.entries, 2)
        self._report.entries += len(entries)
        self._same(where + "sum of its entries", sum(micros for _, micros in entries), 0)
        replay.balance_micros += sum(micros for account, micros in entries if account == Account.WALLET)
        revenue = sum(micros for account, micros in entries if account == Account.REVENUE)
        self._same(where + "charged and uncollected", revenue, row.charged_micros + row.uncollected_micros)
        if row.kind not in PAID:
            for account, micros in entries:
                replay.otherwise[account] += micros
        self._same(where + "balance", row.balance_micros, replay.balance_micros)
        return entries

    def _lot_movements(
        self, where: str, row: journal.Row, replay: _Replay, entries: list[list[int]], bought: Credits
    ) -> None:
        moved = self._findings.numbers(where + "its lots", row.lots, 3)
        made = [number for number, _, _ in moved if number not in replay.lots]
        credit = bought.row(row, entries, moved, made)
        sealed = made or row.seal is not None or row.kind in _NOTED
        if sealed and not row.reservation and row.kind != Kind.USAGE:
            replay.sealed[row.seq] = _Sealed(row.kind, row.seal and bytes(row.seal), made, credit)
        for number, remaining, held in moved:
            replay.lots[number][0] += remaining
            replay.lots[number][1] += held
            replay.remaining_micros += remaining
            replay.held_micros += held
        self._same(where + "held", row.held_micros, replay.held_micros)
        self._same(where + "lots less debt", replay.remaining_micros - row.debt_micros, replay.balance_micros)

    def lots(self, open_lots: str, closed: Iterator[Any], replay: _Replay, holds: Holds) -> None:
        """I2: lots as the journal made and moved them, and as reservations keep parts of them."""
        for fields in self._findings.numbers("its open lots", open_lots, len(LOT_COLUMNS) - 1, _EXPIRES_AT):
            self._lot(fields, replay, holds, is_open=True)
        for row in closed:
            self._lot(row[1:], replay, holds, is_open=False)
        for number in replay.lots:
            self._off(f"lot {number}: the journal knows it, and it is neither open nor closed")
        held_by_lots = sum(lot.held_micros for lot in self._lots.values())
        self._same("held by its lots", held_by_lots, self._wallet.held_micros)
        self._same("lots that were made", max(self._seen, default=0), self._wallet.lots_made)
        given = sum(lot.lapsed_micros for lot in self._lots.values() if lot.origin.promotional)
        bought = sum(lot.lapsed_micros for lot in self._lots.values() if not lot.origin.promotional)
        of_gifts = sum(lot.amount_micros for lot in self._lots.values() if lot.origin in _GIFTS)
        self._same("given credits that expired", replay.otherwise[Account.PROMOTIONS] + of_gifts, given)
        self._same("bought credits that expired", replay.otherwise[Account.BREAKAGE], bought)
        next_due_at = self._wallet.next_due_at
        due = [] if holds.next_expiry is None else [holds.next_expiry]
        due += [at for lot in self._lots.values() if (at := lot.expires_at) is not None and lot.free_micros]
        if due and (next_due_at is None or next_due_at > min(due)):
            self._off(f"next due: {next_due_at} is stored, something is due at {min(due)}")

    def _lot(self, fields: Sequence[Any], replay: _Replay, holds: Holds, *, is_open: bool) -> None:
        number = fields[0]
        where = f"lot {number}: "
        self._report.lots += 1
        if number in self._seen:
            self._off(where + "it is there twice")
            return
        self._seen.add(number)
        remaining, held = replay.lots.pop(number, [0, 0])
        with self._findings.reading(f"lot {number}"):
            lot = self._lots[number] = rows.lot_of(fields)
            self._same(where + "remaining", remaining, lot.remaining_micros)
            self._same(where + "held", held, lot.held_micros)
            self._same(where + "kept by reservations", holds.kept[number], lot.held_micros)
            self._same(where + "open", lot.remaining_micros > 0, is_open)
            if not lot.sound:
                self._off(where + "its amounts are none that a lot can have")

    def counters(self) -> None:
        """What spend scopes and limits count, from the work that counts under them."""
        for (subject, window), (charged, held) in self._stored.items():
            expected = self._counts.counters.pop((subject, window), [0, 0])
            self._same(f"{_scope(subject, window)}: charged", expected[0], charged)
            self._same(f"{_scope(subject, window)}: held", expected[1], held)
        for subject, window in self._counts.counters:
            self._off(f"{_scope(subject, window)}: reservations count under it, the table does not know it")

    def credits(self, bought: Credits) -> None:
        """What purchases credited, and that what was taken back of it is where it is said to be."""
        bought.compare(self._lots)

    def limits(self, found: Iterator[Any], replay: _Replay) -> None:
        """That the limits are those that were set last, and that nothing is counted but under them."""
        stored = []
        for _, api_key_id, period, limit_micros in found:
            with self._findings.reading(f"a limit of {api_key_id or 'account'}"):
                stored.append(Limit(api_key_id, Period(period), limit_micros))
        stored.sort()
        self._same("limits", len(stored), self._wallet.limits)
        latest = [made.seal for made in replay.sealed.values() if made.kind == Kind.LIMIT][-1:]
        set_so = journal.seal_of_made((), [[list(limit) for limit in stored]])
        if (stored or latest) and latest != [set_so]:
            self._off("limits: they are not as they were set last")
        periods = {(limit.api_key_id, limit.period.name.lower()) for limit in stored}
        for subject, window in self._stored:
            if window and ((subject, window.partition(" ")[0]) not in periods or not _is_window(window)):
                self._off(f"{_scope(subject, window)}: there is no such limit")

    def seals(self, found: Iterator[Any], replay: _Replay, bought: Credits) -> None:
        """I13: what the rows of the journal sealed and other tables keep."""
        said = {seq: Note(actor, reason) for _, seq, actor, reason in found}
        for seq, made in replay.sealed.items():
            if made.kind == Kind.LIMIT:
                continue
            words: Sequence[object] = ()
            if made.kind in _NOTED:
                words = said.pop(seq, ())
            elif made.kind in PAID:
                credit = bought.stored.get(made.credit)
                words = [credit.purchase_id] if credit else ["?"]
            lots = [self._lots[number] for number in made.lots if number in self._lots]
            if made.seal != journal.seal_of_made(lots, words):
                self._off(f"row {seq}: what never changes of what it made was changed")
        for seq in said:
            self._off(f"row {seq}: it has a reason and needs none")

    def usage(self, found: Iterator[Any]) -> None:
        """What usage adds up, from the charges."""
        for _, *group, charges, charged in found:
            expected = self._counts.usage.pop(tuple(group), [0, 0])
            self._same(f"usage: charges under {group}", expected[0], charges)
            self._same(f"usage: charged under {group}", expected[1], charged)
        for group in self._counts.usage:
            self._off(f"usage: work was charged under {list(group)}, the table does not know it")


def _scope(subject: str, window: str) -> str:
    name = f"{subject or 'account'} {window}".strip()
    return f"scope {name!r}"


def _is_window(name: str) -> bool:
    try:
        return window_named(name).name == name
    except (KeyError, ValueError):
        return False
