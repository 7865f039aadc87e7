"""What Stripe may not have told, asked for: open sessions, missed events, refunds without an answer.

Open sessions are polled, sooner where somebody watches; Stripe's events are listed at the start and hourly,
from where the last round ended. All of it goes through the same function as the webhook. Several replicas do
it beside each other: what one has applied, the other finds known.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select

from oanim_server.checkout import rows
from oanim_server.checkout.values import Purchase, SessionWord
from oanim_server.database.tables import marks
from oanim_server.ledger.refusals import InvalidField, Refusal
from oanim_server.ledger.values import DAY, SECOND

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from sqlalchemy import Connection

    from oanim_server.checkout.counts import Counts
    from oanim_server.checkout.receiving import Receiver
    from oanim_server.checkout.refunding import Refunds
    from oanim_server.checkout.stripe_api import Stripe
    from oanim_server.database.engine import Database
    from oanim_server.ledger.ledger import Ledger

log = logging.getLogger(__name__)

POLL_SECONDS = 60.0
# Where somebody watches, the webhook is not waited for much longer than this.
WATCHED_POLL_SECONDS = 5.0
RECONCILE_SECONDS = 3_600.0
RETRY_SECONDS = 30.0
# Stripe keeps events for 30 days. A slow one may be listed late: each round begins a little before.
HISTORY_SECONDS = 30 * 86_400
OVERLAP_SECONDS = 3_600
SESSIONS = 200
_MARK = "stripe_events_until"


class Reconciler:
    """Asks Stripe, round after round, as long as it runs."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        stripe: Stripe,
        receiver: Receiver,
        refunds: Refunds,
        *,
        counts: Counts,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._stripe = stripe
        self._receiver = receiver
        self._refunds = refunds
        self._counts = counts
        self._tasks: list[asyncio.Task[None]] = []
        self._watched: Counter[tuple[int, str]] = Counter()

    def start(self) -> None:
        """Begin: with what was missed while nobody listened."""
        for work, pause in (
            (self.reconcile, RECONCILE_SECONDS),
            (self.poll, POLL_SECONDS),
            (self._poll_watched, WATCHED_POLL_SECONDS),
        ):
            self._tasks.append(asyncio.create_task(_again_and_again(work, pause), name="stripe"))

    async def stop(self) -> None:
        """Stop asking."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextmanager
    def hurried(self, wallet_id: int, token: str) -> Iterator[None]:
        """While somebody watches a purchase, ask about it sooner."""
        self._watched[wallet_id, token] += 1
        try:
            yield
        finally:
            self._watched[wallet_id, token] -= 1
            self._watched += Counter()

    async def reconcile(self) -> int:
        """Apply the events since the last round; answers how many were new.

        One that fails stops none of the others, and the next round begins where this one did.
        """
        began = int(time.time())
        since = await self._database.read(_until)
        start = max(since - OVERLAP_SECONDS, began - HISTORY_SECONDS) if since else began - HISTORY_SECONDS
        new = 0
        failed: Exception | None = None
        async for event in self._stripe.events(start):
            try:
                if await self._receiver.receive(event) is not None:
                    new += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, it is raised below
                failed = failed or error
        if failed is not None:
            raise failed
        await self._ledger.write(partial(_reached, until=began))
        self._counts.reconciled += 1
        if new:
            log.warning("events were found that no webhook brought", extra={"events": new})
        return new

    async def poll(self) -> None:
        """Ask about every purchase that may still be paid; then go on with what waits for something here."""
        now = time.time_ns() // 1_000
        after = (now - 31 * DAY, 0, "")
        while True:
            page = await self._database.read(
                partial(
                    rows.unpaid,
                    created_before=now - int(POLL_SECONDS) * SECOND,
                    after=after,
                    limit=SESSIONS,
                )
            )
            for purchase in page:
                with _whatever_happens(session=purchase.session_id):
                    await self.ask(purchase)
            if len(page) < SESSIONS:
                break
            after = (page[-1].created_at, page[-1].wallet_id, page[-1].token)
        for event in await self._database.read(rows.parked_and_known):
            with _whatever_happens(event=event.event_id):
                await self._receiver.receive(event, again=True)
        before = now - int(POLL_SECONDS) * SECOND
        for request in await self._database.read(partial(rows.unanswered, before=before)):
            with _whatever_happens(refund_request=request.request_id):
                await self._refunds.go_on(request)

    async def ask(self, purchase: Purchase) -> None:
        """Ask how the session of a purchase stands, and apply it."""
        self._counts.polled += 1
        if purchase.session_id:
            word = await self._stripe.session(purchase.session_id)
        elif purchase.expires_at <= time.time_ns() // 1_000:
            # Its page was never made, or nobody was ever told of it.
            word = _never_opened(purchase, livemode=self._stripe.livemode)
        else:
            return
        if word.paid or word.status != "open":
            await self._receiver.learn(purchase, word)

    async def _poll_watched(self) -> None:
        for wallet_id, token in list(self._watched):
            find = partial(rows.purchase, wallet_id=wallet_id, token=token)
            purchase = await self._database.read(find)
            if purchase is not None and purchase.session_id and not purchase.ended:
                with _whatever_happens(session=purchase.session_id):
                    await self.ask(purchase)


def _never_opened(purchase: Purchase, *, livemode: bool) -> SessionWord:
    return SessionWord(
        session_id="",
        reference="",
        status="expired",
        paid=False,
        failed=False,
        payment_intent="",
        subtotal_micros=purchase.amount_micros,
        total_micros=purchase.amount_micros,
        tax_micros=0,
        currency="usd",
        mode="payment",
        livemode=livemode,
    )


def _until(connection: Connection) -> int:
    found = connection.execute(select(marks.c.value).where(marks.c.name == _MARK)).scalar_one_or_none()
    return int(found) if found else 0


def _reached(connection: Connection, _now: int, *, until: int) -> None:
    connection.execute(delete(marks).where(marks.c.name == _MARK))
    connection.execute(insert(marks).values(name=_MARK, value=str(until)))


@contextmanager
def _whatever_happens(**about: str) -> Iterator[None]:
    """One that fails stops none of the others: it is asked about again in the next round."""
    try:
        yield
    except InvalidField:
        # Another key was configured when it was made; or it is a refund that cannot be.
        log.warning("Stripe refuses, or does not know it", extra=about)
    except (Refusal, OSError) as error:
        log.warning("one could not be asked about", extra={**about, "error": type(error).__name__})
    except Exception:
        log.exception("one could not be asked about", extra=about)


async def _again_and_again(work: Callable[[], Awaitable[object]], pause_seconds: float) -> None:
    """Do it, and again after each pause; what goes wrong is tried sooner."""
    while True:
        try:
            await work()
        except (Refusal, OSError) as error:
            log.warning("Stripe could not be asked; it is tried again", extra={"error": type(error).__name__})
            await asyncio.sleep(min(pause_seconds, RETRY_SECONDS))
        except Exception:
            log.exception("Stripe could not be asked; it is tried again")
            await asyncio.sleep(min(pause_seconds, RETRY_SECONDS))
        else:
            await asyncio.sleep(pause_seconds)
