"""One job from where it stands to its end: submitted once, polled, outcome stored, settled.

Between any two lines the process may die. What is found by the next epoch decides alone: QUEUED, nothing has
left; SUBMITTING, a POST may have, so it counts as not answered; SUBMITTED, there is somebody to ask; an
outcome, only the settlement is left.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx

from oanim_models import fal
from oanim_models.inputs import outputs
from oanim_server.generation import rows
from oanim_server.generation.body import Body, InputGoneError
from oanim_server.generation.steps import LeaseLostError
from oanim_server.generation.values import ATTEMPTS, MAX_OUTPUTS_BYTES, Reason, State
from oanim_server.ledger.ids import reservation_text
from oanim_server.ledger.refusals import Draining
from oanim_server.ledger.values import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oanim_server.database.engine import Database
    from oanim_server.generation.counts import Counts
    from oanim_server.generation.steps import Steps
    from oanim_server.generation.uploads import Uploads
    from oanim_server.generation.values import Job

log = logging.getLogger(__name__)

# A submit that is still going on after so long is taken as not answered.
SUBMIT_SECONDS = 600.0
SUBMITS_AT_ONCE = 50
FIRST_POLL_SECONDS = 0.1
LONGEST_POLL_SECONDS = 2.0
POLL_GROWTH = 1.5
# Between attempts of which nothing was sent, by how many there were.
RETRY_SECONDS = {1: 1.0, 2: 4.0}
TOO_MANY_REQUESTS_SECONDS = 5.0
_TOO_LONG = (
    f"its result is longer than {MAX_OUTPUTS_BYTES:,} bytes: the files themselves, or too many of them"
)


class Worker:
    """Works on jobs of this process, one task each."""

    def __init__(
        self, queue: fal.FalQueue | None, steps: Steps, database: Database, uploads: Uploads, counts: Counts
    ) -> None:
        self._queue = queue
        self._steps = steps
        self._database = database
        self._uploads = uploads
        self._counts = counts
        self._submits = asyncio.Semaphore(SUBMITS_AT_ONCE)
        # The jobs whose POST is on its way; set while there are none.
        self.submitting: set[tuple[int, int]] = set()
        self.quiet = asyncio.Event()
        self.quiet.set()
        # Set when no further submit may begin here.
        self.stopping = False

    async def finish(self, job: Job) -> None:
        """Take a job to its end.

        :raises LeaseLostError: when somebody else has it.
        :raises Draining: when it is left to the next life.
        """
        if job.state is State.SUBMITTING:
            # The epoch that wrote it is gone, and whether its POST left nobody can tell.
            job = await self._fail(job, Reason.PROVIDER_UNKNOWN, "the server stopped while it was submitted")
        while job.state is State.QUEUED:
            job = await self._attempt(job)
        if job.state is State.SUBMITTED:
            job = await self._poll(job)
        await self._steps.settle(job)
        if job.state is State.SUCCEEDED:
            self._counts.succeeded += 1
        elif job.state is State.CANCELLED:
            self._counts.cancelled += 1

    # Submitting -----------------------------------------------------------------------------------

    async def _attempt(self, job: Job) -> Job:
        """Make one attempt, at its time."""
        deadline_seconds = _seconds_until(job.deadline_at)
        await asyncio.sleep(max(0.0, min(_seconds_until(job.not_before), deadline_seconds)))
        if self._queue is None or _seconds_until(job.deadline_at) <= 0:
            await asyncio.sleep(max(0.0, _seconds_until(job.deadline_at)))
            return await self._fail(job, Reason.DEADLINE_PASSED, "it could not be submitted in time")
        async with self._submits:
            try:
                async with Body(job.input_json, self._database, self._uploads) as body:
                    if self.stopping:
                        raise Draining
                    with self._noted(job):
                        return await self._post(self._queue, job, body)
            except InputGoneError:
                return await self._fail(job, Reason.PROVIDER_REJECTED, "an uploaded input is gone")

    @contextmanager
    def _noted(self, job: Job) -> Iterator[None]:
        self.submitting.add(job.key)
        self.quiet.clear()
        try:
            yield
        finally:
            self.submitting.discard(job.key)
            if not self.submitting:
                self.quiet.set()

    async def _post(self, queue: fal.FalQueue, job: Job, body: Body) -> Job:
        """Write down that it is sent, send it once, and write down what came of it."""
        job, certain = await self._steps.submitting(job)
        if time.monotonic() > certain:
            raise LeaseLostError
        self._counts.submits += 1
        try:
            async with asyncio.timeout(SUBMIT_SECONDS):
                submitted = await queue.submit(job.endpoint, body, length=body.length)
        except fal.NotSent:
            return await self._again(job, RETRY_SECONDS.get(job.attempts, 0.0), "it cannot be reached")
        except fal.TooManyRequests as busy:
            pause = TOO_MANY_REQUESTS_SECONDS if busy.retry_after_s is None else busy.retry_after_s
            return await self._again(job, pause, "it takes no more requests")
        except fal.Rejected as rejected:
            return await self._fail(job, Reason.PROVIDER_REJECTED, rejected.message)
        except (fal.Unknown, TimeoutError):
            return await self._fail(job, Reason.PROVIDER_UNKNOWN, "the provider did not answer the submit")
        try:
            return await self._steps.submitted(job, submitted)
        except LeaseLostError:
            extra = {**_about(job), "request": submitted.request_id}
            log.exception("ALARM: a job was submitted and its lease was lost", extra=extra)
            raise

    async def _again(self, job: Job, pause_seconds: float, why: str) -> Job:
        if job.attempts >= ATTEMPTS:
            message = f"the provider was asked {ATTEMPTS} times: {why}"
            return await self._fail(job, Reason.PROVIDER_REJECTED, message)
        return await self._steps.again(job, pause_seconds)

    # Polling --------------------------------------------------------------------------------------

    async def _poll(self, job: Job) -> Job:
        """Ask how far it is until it has ended, politely."""
        pause = FIRST_POLL_SECONDS
        shown: fal.Queued | fal.Running | None = None
        away = False
        while (left := _seconds_until(job.deadline_at)) > 0:
            await asyncio.sleep(min(pause, left))
            pause = min(POLL_GROWTH * pause, LONGEST_POLL_SECONDS)
            if self._queue is None:
                continue
            try:
                status = await self._queue.status(_with_logs(job.status_url))
                if isinstance(status, fal.Completed):
                    return await self._collect(self._queue, job)
            except (fal.Unavailable, fal.ForeignAddress) as error:
                if not away:
                    away = True
                    log.warning("the provider does not say", extra={**_about(job), "error": str(error)})
            else:
                away = False
                if status != shown:
                    await self._show(job, status)
                    shown = status
        return await self._fail(job, Reason.DEADLINE_PASSED, "the provider did not finish it in time")

    async def _collect(self, queue: fal.FalQueue, job: Job) -> Job:
        try:
            result = await queue.result(job.response_url)
        except fal.ModelFailed as failed:
            return await self._fail(job, Reason.PROVIDER_FAILED, failed.message)
        try:
            made = rows.outputs_text(outputs(result.output))
        except ValueError as error:
            return await self._fail(job, Reason.PROVIDER_FAILED, f"its result cannot be read: {error}")
        if len(made) > MAX_OUTPUTS_BYTES:
            return await self._fail(job, Reason.PROVIDER_FAILED, _TOO_LONG)
        return await self._steps.succeeded(job, made, sandbox=result.output.get("sandbox") is True)

    async def _show(self, job: Job, status: fal.Queued | fal.Running) -> None:
        if isinstance(status, fal.Queued):
            await self._steps.progress(job, status.position, "")
        else:
            await self._steps.progress(job, None, status.logs[-1] if status.logs else "")

    # Ending ---------------------------------------------------------------------------------------

    async def _fail(self, job: Job, reason: Reason, message: str) -> Job:
        job = await self._steps.failed(job, reason, message)
        self._counts.failed[reason] += 1
        alarm = reason in (Reason.PROVIDER_UNKNOWN, Reason.DEADLINE_PASSED)
        extra = {**_about(job), "reason": reason.value, "request": job.request_id}
        if alarm:
            # The provider may have done and billed what nobody is charged for.
            log.error("ALARM: the outcome of a paid job is not known", extra=extra)
        else:
            log.info("a generation failed", extra=extra)
        return job


def _seconds_until(instant: int) -> float:
    return (instant - time.time_ns() // 1_000) / SECOND


def _with_logs(status_url: str) -> str:
    return str(httpx.URL(status_url).copy_merge_params({"logs": "1"}))


def _about(job: Job) -> dict[str, object]:
    return {"generation": reservation_text(*job.key), "epoch": job.lease.epoch, "attempt": job.attempts}
