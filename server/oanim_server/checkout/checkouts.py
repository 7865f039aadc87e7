"""Checkout's front: a purchase is begun, followed, listed, receipted and refunded.

A purchase's row is there before Stripe is asked for its page, and its id is Stripe's idempotency key: a crash
between any two lines leaves a purchase that the same call, or nobody, goes on with.
"""

from __future__ import annotations

import secrets
import string
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from oanim_server.checkout import rows, rules
from oanim_server.checkout.counts import Counts
from oanim_server.checkout.receiving import Receiver
from oanim_server.checkout.reconciling import Reconciler
from oanim_server.checkout.refunding import Refunds
from oanim_server.checkout.refusals import PurchasesNotConfigured
from oanim_server.checkout.values import Purchase, State
from oanim_server.ledger.refusals import IdempotencyKeyReused, NotFound
from oanim_server.ledger.values import SECOND
from oanim_server.ledger.watching import Hub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

    from oanim_server.checkout.stripe_api import Stripe
    from oanim_server.checkout.values import Event, Quarantined, Receipt, Standing, Terms
    from oanim_server.database.engine import Database
    from oanim_server.ledger.ledger import Ledger

# How long a page is open. Stripe allows a day at the most, and half an hour at the least when it is made.
PAGE_LIFETIME = 23 * 3_600 * SECOND
_ALPHABET = string.ascii_letters + string.digits
_TOKEN_BITS = 8 * 24


class Checkouts:
    """The purchases of every account.

    :param stripe: None where this server sells nothing; `aclose` closes it.
    :param terms: what may be bought, and what comes on top.
    :param lifetime: how long bought credits last, in microseconds; None is for ever.
    """

    def __init__(
        self, database: Database, ledger: Ledger, stripe: Stripe | None, *, terms: Terms, lifetime: int | None
    ) -> None:
        self.counts = Counts()
        self.terms = terms
        self._database = database
        self._ledger = ledger
        self._stripe = stripe
        self._lifetime = lifetime
        self._hub = Hub(self._look if database.dialect == "postgresql" else None)
        self._receiver: Receiver | None = None
        self._reconciler: Reconciler | None = None
        if stripe is not None:
            self._receiver = Receiver(database, ledger, stripe, self.counts, self._wake)
            self._refunds = Refunds(database, ledger, stripe)
            self._reconciler = Reconciler(
                database, ledger, stripe, self._receiver, self._refunds, counts=self.counts
            )

    @property
    def configured(self) -> bool:
        """Whether anything is sold here."""
        return self._stripe is not None

    def start(self) -> None:
        """Begin to ask Stripe what it may not have told."""
        if self._reconciler is not None:
            self._reconciler.start()

    async def stop(self) -> None:
        """Stop asking."""
        if self._reconciler is not None:
            await self._reconciler.stop()

    async def aclose(self) -> None:
        """Let go of the connections to Stripe, after all calls have ended."""
        await self._hub.close()
        if self._stripe is not None:
            await self._stripe.aclose()

    # Buying ---------------------------------------------------------------------------------------

    async def create(
        self, account_id: int, *, api_key_id: str, amount_micros: int, idempotency_key: str
    ) -> tuple[Purchase, bool]:
        """Begin a purchase; the same again is the same purchase, and says so.

        :raises PurchasesNotConfigured: where nothing is sold.
        :raises InvalidField: for an amount that cannot be bought.
        :raises PaymentsAway: when Stripe does not answer; the same again goes on.
        """
        find = partial(rows.purchase_of_key, wallet_id=account_id, idem_key=idempotency_key)
        purchase = await self._database.read(find)
        replayed = purchase is not None
        if purchase is None:
            if self._stripe is None:
                raise PurchasesNotConfigured
            wanted = Purchase(
                wallet_id=account_id,
                token="".join(secrets.choice(_ALPHABET) for _ in range(24)),
                api_key_id=api_key_id,
                idem_key=idempotency_key,
                state=State.CREATING,
                amount_micros=amount_micros,
                bonus_micros=rules.bonus_micros(self.terms, amount_micros),
                lifetime=self._lifetime,
                created_at=0,
                expires_at=0,
            )
            purchase = await self._ledger.write(partial(rows.add, wanted=wanted, page_lifetime=PAGE_LIFETIME))
            replayed = purchase.token != wanted.token
        if purchase.amount_micros != amount_micros:
            raise IdempotencyKeyReused(idempotency_key)
        if purchase.state is State.CREATING:
            purchase = await self._open(purchase)
        return purchase, replayed

    async def _open(self, purchase: Purchase) -> Purchase:
        if self._stripe is None:
            raise PurchasesNotConfigured
        email = await self._database.read(partial(rows.email_of, account_id=purchase.wallet_id))
        page = await self._stripe.open_page(purchase, email)
        keep = partial(rows.has_page, wallet_id=purchase.wallet_id, token=purchase.token, **page._asdict())
        opened = await self._ledger.write(keep)
        self._wake(purchase.wallet_id, purchase.token)
        return opened or purchase

    # Looking --------------------------------------------------------------------------------------

    async def get(self, wallet_id: int, token: str) -> Purchase:
        """One purchase now; NotFound."""
        found = await self._database.read(partial(rows.purchase, wallet_id=wallet_id, token=token))
        if found is None:
            raise NotFound(what="checkout")
        return found

    async def watch(self, wallet_id: int, token: str) -> AsyncGenerator[Purchase]:
        """A purchase now and after every change, until the credits are in or can no longer come; NotFound."""
        with self._hub.watching(_watched(wallet_id, token)) as changed, self._hurried(wallet_id, token):
            shown = -1
            while True:
                changed.clear()
                purchase = await self.get(wallet_id, token)
                if purchase.revision != shown:
                    shown = purchase.revision
                    yield purchase
                if purchase.ended:
                    return
                await changed.wait()

    async def page(self, wallet_id: int, *, before: int | None, limit: int) -> list[Purchase]:
        """Purchases that were paid, below a credit's number, newest first; NotFound for no account."""
        await self._ledger.wallet(wallet_id)
        return await self._database.read(partial(rows.paid, wallet_id=wallet_id, before=before, limit=limit))

    async def receipt(self, wallet_id: int, token: str) -> tuple[Receipt, str]:
        """What was paid for a purchase and what went back, and the account's e-mail address; NotFound."""
        receipt = await self._database.read(partial(rows.receipt, wallet_id=wallet_id, token=token))
        if receipt is None:
            raise NotFound(what="purchase")
        return receipt, await self._database.read(partial(rows.email_of, account_id=wallet_id))

    # What Stripe tells, and the operator's hand ----------------------------------------------------

    async def receive(self, event: Event) -> Standing | None:
        """Apply an event of Stripe's; it is durable then. Raises PaymentsAway, PurchasesNotConfigured."""
        return await self._receiving().receive(event)

    @property
    def refunds(self) -> Refunds:
        """Refunds that the operator asks for.

        :raises PurchasesNotConfigured: where nothing is sold.
        """
        if self._stripe is None:
            raise PurchasesNotConfigured
        return self._refunds

    async def quarantined(self, *, with_resolved: bool, before: int | None, limit: int) -> list[Quarantined]:
        """Events that do not match what was sold, newest first."""
        return await self._database.read(
            partial(rows.quarantined, with_resolved=with_resolved, before=before, limit=limit)
        )

    async def resolve(self, event_id: str, *, actor: str, reason: str, look_again: bool) -> Quarantined:
        """Close an event in quarantine, or look at it again; NotFound.

        :raises PaymentsAway: when Stripe has to be asked and does not answer.
        """
        receiver = self._receiving() if look_again else None
        resolved = False

        def resolve(connection: Connection, now: int) -> bool:
            nonlocal resolved
            # Run again when its commit was lost: that may be there, and the event in quarantine no more.
            resolved |= rows.resolve(
                connection, now, event_id=event_id, actor=actor, reason=reason, dismiss=not look_again
            )
            return resolved

        if not await self._ledger.write(resolve):
            raise NotFound(what="event in quarantine")
        find = partial(rows.quarantined_event, event_id=event_id)
        if receiver is not None:
            found = await self._database.read(find)
            if found is not None:
                await receiver.receive(found[1], again=True)
        found = await self._database.read(find)
        if found is None:
            raise NotFound(what="event in quarantine")
        return found[0]

    def _receiving(self) -> Receiver:
        if self._receiver is None:
            raise PurchasesNotConfigured
        return self._receiver

    # Watching -------------------------------------------------------------------------------------

    def _hurried(self, wallet_id: int, token: str) -> AbstractContextManager[None]:
        """Where somebody watches, Stripe is asked sooner."""
        if self._reconciler is None:
            return nullcontext()
        return self._reconciler.hurried(wallet_id, token)

    def _wake(self, wallet_id: int, token: str) -> None:
        self._hub.wake([_watched(wallet_id, token)])

    async def _look(self, watched: list[int]) -> Iterable[tuple[int, int]]:
        keys = [(one >> _TOKEN_BITS, _token(one)) for one in watched]
        found = await self._database.read(partial(rows.revisions, keys=keys))
        return [(_watched(wallet_id, token), revision) for wallet_id, token, revision in found]


def _watched(wallet_id: int, token: str) -> int:
    """The one number that the hub knows a purchase by."""
    return wallet_id << _TOKEN_BITS | int.from_bytes(token.encode())


def _token(watched: int) -> str:
    return (watched & ((1 << _TOKEN_BITS) - 1)).to_bytes(24).decode()
