"""What services report of the work they do: under a hold, or without one.

Under a hold a report raises the reservation's counter, and money moves once, when the reservation ends.
Without one an item is charged as it arrives, for what is available, and the rest to nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oanim_server.ledger import journal, movements, rules
from oanim_server.ledger.operations import OnReservation, Operation, fingerprint_of
from oanim_server.ledger.values import Line, Method, Outcome

if TYPE_CHECKING:
    from oanim_server.ledger.values import Cap
    from oanim_server.ledger.working import Attempt, WorkingSet


class Report(OnReservation, kw_only=True):
    """Say how much was used under a hold until now. It needs no key: the greatest quantity wins."""

    quantity: int
    idempotency_key: str = ""

    method: ClassVar[Method] = Method.REPORT

    def fingerprint(self) -> bytes:
        return b""

    def decide(self, working: WorkingSet, attempt: Attempt) -> Outcome:  # noqa: ARG002 - it makes no row
        wallet = working.wallet(self.wallet_id)
        reservation = working.reservation(self.wallet_id, self.reservation)
        counter = rules.report(reservation, self.quantity, caller=self.caller)
        if counter != reservation.reported_quantity:
            working.raise_counter(reservation, counter)
        facts = journal.reservation_facts(reservation)._replace(reported_quantity=counter)
        return working.unchanged(wallet)._replace(reservation=facts)


class Use(Operation, kw_only=True):
    """Charge work that was done without a hold. Its key is the id of the service's event.

    `asked` is the model and the quantity as the request named them, and makes the fingerprint. `line` None
    is what could not be priced: its companion refuses it.
    """

    asked: tuple[str, int]
    api_key_id: str
    amount_micros: int
    line: Line | None
    labels: dict[str, str]

    method: ClassVar[Method] = Method.USAGE

    def caps(self, working: WorkingSet) -> list[Cap]:
        wallet = working.wallets.get(self.wallet_id)
        if wallet is None:
            return []
        return working.caps(self.wallet_id, self.api_key_id, (), working.time(wallet))

    def fingerprint(self) -> bytes:
        return fingerprint_of("use", self.asked, sorted(self.labels.items()))

    def decide(self, working: WorkingSet, attempt: Attempt) -> Outcome:
        wallet = working.wallet(self.wallet_id)
        if self.line is None:
            raise TypeError("usage without a price is refused before it is decided")
        return movements.use(
            working,
            wallet,
            rules.use(wallet, self.amount_micros),
            api_key_id=self.api_key_id,
            line=self.line,
            labels=self.labels,
            attempt=attempt,
        )
