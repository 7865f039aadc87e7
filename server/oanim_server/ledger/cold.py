"""What few operations read and write of the ledger: limits, credits of purchases, notes of the operator's.

SQLAlchemy statements: they are far from the path of Reserve and Commit, whose statements are in `database/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, case, delete, func, insert, or_, select, update

from oanim_server.database.engine import driver_of
from oanim_server.database.places import at_seq
from oanim_server.database.tables import (
    limits,
    lots,
    notes,
    purchase_credits,
    reservations,
    spend_counters,
    transactions,
    usage_items,
)
from oanim_server.ledger import journal, rows
from oanim_server.ledger.values import Credit, Limit, Lot, Reservation, State
from oanim_server.ledger.windows import Period

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from sqlalchemy import Connection

    from oanim_server.database.engine import Statements
    from oanim_server.ledger.values import Note, Wallet
    from oanim_server.ledger.windows import Window

# A state whose latest row is the last capture; an earlier one is found by its number.
_ENDED_BY_A_CAPTURE = (State.COMMITTED, State.SETTLED_LATE)
_R = reservations.c
_I = usage_items.c

# Made once: to make one at each use takes as long as to run it.
_C = purchase_credits.c
_OF_WALLET = _C.wallet_id == bindparam("in_wallet")
_CREDIT = select(purchase_credits).where(_OF_WALLET, _C.number == bindparam("of_number"))
_CREDIT_OF = select(purchase_credits).where(
    _OF_WALLET, or_(_C.paid_lot == bindparam("of_lot"), _C.bonus_lot == bindparam("of_lot"))
)
_UPDATE_CREDIT = update(purchase_credits).where(_OF_WALLET, _C.number == bindparam("of_number"))
_INSERT_CREDIT = insert(purchase_credits)
_LOT = select(lots).where(lots.c.wallet_id == bindparam("in_wallet"), lots.c.lot == bindparam("of_lot"))


class Cold:
    """Fetches for the working set, and writes what it changed, in one database transaction."""

    def __init__(self, connection: Connection, statements: Statements) -> None:
        self._connection = connection
        self._statements = statements

    # Fetching -------------------------------------------------------------------------------------

    def capture(self, reservation: Reservation, capture: int) -> journal.Row:
        """The row of a capture that was made before this group."""
        statements, driver = self._statements, driver_of(self._connection)
        wallet_id = reservation.wallet_id
        if capture == reservation.captures and reservation.state in _ENDED_BY_A_CAPTURE:
            return journal.Row(*statements.fetch_row(driver, wallet_id, reservation.last_seq))
        return journal.Row(*statements.fetch_capture(driver, wallet_id, reservation.number, capture))

    def credit(self, wallet_id: int, number: int) -> Credit:
        """What a purchase credited."""
        given = {"in_wallet": wallet_id, "of_number": number}
        return Credit(*self._connection.execute(_CREDIT, given).one())

    def credit_of(self, wallet_id: int, lot: int) -> Credit:
        """What the purchase of a lot credited."""
        given = {"in_wallet": wallet_id, "of_lot": lot}
        return Credit(*self._connection.execute(_CREDIT_OF, given).one())

    def lot(self, wallet_id: int, number: int) -> Lot:
        """A lot that has closed, and so was not loaded."""
        given = {"in_wallet": wallet_id, "of_lot": number}
        return rows.lot_of(self._connection.execute(_LOT, given).one()[1:])

    def limits(self, wallet_ids: Collection[int]) -> dict[int, list[Limit]]:
        """The limits of wallets: the account's first, then by key, the shortest period first."""
        c = limits.c
        query = select(limits).where(c.wallet_id.in_(wallet_ids)).order_by(c.api_key_id, c.period)
        found: dict[int, list[Limit]] = {wallet_id: [] for wallet_id in wallet_ids}
        for wallet_id, api_key_id, period, limit_micros in self._connection.execute(query):
            found[wallet_id].append(Limit(api_key_id, Period(period), limit_micros))
        return found

    def spent(
        self, wallet: Wallet, api_key_id: str, window: Window, without: Collection[int]
    ) -> tuple[int, int]:
        """What a window's usage items and reservations, but some, were charged and hold; no key is any.

        Reads those of the window alone: they have the numbers of their rows, and `at` never falls along the
        rows.
        """
        before = last_seq(self._connection, wallet, window.start - 1)
        held = case((_R.state == State.ACTIVE.value, _R.reserved_micros - _R.captured_micros), else_=0)
        query = (
            select(func.coalesce(func.sum(_R.captured_micros), 0), func.coalesce(func.sum(held), 0))
            .where(_R.wallet_id == wallet.wallet_id)
            .where(_R.number > before)
            .where(_R.created_at >= window.start, _R.created_at < window.end)
        )
        if api_key_id:
            query = query.where(_R.api_key_id == api_key_id)
        if without:
            query = query.where(_R.number.not_in(without))
        items = (
            select(func.coalesce(func.sum(_I.charged_micros), 0))
            .where(_I.wallet_id == wallet.wallet_id, _I.number > before)
            .where(_I.at >= window.start, _I.at < window.end)
        )
        if api_key_id:
            items = items.where(_I.api_key_id == api_key_id)
        charged, holding = self._connection.execute(query).one()
        return int(charged) + int(self._connection.execute(items).scalar_one()), int(holding)

    # Writing --------------------------------------------------------------------------------------

    def write_limits(
        self,
        changed: Mapping[tuple[int, str, Period], int | None],
        ended: Iterable[tuple[int, str, Period]],
    ) -> None:
        """Write limits anew. One that was taken away takes its counters with it, also if it is back."""
        c, s = limits.c, spend_counters.c
        for (wallet_id, api_key_id, period), limit_micros in changed.items():
            here = (c.wallet_id == wallet_id) & (c.api_key_id == api_key_id) & (c.period == period.value)
            self._connection.execute(delete(limits).where(here))
            if limit_micros is not None:
                row = (wallet_id, api_key_id, period.value, limit_micros)
                self._connection.execute(insert(limits).values(row))
        for wallet_id, api_key_id, period in ended:
            counting = s.window_name.startswith(f"{period.name.lower()} ")
            self._connection.execute(
                delete(spend_counters).where(s.wallet_id == wallet_id, s.subject == api_key_id, counting)
            )

    def write_credits(self, new: Iterable[Credit], changed: Iterable[Credit]) -> None:
        """Write what purchases credited, and what was taken back."""
        for credit in new:
            self._connection.execute(_INSERT_CREDIT, _credit_row(credit))
        for credit in changed:
            given = {"in_wallet": credit.wallet_id, "of_number": credit.number}
            self._connection.execute(_UPDATE_CREDIT, {**_credit_row(credit), **given})

    def write_notes(self, new: Mapping[tuple[int, int], Note]) -> None:
        """Write who did it, and why."""
        for (wallet_id, seq), note in new.items():
            self._connection.execute(insert(notes).values((wallet_id, seq, *note)))


def last_seq(connection: Connection, wallet: Wallet, time: int) -> int:
    """The last row at or before a time: `at` never falls along seq, so that it is found by halving."""
    low, high = 0, wallet.seq
    while low < high:
        middle = (low + high + 1) // 2
        at = connection.execute(
            select(transactions.c.at).where(at_seq(wallet.wallet_id, middle))
        ).scalar_one_or_none()
        # A row of this group is not written yet: it is of now.
        if at is not None and at <= time:
            low = middle
        else:
            high = middle - 1
    return low


def _credit_row(credit: Credit) -> dict[str, object]:
    return {column.name: getattr(credit, column.name) for column in purchase_credits.columns}
