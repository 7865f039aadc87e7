"""Rendering's front: renders are submitted, leased to workers, followed, ended, and their files travel.

A render has the id of the reservation that holds its quote.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING

from oanim_server.ledger.refusals import NotFound
from oanim_server.ledger.tasks import Kept
from oanim_server.ledger.watching import Hub
from oanim_server.rendering import rows
from oanim_server.rendering.counts import Counts
from oanim_server.rendering.ending import Endings
from oanim_server.rendering.leasing import QUEUE, Leases
from oanim_server.rendering.refusals import ContentGone
from oanim_server.rendering.shared import Shared
from oanim_server.rendering.submitting import Submissions, number_of
from oanim_server.rendering.sweeping import Sweeper
from oanim_server.rendering.values import TIMES, Piece, State, Submitted, Times, Video

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from sqlalchemy import Connection

    from oanim_server.database.engine import Database
    from oanim_server.ledger.ledger import Ledger
    from oanim_server.pricing.prices import Prices
    from oanim_server.rendering.store import Store
    from oanim_server.rendering.values import Beat, Claim, Key, Lease, Render, Submission, Worker

# The hub knows what is watched by one number.
_NUMBER_BITS = 64
# How long a stop waits for what is being written: a database that hangs must not keep it.
_KEPT_SECONDS = 2.0
# A place in the queue changes without the render: whoever watches one that waits is told as often.
PLACE_SECONDS = 5.0


class Renders:
    """The renders of every account.

    :param store: where bundles and videos are, shared by all replicas.
    :param limit: how many renders of one account may be leased at once.
    """

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        prices: Prices,
        store: Store,
        *,
        limit: int = 10,
        times: Times = TIMES,
    ) -> None:
        self.counts = Counts()
        self._database = database
        self._ledger = ledger
        self._store = store
        self._kept = Kept()
        self._hub = Hub(self._look if database.dialect == "postgresql" else None)
        shared = Shared(database, ledger, store, self.counts, times, self._changed, self._offered)
        self._submissions = Submissions(shared, prices, self._kept)
        self._endings = Endings(shared)
        self._leases = Leases(shared, self._endings, self._hub, limit=limit)
        self._sweeper = Sweeper(shared, self._endings)

    async def start(self) -> None:
        """Give every worker its time anew, and begin to look for what is due."""
        await self._sweeper.start()

    def quieten(self) -> None:
        """Let nobody wait for work any more."""
        self._leases.quieten()

    async def stop(self) -> None:
        """Stop looking; after the calls have ended, before the ledger stops."""
        await self._kept.wait(_KEPT_SECONDS)
        await self._sweeper.stop()
        await self._hub.close()

    async def sweep(self) -> None:
        """End what is due; it happens by itself while this runs."""
        await self._sweeper.sweep()

    async def sweep_files(self) -> None:
        """Remove files that are kept no longer; it happens by itself while this runs."""
        await self._sweeper.sweep_files()

    # Users ----------------------------------------------------------------------------------------

    async def submit(self, asked: Submission, chunks: AsyncIterator[bytes]) -> Submitted:
        """Take a bundle and put its render into the queue; refuses as `Submissions.submit`."""
        outcome = await self._submissions.submit(asked, chunks)
        key = (asked.account_id, number_of(outcome))
        return Submitted(await self.get(key), outcome.wallet, outcome.replayed)

    async def get(self, key: Key, *, props: bool = True) -> Render:
        """One render now, with or without its props; NotFound."""
        found = await self._database.read(partial(rows.render, key=key, props=props))
        if found is None:
            raise NotFound(what="render")
        return found

    async def page(self, wallet_id: int, *, before: int | None, limit: int) -> list[Render]:
        """Renders below a number, newest first, without their props; NotFound for no account."""
        await self._ledger.wallet(wallet_id)
        query = partial(rows.page, wallet_id=wallet_id, before=before, limit=limit)
        return await self._database.read(query)

    async def watch(self, key: Key) -> AsyncGenerator[Render]:
        """A render now and after every change, to its end, without its props; NotFound."""
        with self._hub.watching(_watched(key)) as changed:
            shown: Render | None = None
            while True:
                changed.clear()
                render = await self.get(key, props=False)
                if render != shown:
                    shown = render
                    yield render
                if render.ended:
                    return
                with suppress(TimeoutError):
                    waits = render.state is State.QUEUED
                    async with asyncio.timeout(PLACE_SECONDS if waits else None):
                        await changed.wait()

    async def cancel(self, key: Key) -> Render:
        """Stop a render, and charge the frames that were reported; one that has ended stays so. NotFound."""
        render = await self.get(key)
        if not render.ended:
            await self._kept.do(self._endings.cancel(key))
            render = await self.get(key)
        return render

    async def read_video(self, key: Key) -> AsyncGenerator[Piece]:
        """A video, piece by piece. Raises NotFound where there is none, ContentGone once it is not kept."""
        render = await self.get(key)
        if render.video is None:
            raise NotFound(what="video")
        if not render.video.object_id:
            raise ContentGone
        first = Piece(render.spec.codec.content_type, render.video.size_bytes, render.video.sha256, b"")
        async with aclosing(self._pieces(render.video.object_id, first)) as pieces:
            async for piece in pieces:
                yield piece

    # Workers --------------------------------------------------------------------------------------

    async def lease(self, worker: Worker, idempotency_key: str, wait_seconds: float) -> Lease | None:
        """The oldest render that waits; None when none came in time. Raises StaleLease."""
        return await self._leases.lease(worker, idempotency_key, wait_seconds)

    async def read_bundle(self, claim: Claim) -> AsyncGenerator[Piece]:
        """The bundle of a leased render, piece by piece. Raises StaleLease, NotFound."""
        bundle_id, size_bytes = await self._leases.bundle_of(claim)
        async with aclosing(self._pieces(bundle_id, Piece("", size_bytes, b"", b""))) as pieces:
            async for piece in pieces:
                yield piece

    async def heartbeat(self, claim: Claim, frames: int) -> Beat:
        """Keep a lease, and the count of its frames. Raises StaleLease, NotFound, InvalidField."""
        return await self._leases.heartbeat(claim, frames)

    async def complete(
        self, claim: Claim, frames: int, chunks: AsyncIterator[bytes], *, size_bytes: int, sha256: bytes
    ) -> tuple[Render, bool]:
        """Take a video, end its render and charge it; and whether the lease had done so before.

        :raises StaleLease: when it is not the render's lease; NotFound, InvalidField, StoreFull.
        """
        first = False
        if not await self._endings.is_completed(claim, frames):
            object_id = await self._store.receive(chunks, size_bytes=size_bytes, sha256=sha256)
            video = Video(object_id, size_bytes, sha256)
            first = await self._kept.do(self._endings.complete(claim, frames, video))
        return await self.get(claim.key), not first

    async def give_up(self, claim: Claim, message: str, *, handed_back: bool) -> Render:
        """End a lease without a video. Raises StaleLease, NotFound."""
        await self._kept.do(self._leases.give_up(claim, message, handed_back=handed_back))
        return await self.get(claim.key)

    # Inside ---------------------------------------------------------------------------------------

    async def _pieces(self, object_id: str, first: Piece) -> AsyncGenerator[Piece]:
        async with aclosing(self._store.read(object_id)) as chunks:
            async for chunk in chunks:
                yield first._replace(chunk=chunk)
                first = Piece("", 0, b"", b"")

    def _changed(self, key: Key) -> None:
        self._hub.wake([_watched(key)])

    def _offered(self) -> None:
        self._hub.wake([QUEUE])

    async def _look(self, watched: list[int]) -> list[tuple[int, int]]:
        keys = {divmod(number, 1 << _NUMBER_BITS) for number in watched if number != QUEUE}
        return await self._database.read(partial(_looked, keys=keys, queue=QUEUE in watched))


def _looked(connection: Connection, *, keys: set[Key], queue: bool) -> list[tuple[int, int]]:
    found = [(_watched(key), revision) for key, revision in rows.revisions(connection, keys)] if keys else []
    return [*found, (QUEUE, rows.queue_state(connection))] if queue else found


def _watched(key: Key) -> int:
    return key[0] << _NUMBER_BITS | key[1]
