"""What the ledger must do, in the small: written from the guarantees, for one wallet, slow and plain.

Holds are in `model_holds`, what services report in `model_usage`; here is what comes in, what is taken back,
and what is allowed. It shares no code with the ledger but the names of its values and refusals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim_server.ledger.corrections import Adjust, Freeze, Grant
from oanim_server.ledger.limits import DeleteLimit, SetLimit
from oanim_server.ledger.payments import Settle
from oanim_server.ledger.usage import Use
from oanim_server.ledger.values import State
from tests.ledger.driving import Credit
from tests.ledger.model_usage import Usage
from tests.ledger.model_values import SECOND, Accepted, LimitUse, MLot, MPurchase, No, window
from tests.ledger.selling import Disputed, Paid, Refunded, Word

if TYPE_CHECKING:
    from oanim_server.ledger.operations import Operation
    from oanim_server.ledger.windows import Period


class Model(Usage):
    """One wallet."""

    def __init__(self) -> None:
        super().__init__()
        self.limits: dict[tuple[str, Period], int] = {}
        self.purchases: dict[str, MPurchase] = {}

    def _other(self, operation: Operation, now: int) -> Accepted:
        match operation:
            case Credit():
                self._come_in(operation.amount_micros, operation.lifetime, now, priority=operation.priority)
                self._row(now)
            case Grant():
                self._come_in(operation.amount_micros, operation.lifetime, now)
                self._row(now)
            case Adjust():
                self._adjust(operation.amount_micros, now)
            case Freeze():
                self.frozen = operation.frozen
                self._row(now)
            case SetLimit():
                self._limit(operation, operation.limit_micros, now)
            case DeleteLimit():
                self._limit(operation, None, now)
            case Use():
                return self._use(operation, now)
            case Settle():
                assert isinstance(operation.payment, Word)
                self._hear(operation.payment, now)
        return self._accepted(None)

    # What comes in and is taken back

    def _come_in(
        self, amount: int, lifetime: int | None, now: int, *, priority: int = 0, promotional: bool = True
    ) -> int:
        """A new lot, which pays the debt first."""
        paid = min(self.debt, amount)
        self.debt -= paid
        number = len(self.lots) + 1
        expires_at = None if lifetime is None else now + lifetime
        self.lots.append(MLot(number, amount - paid, 0, priority, expires_at, promotional))
        return number

    def _take(self, amount: int, own: tuple[int, ...] = ()) -> int:
        """What is free, of some lots first and then of all in draw order; what is not there is owed.

        Answers what did not come from those lots.
        """
        elsewhere = amount
        for lot in sorted(self.drawn(), key=lambda lot: lot.number not in own):
            micros = min(lot.free, amount)
            lot.remaining -= micros
            amount -= micros
            elsewhere -= micros if lot.number in own else 0
        self.debt += amount
        return elsewhere

    def _paid_debt(self, number: int, micros: int) -> None:
        """It was owed in its own place."""
        for purchase in self.purchases.values():
            if number in purchase.lots:
                purchase.elsewhere -= min(micros, purchase.elsewhere)

    def _make_up(self, at: int) -> None:
        """What expires of a purchase counts as taken: what was taken elsewhere for it comes back."""
        lapsed, self.lapsed_now = self.lapsed_now, []
        for number, micros in lapsed:
            for purchase in self.purchases.values():
                given = min(micros, purchase.elsewhere) if number in purchase.lots else 0
                if given:
                    purchase.elsewhere -= given
                    purchase.covered += given
                    self._come_in(given, None, at, promotional=False)
                    self._row(at)

    def _adjust(self, amount: int, now: int) -> None:
        if amount == 0:
            return
        if amount > 0:
            self._come_in(amount, None, now, promotional=False)
        else:
            self._take(-amount)
        self._row(now)

    # Purchases

    def _hear(self, word: Word, now: int) -> None:
        """What is new is added to what was heard; then the purchase is brought to where I8 says it is."""
        purchase = self.purchases.setdefault(word.purchase.purchase_id, MPurchase(word.purchase))
        if word.event not in purchase.heard:
            purchase.heard.append(word.event)
        sold = purchase.sold
        if not purchase.lots:
            if Paid() not in purchase.heard:
                return
            for amount, promotional in ((sold.bonus_micros, True), (sold.amount_micros, False)):
                if amount:
                    lot = self._come_in(amount, sold.lifetime, now, promotional=promotional)
                    purchase.lots = (*purchase.lots, lot)
            self._row(now)
            return
        by_refunds, wanted = self._share(purchase, refunds_alone=True), self._share(purchase)
        if (by_refunds, wanted) == (purchase.by_refunds, purchase.reversed):
            return
        self._reverse(purchase, wanted, now)
        purchase.by_refunds, purchase.reversed = by_refunds, wanted
        self._row(now)

    def _share(self, purchase: MPurchase, *, refunds_alone: bool = False) -> int:
        """I8: floor(credited x min(paid, refunded + disputed - reinstated) / paid)."""
        sold, back = purchase.sold, 0
        for kind in (Refunded,) if refunds_alone else (Refunded, Disputed):
            words = [event for event in purchase.heard if isinstance(event, kind)]
            undone = {word[0] for word in words if word[2]}
            back += sum({word[0]: word[1] for word in words if word[0] not in undone}.values())
        charged = sold.paid_micros or sold.amount_micros
        return (sold.amount_micros + sold.bonus_micros) * min(charged, back) // charged

    def _reverse(self, purchase: MPurchase, wanted: int, now: int) -> None:
        """What expired of its own lots counts as taken already; what is given again lasts for ever."""
        if wanted >= purchase.reversed:
            micros = wanted - purchase.reversed
            lapsed = sum(self._lot(number).lapsed for number in purchase.lots)
            covered = min(micros, lapsed - purchase.covered)
            purchase.covered += covered
            purchase.elsewhere += self._take(micros - covered, purchase.lots)
        else:
            micros = purchase.reversed - wanted
            given = min(micros, purchase.reversed - purchase.covered)
            purchase.covered -= micros - given
            purchase.elsewhere = min(purchase.elsewhere, wanted - purchase.covered)
            if given:
                self._come_in(given, None, now, promotional=False)

    # Limits

    def _limit(self, asked: SetLimit | DeleteLimit, limit: int | None, now: int) -> None:
        if any(key == asked.asking_key_id != "" for key, _ in self.limits):
            raise No("LimitedKey", "user")
        name = (asked.api_key_id, asked.period)
        if limit is None:
            self.limits.pop(name, None)
        else:
            self.limits[name] = limit
        self._row(now)

    def limit_uses(self, at: int) -> list[LimitUse]:
        """What each limit has in the window of a time: of holds made in it, what they cost and keep."""
        uses = []
        for (key, period), limit in sorted(self.limits.items()):
            start, end = window(period, at)
            counted = [
                hold
                for hold in self.holds.values()
                if key in ("", hold.api_key_id) and start <= hold.created_at < end
            ]
            charged = sum(hold.captured for hold in counted)
            charged += sum(
                item.charged for item in self.items if key in ("", item.api_key_id) and start <= item.at < end
            )
            held = sum(hold.reserved - hold.captured for hold in counted if hold.state is State.ACTIVE)
            uses.append(LimitUse(key, period, limit, charged, held, start, end))
        return uses

    def limits_blocking(self, key: str, at: int, amount: int) -> tuple[list[tuple[object, ...]], int]:
        uses = [use for use in self.limit_uses(at) if use.api_key_id in ("", key)]
        rooms = [use.limit - use.charged - use.held for use in uses]
        blocking: list[tuple[object, ...]] = [
            (
                use.api_key_id or "account",
                use.period.name.lower(),
                use.limit,
                use.charged,
                use.held,
                amount,
                use.end // SECOND,
            )
            for use, room in zip(uses, rooms, strict=True)
            if amount > room
        ]
        return blocking, min(rooms, default=10**18)
