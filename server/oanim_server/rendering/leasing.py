"""What workers say: they take a lease, keep it, and give it up; none of it moves money but a last failure."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Self

from oanim_server.ledger.ids import reservation_text
from oanim_server.ledger.refusals import NotFound
from oanim_server.rendering import holding, lease_rows, rows, rules
from oanim_server.rendering.values import Beat, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from oanim_server.ledger.watching import Hub
    from oanim_server.rendering.ending import Endings
    from oanim_server.rendering.shared import Shared
    from oanim_server.rendering.values import Claim, Key, Lease, Standing, Worker

log = logging.getLogger(__name__)

# What the hub knows the queue by; no render has this number.
QUEUE = 0
# They stop because somebody wants them to, and not because they have done wrong.
_STOPPED = (State.CANCELLED, State.FAILED)


class Leases:
    """The leases of renders.

    :param hub: wakes whoever waits for work.
    :param limit: how many renders of one account may be leased at once.
    """

    def __init__(self, shared: Shared, endings: Endings, hub: Hub, *, limit: int) -> None:
        self._shared = shared
        self._endings = endings
        self._hub = hub
        self._limit = limit
        self._stopping = False
        # Who waits for work looks one after the other: where one finds nothing, the next would not, either.
        self._turn = asyncio.Lock()
        self._nothing_since = 0.0

    def quieten(self) -> None:
        """Let nobody wait for work any more."""
        self._stopping = True
        self._hub.wake([QUEUE])

    async def lease(self, worker: Worker, idempotency_key: str, wait_seconds: float) -> Lease | None:
        """The oldest render that waits; None when none came in time. Raises StaleLease."""
        with _Wanted() as wanted, self._hub.watching(QUEUE) as changed:
            take = partial(
                lease_rows.take,
                worker=worker,
                idem_key=idempotency_key,
                lease=self._shared.times.lease,
                limit=self._limit,
                wanted=wanted,
            )
            until = _now() + wait_seconds
            changed.clear()
            lease = await self._shared.ledger.write(take)
            while lease is None:
                if self._stopping or not await _happens(changed, until):
                    return None
                lease = await self._take(take, changed)
        if not lease.replayed:
            self._shared.counts.leases += 1
            extra = {"render": reservation_text(*lease.claim.key), "epoch": lease.claim.epoch}
            log.info("a render is leased", extra=extra)
            self._shared.changed(lease.claim.key)
        return lease

    async def heartbeat(self, claim: Claim, frames: int) -> Beat:
        """Keep a lease, and the count of its frames; both are durable then.

        :raises StaleLease: when it is not the render's lease; NotFound, InvalidField.
        """
        beat = await self._shared.ledger.write(
            partial(lease_rows.renew, claim=claim, frames=frames, lease=self._shared.times.lease)
        )
        if beat is not None:
            self._shared.changed(claim.key)
            return beat
        standing = await self._standing(claim.key)
        if standing.claim == claim and standing.state in _STOPPED:
            return Beat(standing.leased_until, stop=True)
        rules.check_lease(standing, claim)
        rules.check_frames(standing.spec, frames, "frames")
        # It was not so a moment ago; now it is.
        return await self.heartbeat(claim, frames)

    async def give_up(self, claim: Claim, message: str, *, handed_back: bool) -> None:
        """End a lease without a video; the same again changes nothing.

        :raises StaleLease: when it is not the render's lease, or was lost; NotFound.
        """
        standing = await self._standing(claim.key)
        if await self._shared.database.read(partial(lease_rows.was_given_up, claim=claim)):
            return
        rules.check_lease(standing, claim)
        if handed_back or not rules.is_last(standing):
            give = partial(lease_rows.give_up, claim=claim, message=message, handed_back=handed_back)
            if not await self._shared.ledger.write(give):
                # Lost in this moment, or given up by the same call beside this one.
                await self.give_up(claim, message, handed_back=handed_back)
                return
        elif not await self._endings.give_up(claim, message):
            await self.give_up(claim, message, handed_back=handed_back)
            return
        self._count(claim, handed_back=handed_back)
        self._shared.changed(claim.key)
        self._shared.offered()
        await holding.release_left(self._shared.database, self._shared.ledger, claim.key)

    async def bundle_of(self, claim: Claim) -> tuple[str, int]:
        """The file that a leased render's bundle is in, and its size. Raises StaleLease, NotFound."""

        def find(connection: Connection) -> tuple[str, int]:
            found = rows.standing(connection, claim.key)
            if found is None:
                raise NotFound(what="render")
            rules.check_lease(found, claim)
            return found.bundle_id, found.bundle_bytes

        return await self._shared.database.read(find)

    async def _take(
        self, take: Callable[[Connection, int], Lease | None], changed: asyncio.Event
    ) -> Lease | None:
        """Look for work that was offered, unless somebody has looked since then in vain."""
        # Before it is looked: what comes meanwhile is seen at the next look.
        changed.clear()
        offered_at = _now()
        async with self._turn:
            if self._nothing_since >= offered_at:
                return None
            looks_at = _now()
            lease = await self._shared.ledger.write(take)
            if lease is None:
                self._nothing_since = looks_at
            return lease

    async def _standing(self, key: Key) -> Standing:
        found = await self._shared.database.read(partial(rows.standing, key=key))
        if found is None:
            raise NotFound(what="render")
        return found

    def _count(self, claim: Claim, *, handed_back: bool) -> None:
        extra = {"render": reservation_text(*claim.key), "epoch": claim.epoch}
        if handed_back:
            self._shared.counts.handed_back += 1
            log.info("a render was handed back", extra=extra)
        else:
            self._shared.counts.given_up += 1
            log.warning("an attempt failed", extra=extra)


class _Wanted:
    """True while its block runs: work that nobody waits for any more must not be taken from the others."""

    def __init__(self) -> None:
        self._here = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._here = False

    def __bool__(self) -> bool:
        return self._here


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _happens(event: asyncio.Event, until: float) -> bool:
    """Wait for an event, and no longer than until a time of the loop's clock."""
    try:
        async with asyncio.timeout_at(until):
            await event.wait()
    except TimeoutError:
        return False
    return True
