"""What Stripe tells, applied: the one way in, for the webhook, the poller and the reconciliation.

An event is read, what it lacks is asked of Stripe (before any database transaction), and then it is applied
to its purchase in one transaction with its row in the inbox. What cannot be applied is kept all the same:
parked until its purchase is credited, or in quarantine until the operator has looked at it.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from oanim_server.checkout import rows, words
from oanim_server.checkout.payment import KnownEventError, PaymentWords
from oanim_server.checkout.values import SessionWord, Standing
from oanim_server.ledger.payments import Settle
from oanim_server.ledger.refusals import InvalidField
from oanim_server.ledger.values import SERVER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from oanim_server.checkout.counts import Counts
    from oanim_server.checkout.stripe_api import Stripe
    from oanim_server.checkout.values import Event, Purchase, Word
    from oanim_server.database.engine import Database
    from oanim_server.ledger.ledger import Ledger

log = logging.getLogger(__name__)


class Receiver:
    """Applies what Stripe tells. `changed` is told the wallet and the token of each purchase that changed."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        stripe: Stripe,
        counts: Counts,
        changed: Callable[[int, str], None],
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._stripe = stripe
        self._counts = counts
        self._changed = changed

    async def receive(self, event: Event, *, again: bool = False) -> Standing | None:
        """Apply an event; answers what became of it, None when it was known. It is durable then.

        :param again: it is in the inbox, parked or in quarantine, and is looked at once more.
        :raises PaymentsAway: when Stripe has to be asked and does not answer.
        """
        if event.type not in words.TYPES:
            return Standing.OF_NO_CONCERN
        known = await self._database.read(partial(rows.standing_of, event_id=event.event_id))
        if known is not None and not again:
            self._counts.repeated += 1
            return None
        try:
            said = await self._words(event)
        except ValueError as error:
            return await self._keep(event, Standing.QUARANTINED, f"it cannot be read: {error}")
        except InvalidField:
            return await self._keep(event, Standing.QUARANTINED, "Stripe does not know what it is about")
        return await self._applied(event, said, again=again)

    async def learn(self, purchase: Purchase, word: SessionWord) -> None:
        """Apply how a session stands, as Stripe answered it when it was asked."""
        await self._apply(purchase, [word], event=None, about=f"{word.session_id} {word.status} {word.paid}")

    async def look_again(self, waits_for: Sequence[str]) -> None:
        """Apply what was parked until now for one of these payments."""
        for event in await self._database.read(partial(rows.parked, waits_for=waits_for)):
            await self.receive(event, again=True)

    async def _words(self, event: Event) -> list[Word]:
        if event.type == words.CHARGE_REFUNDED:
            return list(await self._stripe.refunds(words.payment_of(event)))
        word = words.word_of(event)
        if isinstance(word, SessionWord):
            word = await self._stripe.with_charge(word)
        return [] if word is None else [word]

    async def _applied(self, event: Event, said: Sequence[Word], *, again: bool) -> Standing | None:
        while said:
            purchase = await self._database.read(partial(rows.find, word=said[0]))
            if purchase is not None:
                return await self._apply(purchase, said, event=event, again=again)
            if not rows.key_of_word(said[0]):
                # Ours are written before Stripe knows of them: somebody else sells with this account, too.
                break
            parked = await self._ledger.write(partial(_park, event=event, said=said))
            if parked:
                self._counts.parked += 1
                return Standing.PARKED
        return await self._keep(event, Standing.OF_NO_CONCERN, "")

    async def _apply(
        self,
        purchase: Purchase,
        said: Sequence[Word],
        *,
        event: Event | None,
        about: str = "",
        again: bool = False,
    ) -> Standing | None:
        payment = PaymentWords(
            purchase.wallet_id,
            purchase.token,
            said,
            event=event,
            livemode=self._stripe.livemode,
            again=again,
        )
        operation = Settle(
            wallet_id=purchase.wallet_id,
            caller=SERVER,
            idempotency_key=f"stripe {event.event_id if event else about}",
            companion=payment,
            payment=payment,
        )
        try:
            outcome = await self._ledger.submit(operation)
        except KnownEventError:
            outcome = None
        if outcome is None or outcome.replayed:
            self._counts.repeated += 1
            return None
        self._changed(purchase.wallet_id, purchase.token)
        extra = {
            "event": event.event_id if event else "",
            "purchase": rows.reference(purchase.wallet_id, purchase.token),
        }
        if payment.standing is Standing.QUARANTINED and event is None:
            # The poller found it and finds it again each minute: the event is what the operator sees.
            log.warning("a session does not match what was sold: %s", payment.problem, extra=extra)
        elif payment.standing is Standing.QUARANTINED:
            self._counts.quarantined += 1
            log.error("ALARM: a payment does not match what was sold: %s", payment.problem, extra=extra)
        elif payment.standing is Standing.PARKED:
            self._counts.parked += 1
        elif payment.bought:
            self._counts.credited += 1
            log.info("a purchase was credited", extra=extra)
            await self.look_again(payment.paid_with)
        else:
            self._counts.applied += 1
        return payment.standing

    async def _keep(self, event: Event, standing: Standing, problem: str) -> Standing:
        def keep(connection: Connection, now: int) -> None:
            rows.keep(connection, now, event, standing, problem=problem)

        await self._ledger.write(keep)
        if standing is Standing.QUARANTINED:
            self._counts.quarantined += 1
            log.error("ALARM: an event of Stripe's is in quarantine", extra={"event": event.event_id})
        return standing


def _park(connection: Connection, now: int, *, event: Event, said: Sequence[Word]) -> bool:
    """Keep an event until its purchase is there; False when it has come just now."""
    if rows.find(connection, word=said[0]) is not None:
        return False
    rows.keep(connection, now, event, Standing.PARKED, waits_for=rows.key_of_word(said[0]))
    return True
