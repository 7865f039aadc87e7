"""How renders end: completed, cancelled, given up for good, lost for good, or out of time.

Each is one operation on the render's hold, under one key for all of them, with the render's row in its
database transaction: so a render ends once, however many want it to, and is charged as it ended.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from oanim_server.ledger.ids import reservation_text
from oanim_server.ledger.operations import EndHold
from oanim_server.ledger.refusals import NotFound, Refusal
from oanim_server.ledger.values import SERVER
from oanim_server.rendering import holding, lease_rows, rows, rules
from oanim_server.rendering.values import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from oanim_server.ledger.values import Outcome
    from oanim_server.rendering.shared import Shared
    from oanim_server.rendering.values import Claim, End, Key, Standing, Times, Video

log = logging.getLogger(__name__)


class Ended:
    """A companion of the end of a render's hold. `quantity` and `bundle_id` are known after `load`."""

    def __init__(
        self,
        key: Key,
        decide: Callable[[Standing, int], End],
        *,
        times: Times,
        video: Video | None = None,
        given_up: Claim | None = None,
    ) -> None:
        self._key = key
        self._decide = decide
        self._times = times
        self._video = video
        self._given_up = given_up
        self._now = 0
        self._standing: Standing | None = None
        self._end: End | None = None

    @property
    def quantity(self) -> int:
        """What is charged, in kilopixel-seconds."""
        standing, end = self._loaded()
        return rules.quantity(standing.spec, end.frames)

    @property
    def bundle_id(self) -> str:
        """The file that is needed no more."""
        return self._loaded()[0].bundle_id

    def load(self, connection: Connection, now: int) -> None:
        """Lock the render, and decide how it ends."""
        found = rows.standing(connection, self._key, lock=True)
        if found is None:
            raise NotFound(what="render")
        self._now, self._standing, self._end = now, found, self._decide(found, now)

    def write(self, connection: Connection, outcome: Outcome) -> None:  # noqa: ARG002 - a companion is told
        """Write that it has."""
        standing, end = self._loaded()
        kept_until = self._now + self._times.kept
        rows.finish(connection, self._now, standing, end, video=self._video, kept_until=kept_until)
        if self._given_up is not None:
            lease_rows.note_given_up(connection, self._given_up)

    @property
    def end(self) -> End:
        """How it ended."""
        return self._loaded()[1]

    def _loaded(self) -> tuple[Standing, End]:
        if self._standing is None or self._end is None:
            raise TypeError("it is asked before it was loaded")
        return self._standing, self._end


class Endings:
    """Ends renders."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def is_completed(self, claim: Claim, frames: int) -> bool:
        """Whether a lease has brought its video already; else it may do so now.

        :raises StaleLease: when it is not the render's lease; NotFound, InvalidField.
        """
        found = await self._standing(claim.key)
        if found.state is State.SUCCEEDED and found.claim == claim:
            return True
        rules.check_lease(found, claim)
        rules.check_frames(found.spec, frames, "completion.frames")
        return False

    async def complete(self, claim: Claim, frames: int, video: Video) -> bool:
        """End a render with its video, and charge it. False when the same lease had done so before.

        :raises StaleLease: when it is not the render's lease; the video is removed then.
        """
        decide = partial(rules.completed, claim=claim, frames=frames)
        try:
            first = await self._end(claim.key, decide, video=video)
        except Refusal:
            await self._shared.store.remove([video.object_id])
            raise
        if not first:
            # By the same call beside this one, or by this one, whose answer was lost, or otherwise.
            found = await self._standing(claim.key)
            if found.video_id != video.object_id:
                await self._shared.store.remove([video.object_id])
            if found.state is not State.SUCCEEDED or found.claim != claim:
                raise rules.stale(claim)
        return first

    async def cancel(self, key: Key) -> bool:
        """Stop a render, and charge the frames that were reported. False when it had ended before."""
        return await self._end(key, rules.cancelled)

    async def give_up(self, claim: Claim, message: str) -> bool:
        """End a render whose last attempt failed. False when it had ended before; StaleLease."""
        decide = partial(rules.given_up, claim=claim, message=message)
        return await self._end(claim.key, decide, given_up=claim)

    async def lose(self, claim: Claim) -> bool:
        """End a render whose last worker was lost. Raises StaleLease when it was heard of after all."""
        return await self._end(claim.key, partial(rules.lost, claim=claim))

    async def run_out(self, key: Key) -> bool:
        """End a render whose deadline has passed. Raises StaleLease when it has ended already."""
        return await self._end(key, rules.out_of_time)

    async def _standing(self, key: Key) -> Standing:
        found = await self._shared.database.read(partial(rows.standing, key=key))
        if found is None:
            raise NotFound(what="render")
        return found

    async def _end(self, key: Key, decide: Callable[[Standing, int], End], **more: Any) -> bool:
        ended = Ended(key, decide, times=self._shared.times, **more)
        outcome = await self._shared.ledger.submit(
            EndHold(
                wallet_id=key[0],
                caller=SERVER,
                idempotency_key=f"render {reservation_text(*key)}",
                reservation=key[1],
                ending=ended,
                companion=ended,
            )
        )
        self._shared.changed(key)
        # Another one of its account may be leased now.
        self._shared.offered()
        if outcome.replayed:
            return False
        self._count(key, ended.end)
        await self._tidy(key, ended.bundle_id)
        return True

    def _count(self, key: Key, end: End) -> None:
        extra = {"render": reservation_text(*key), "frames": end.frames}
        if end.failure is None:
            log.info("a render ended", extra={**extra, "state": end.state.name})
            self._shared.counts.ended[end.state] += 1
        else:
            log.warning("a render failed", extra={**extra, "reason": end.failure.reason.value})
            self._shared.counts.failed[end.failure.reason] += 1

    async def _tidy(self, key: Key, bundle_id: str) -> None:
        """Let go of what only it needed; what cannot be now is left to the sweep."""
        try:
            await self._shared.store.remove([bundle_id])
            await holding.release_left(self._shared.database, self._shared.ledger, key)
        except Exception:
            log.exception(
                "a render has ended and something is left of it", extra={"render": reservation_text(*key)}
            )
