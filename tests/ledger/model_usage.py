"""What the ledger must do with usage, in the small: written from the guarantees, for one wallet.

It shares no code with the ledger but the names of its values and refusals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim_server.ledger.values import State
from tests.ledger.model_holds import Holds
from tests.ledger.model_values import Accepted, Answer, MHold, MItem, No, Refused, price

if TYPE_CHECKING:
    from oanim_server.ledger.operations import Commit
    from oanim_server.ledger.usage import Report, Use


class Usage(Holds):
    """One wallet, and the work that services report of it."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[MItem] = []

    def _report(self, report: Report) -> Answer:
        try:
            hold = self._hold(report.reservation, report.caller)
            self._raise_counter(hold, report.quantity)
        except No as no:
            return Refused(no.reason, no.facts, self.seq, replayed=False)
        return Accepted(self.facts(), hold.facts(), 0, 0, 0, replayed=False)

    def _raise_counter(self, hold: MHold, quantity: int) -> None:
        if hold.line is None:
            raise No("InvalidField", "quantity")
        if quantity <= hold.reported:
            return
        if hold.state is not State.ACTIVE:
            raise self._ended(hold)
        if hold.captures:
            raise No("InvalidField", "reservation_id")
        hold.reported = quantity

    def _commit_reported(self, hold: MHold, commit: Commit, now: int, *, late: bool) -> Accepted:
        """The quantity is the last report: what is held pays for it, and nobody for the rest."""
        assert hold.line is not None
        if commit.quantity is None:
            raise No("InvalidField", "charge")
        if commit.keep_rest:
            raise No("InvalidField", "keep_rest")
        owed = price(hold.line, max(commit.quantity, hold.reported)) - price(hold.line, hold.quantity)
        covered = min(owed, hold.reserved - hold.captured)
        if late:
            charged = self._settle_late(hold, covered, owed, now)
        else:
            charged = self._capture(hold, covered, now, keep_rest=False)
            hold.uncollected = owed - charged
        return self._charged(hold, commit, now, charged, owed - charged)

    def _charge_reported(self, hold: MHold, at: int) -> tuple[int, int]:
        assert hold.line is not None
        owed = price(hold.line, hold.reported)
        charged = min(owed, hold.reserved)
        hold.uncollected = owed - charged
        hold.quantity = hold.reported
        self._consume_held(hold, charged)
        self._pays(hold, charged, at)
        return charged, owed - charged

    def _use(self, use: Use, now: int) -> Accepted:
        """Work without a hold: what is available pays for it, and nobody for the rest."""
        charged = min(use.amount_micros, max(self.balance - self.held, 0))
        uncollected = use.amount_micros - charged
        for number, micros in self._draw(charged):
            self._lot(number).remaining -= micros
        self._row(now)
        self.items.append(
            MItem(self.seq, now, use.api_key_id, use.idempotency_key, use.asked[0], charged, uncollected)
        )
        self._charge_day(charged, now)
        return self._accepted(None)._replace(charged=charged, uncollected=uncollected)

    def uncollected(self) -> list[tuple[int, int, str, int, str]]:
        """Work that nobody paid for, newest first: reservation, time, model, amount, event.

        Items of one instant are in their order.
        """
        held = [
            (hold.number, hold.ended_at or 0, hold.line.model if hold.line else "", hold.uncollected, "")
            for hold in self.holds.values()
            if hold.uncollected
        ]
        items = [(0, item.at, item.model, item.uncollected, item.event_id) for item in self.items]
        found = held + [item for item in items if item[3]]
        return sorted(found, key=lambda work: (-work[1], work[0]))
