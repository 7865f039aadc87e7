"""Sends one job to fal.ai, at most once, and follows it to its end.

A submit that left this machine without an answer is never sent again: the job may exist, and may be paid for.
"""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from oanim.cli.assets import spending
from oanim.cli.failures import AWAY, NOT_SIGNED_IN, Failure
from oanim.cli.money import dollars
from oanim_models import fal

if TYPE_CHECKING:
    from oanim.cli.assets.body import Body
    from oanim.cli.assets.spending import Job
    from oanim.cli.progress import Progress

_SUBMITS = 3
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 2.0
_LONGEST_WAIT_TO_SUBMIT_S = 60.0
# How long fal.ai may be away while a job runs before we give up watching it.
_PATIENCE_S = 120.0


class Following:
    """One job, from its submit to its result.

    `may_be_sent` is true from the first byte on, `has_failed` when there will never be a result.
    """

    def __init__(self, queue: fal.FalQueue, job: Job, progress: Progress) -> None:
        self._queue = queue
        self.job = job
        self._progress = progress
        self.may_be_sent = bool(job.request_id)
        self.has_failed = False

    async def submit(self, endpoint: str, body: Body) -> None:
        """Send the job; where nothing was sent, or it was turned away for now, up to three times."""
        for attempt in range(1, _SUBMITS + 1):
            self._progress.now("sending the work to fal.ai")
            try:
                self.may_be_sent = True
                submitted = await self._queue.submit(endpoint, body.pieces(), length=body.length)
            except fal.NotSent as error:
                failure, pause_s = (
                    Failure(f"{error}. Nothing was sent, or spent.", AWAY),
                    _FIRST_PAUSE_S * attempt,
                )
            except fal.TooManyRequests as error:
                failure, pause_s = (
                    Failure(f"{error}. Nothing was spent; try again later."),
                    error.retry_after_s or 1.0,
                )
            except fal.Rejected as error:
                spending.forget(self.job)
                raise _rejected(error) from error
            except fal.Unknown as error:
                raise Failure(f"{error}. {lost(self.job)}", AWAY) from error
            else:
                self.job.request_id = submitted.request_id
                self.job.status_url = submitted.status_url
                self.job.response_url = submitted.response_url
                spending.sent(self.job)
                return
            self.may_be_sent = False
            if attempt == _SUBMITS or pause_s > _LONGEST_WAIT_TO_SUBMIT_S:
                spending.forget(self.job)
                raise failure
            await asyncio.sleep(pause_s)

    async def result(self) -> fal.Result:
        """Wait until the job has ended, and fetch what the model answered."""
        patient_until = time.monotonic() + _PATIENCE_S
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                state = await self._queue.status(self.job.status_url)
                patient_until = time.monotonic() + _PATIENCE_S
                if isinstance(state, fal.Completed):
                    result = await self._queue.result(self.job.response_url)
                    spending.settle(self.job, self.job.charged_micros)
                    return result
                self._progress.now(_said(state))
            except fal.ModelFailed as error:
                raise self._failed(error) from error
            except fal.ForeignAddress as error:
                raise Failure(f"{error}: this job was sent with another ANIMATE_FAL_URL.") from error
            except fal.Unavailable as error:
                self._progress.now("fal.ai does not answer; asking again")
                if time.monotonic() > patient_until:
                    raise Failure(f"{error}.", AWAY) from error
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)

    def _failed(self, error: fal.ModelFailed) -> Failure:
        """Take the price back where fal.ai does not bill: its own failures. A 4xx may be billed."""
        self.has_failed = True
        said = f"{error}."
        if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            spending.settle(self.job, 0)
            return Failure(f"{said} fal.ai does not bill this.")
        spending.settle(self.job, self.job.charged_micros)
        return Failure(f"{said} fal.ai may bill this, so it stays counted in this session.")


def lost(job: Job) -> str:
    """Say what it means that a submit was not answered."""
    return (
        "Whether fal.ai took the work cannot be found out: look at your fal.ai account before you repeat it. "
        f"Its {dollars(job.charged_micros)} stays counted in this session."
    )


def _rejected(error: fal.Rejected) -> Failure:
    if error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return Failure(f"{error}. Check ANIMATE_FAL_KEY. Nothing was spent.", NOT_SIGNED_IN)
    return Failure(f"{error}. Nothing was spent.")


def _said(state: fal.Queued | fal.Running) -> str:
    if isinstance(state, fal.Queued):
        return f"queue position {state.position}"
    return state.logs[-1] if state.logs and state.logs[-1] else "working"
