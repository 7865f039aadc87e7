"""What is written of a job while it is worked on: each step a commit of its own, each guarded by the lease.

A step is written until it is there or the lease is lost: the database may be away for a while, and the same
step twice is one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from oanim_server.generation import rows, upload_rows
from oanim_server.generation.inputs import clean, uploads_named
from oanim_server.generation.values import Reason, State
from oanim_server.ledger.ids import reservation_text
from oanim_server.ledger.operations import Commit, Release
from oanim_server.ledger.refusals import (
    Conflict,
    DatabaseAway,
    Draining,
    Faulty,
    OutcomeUnknown,
    Overloaded,
    Refusal,
)
from oanim_server.ledger.values import SECOND, SERVER, Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy import ColumnElement, Connection

    from oanim_models.fal import Submitted
    from oanim_server.generation.uploads import Uploads
    from oanim_server.generation.values import Job, Times
    from oanim_server.ledger.ledger import Ledger

T = TypeVar("T")

log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_PASSING = (Conflict, DatabaseAway, OutcomeUnknown, Overloaded)
_OPEN = (State.QUEUED, State.SUBMITTING, State.SUBMITTED)


class LeaseLostError(Exception):
    """Somebody else works on the job now: leave it alone."""


class Steps:
    """Writes steps of jobs, and settles them. `changed` is told the key of each job that was changed."""

    def __init__(
        self, ledger: Ledger, uploads: Uploads, changed: Callable[[tuple[int, int]], None], *, times: Times
    ) -> None:
        self._ledger = ledger
        self._uploads = uploads
        self._changed = changed
        self._times = times

    async def submitting(self, job: Job) -> tuple[Job, float]:
        """Write down that the next attempt begins: from here on its POST may leave this machine.

        Answers until when, on the monotonic clock, the lease is certain.
        """
        # A sixth is kept back: nobody begins a POST on a lease that may end while it is made ready.
        certain = time.monotonic() + self._times.lease / SECOND * 5 / 6
        attempt = job.attempts + 1
        await self._change(
            job,
            rows.about_to_submit(attempt),
            lambda now: {
                "state": State.SUBMITTING,
                "attempts": attempt,
                "leased_until": now + self._times.lease,
            },
        )
        return replace(job, state=State.SUBMITTING, attempts=attempt), certain

    async def again(self, job: Job, pause_seconds: float) -> Job:
        """Put a job back whose POST did not count; the next attempt is not before the pause.

        The provider was not given it: where its cancellation was asked for meanwhile, it is cancelled now.
        """
        pause = int(pause_seconds * SECOND)

        def put_back(connection: Connection, now: int) -> Job | None:
            state = rows.put_back(connection, job.lease, now + pause)
            return None if state is None else replace(job, state=state, not_before=now + pause)

        return await self._step(job, put_back)

    async def submitted(self, job: Job, submitted: Submitted) -> Job:
        """Keep what the provider calls it. It is in the provider's queue now."""
        values = {
            "state": State.SUBMITTED,
            "request_id": clean(submitted.request_id),
            "status_url": clean(submitted.status_url, 2_000),
            "response_url": clean(submitted.response_url, 2_000),
            "cancel_url": clean(submitted.cancel_url, 2_000),
            "queue_position": 0,
        }
        now = await self._change(
            job,
            rows.stands(State.SUBMITTING, State.SUBMITTED),
            lambda now: {**values, "deadline_at": now + self._times.deadline},
        )
        return replace(
            job,
            state=State.SUBMITTED,
            request_id=submitted.request_id,
            status_url=submitted.status_url,
            response_url=submitted.response_url,
            deadline_at=now + self._times.deadline,
        )

    async def progress(self, job: Job, queue_position: int | None, message: str) -> None:
        """Keep what the provider says about it; a fault in that must not keep the job from its end."""
        values = {"queue_position": queue_position, "progress": clean(message)}
        try:
            await self._change(job, rows.stands(State.SUBMITTED), lambda _now: values, needed=False)
        except Faulty as fault:
            extra = {"generation": reservation_text(*job.key), "error_id": fault.error_id}
            log.error("what a provider says could not be written and is passed over", extra=extra)  # noqa: TRY400 - the ledger logged it

    async def succeeded(self, job: Job, outputs_text: str, *, sandbox: bool) -> Job:
        """Store that it is made, before it is charged."""
        values = {"state": State.SUCCEEDED, "outputs": outputs_text, "sandbox": int(sandbox)}
        await self._change(job, rows.stands(State.SUBMITTED, State.SUCCEEDED), lambda _now: values)
        return replace(job, state=State.SUCCEEDED)

    async def failed(self, job: Job, reason: Reason, message: str) -> Job:
        """Store that it failed, before its hold is released."""
        values = {"state": State.FAILED, "failure_reason": reason.value, "failure_message": clean(message)}
        await self._change(job, rows.stands(*_OPEN, State.FAILED), lambda _now: values)
        return replace(job, state=State.FAILED)

    async def settle(self, job: Job) -> None:
        """Charge or release, and note it in the same database transaction; once, whoever tries how often.

        Needs no lease: an outcome never changes, and the keys are the generation's own.
        """
        wallet_id, number = job.key
        finish = Finish(job)
        common: dict[str, Any] = {
            "wallet_id": wallet_id,
            "caller": SERVER,
            "idempotency_key": f"generation {reservation_text(wallet_id, number)}",
            "reservation": number,
            "companion": finish,
        }
        operation: Commit | Release
        if job.state is State.SUCCEEDED:
            operation = Commit(**common, quantity=job.quantity)
        else:
            operation = Release(**common)
        await _until_there(lambda: self._ledger.submit(operation), "a generation could not be settled", job)
        self._changed(job.key)
        await self._uploads.remove_files(finish.unused)

    async def hand_back(self, job: Job, pause_seconds: float) -> None:
        """Let somebody else have it, after a pause."""
        pause = int(pause_seconds * SECOND)

        def give(connection: Connection, now: int) -> None:
            rows.hand_back(connection, job.lease, now + pause)

        await _until_there(lambda: self._ledger.write(give), "a lease could not be handed back", job)

    async def _change(
        self,
        job: Job,
        come_from: ColumnElement[bool],
        values: Callable[[int], dict[str, Any]],
        *,
        needed: bool = True,
    ) -> int:
        """Write one step; answers the time it was written at.

        :raises LeaseLostError: when it is somebody else's.
        :raises Faulty: when it cannot be written and is not `needed`.
        """

        def change(connection: Connection, now: int) -> int | None:
            done = rows.change(connection, job.lease, come_from, **values(now))
            return now if done else None

        return await self._step(job, change, needed=needed)

    async def _step(
        self, job: Job, write: Callable[[Connection, int], T | None], *, needed: bool = True
    ) -> T:
        """Write one step; `write` answers None when the job is somebody else's. Raises as `_change`."""
        ask = partial(self._ledger.write, write)
        written = await _until_there(ask, "a step could not be written", job, needed=needed)
        if written is None:
            raise LeaseLostError
        self._changed(job.key)
        return written


class Finish:
    """A companion of the settlement: the job has ended, and its uploads have served."""

    def __init__(self, job: Job) -> None:
        self._key = job.key
        self._upload_ids = {named.upload_id for named in uploads_named(job.input_json)}
        self._now = 0
        self.unused: list[str] = []

    def load(self, connection: Connection, now: int) -> None:  # noqa: ARG002 - a companion is told
        """Take the time."""
        self._now = now

    def write(self, connection: Connection, outcome: Outcome) -> None:  # noqa: ARG002 - a companion is told
        """Mark the job, and remove what only it used."""
        rows.finish(connection, *self._key, self._now)
        self.unused = upload_rows.remove_used(connection, self._key[0], self._upload_ids)


async def _until_there(
    write: Callable[[], Awaitable[T]], trouble: str, job: Job, *, needed: bool = True
) -> T:
    """Write until it is there. Only a server that is about to stop gives up: the next life goes on.

    What is not `needed` is given up at the first fault of ours, too.
    """
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return await write()
        except Draining:
            raise
        except (Refusal, OutcomeUnknown) as refusal:
            if isinstance(refusal, Faulty) and not needed:
                raise
            # What passes is a warning; anything else is a fault that somebody has to look at.
            level = logging.WARNING if isinstance(refusal, _PASSING) else logging.ERROR
            extra = {"generation": reservation_text(*job.key), "refusal": type(refusal).__name__}
            log.log(level, "%s and is tried again", trouble, extra=extra)
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
