"""The sandbox's jobs: accepted once, queued, run in a thread, kept with their files until it stops.

A POST that was dropped before it was accepted is counted but makes no job: that difference is what the
tests of "submitted once" stand on.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from oanim_server.sandbox.work import BadInput, Work

if TYPE_CHECKING:
    from pathlib import Path

_LOG = logging.getLogger(__name__)
_RENDERING_AT_ONCE = 2
_SHOWN = 80


@dataclass(slots=True, eq=False)
class Job:
    """One accepted submit. `failure` is the status and body that its result answers instead."""

    request_id: str
    endpoint: str
    asked: dict[str, Any]
    digest: str
    files_url: str
    status: str = "IN_QUEUE"
    position: int = 0
    cancelled: bool = False
    result: dict[str, Any] | None = None
    failure: tuple[int, Any] | None = None
    quantity: int = 0
    files: dict[str, Path] = field(default_factory=dict)
    nudged: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def application(self) -> str:
        """The part of the endpoint that a job's addresses keep."""
        return "/".join(self.endpoint.split("/")[:2])

    @property
    def billed(self) -> bool:
        return self.result is not None and self.failure is None


@dataclass(slots=True, frozen=True)
class Wait:
    """How long a job queues: behind how many, and for how long in all (None: until it is nudged)."""

    positions: int
    seconds: float | None


class Jobs:
    """Every job since the start. `pace_s` is how long a job queues, and how long it runs at least."""

    def __init__(self, folder: Path, pace_s: float) -> None:
        self._folder = folder
        self._pace_s = pace_s
        self._jobs: dict[str, Job] = {}
        self._submits: Counter[str] = Counter()
        self._running: set[asyncio.Task[None]] = set()
        self._threads = asyncio.Semaphore(_RENDERING_AT_ONCE)

    def count_submit(self, endpoint: str, body: bytes) -> str:
        """Count a POST whatever becomes of it, and name it by its content."""
        digest = hashlib.sha256(endpoint.encode() + b"\0" + body).hexdigest()
        self._submits[digest] += 1
        return digest

    def accept(
        self, endpoint: str, asked: dict[str, Any], *, digest: str, url: str, wait: Wait | None
    ) -> Job:
        """Make the job and start it; it runs whether or not anyone asks for it again."""
        request_id = str(uuid.uuid4())
        job = Job(request_id, endpoint, asked, digest, f"{url}/files/{request_id}")
        job.position = wait.positions if wait else 0
        self._jobs[request_id] = job
        task = asyncio.create_task(self._run(job, wait or Wait(1, self._pace_s)))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return job

    def get(self, request_id: str) -> Job | None:
        return self._jobs.get(request_id)

    def cancel(self, job: Job) -> bool:
        """Cancel a job that still queues; one that runs goes on. False when it has ended."""
        if job.status == "COMPLETED":
            return False
        if job.status == "IN_QUEUE":
            job.cancelled = True
            job.nudged.set()
        return True

    def nudge(self) -> None:
        """Let every job that queues go on."""
        for job in self._jobs.values():
            job.nudged.set()

    def listed(self) -> dict[str, Any]:
        """What the control endpoint shows: every accepted job, and all POSTs that arrived."""
        return {
            "jobs": [
                {
                    "request_id": job.request_id,
                    "endpoint": job.endpoint,
                    "input": _shortened(job.asked),
                    "status": job.status,
                    "cancelled": job.cancelled,
                    "billed": job.billed,
                    "submits": self._submits[job.digest],
                }
                for job in self._jobs.values()
            ],
            "submits": self._submits.total(),
        }

    async def close(self) -> None:
        """End every job as it stands."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _run(self, job: Job, wait: Wait) -> None:
        await self._queue(job, wait)
        if job.cancelled:
            job.failure = (499, {"detail": "Request was cancelled"})
        else:
            job.status = "IN_PROGRESS"
            async with self._threads:
                await asyncio.gather(asyncio.to_thread(self._work, job), asyncio.sleep(self._pace_s))
        job.status = "COMPLETED"

    async def _queue(self, job: Job, wait: Wait) -> None:
        if wait.seconds is None:
            await job.nudged.wait()
            return
        for position in range(wait.positions - 1, -1, -1):
            try:
                async with asyncio.timeout(wait.seconds / wait.positions):
                    await job.nudged.wait()
                return
            except TimeoutError:
                job.position = position

    def _work(self, job: Job) -> None:
        folder = self._folder / job.request_id
        folder.mkdir()
        work = Work(job.endpoint, job.asked, folder=folder, files_url=job.files_url, find=self._find)
        try:
            result = work.do()
        except BadInput as error:
            job.failure = (422, {"detail": error.detail})
        except Exception:  # noqa: BLE001 - a model that breaks answers 500, as fal.ai's do
            _LOG.exception("the sandbox failed at %s", job.endpoint)
            job.failure = (500, {"detail": "Internal Server Error"})
        else:
            job.files = {path.name: path for path in folder.iterdir()}
            job.quantity = work.quantity
            job.result = result

    def _find(self, address: str) -> Path | None:
        *_, request_id, name = ["", "", *unquote(urlsplit(address).path).split("/")]
        job = self._jobs.get(request_id)
        return job.files.get(name) if job and address == f"{job.files_url}/{name}" else None


def about(endpoint: str, asked: dict[str, Any]) -> str:
    """What a fault's `match` is looked for in."""
    return json.dumps([endpoint, asked.get("prompt"), asked.get("text")], ensure_ascii=False)


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shortened(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    if isinstance(value, str) and value.startswith("data:") and len(value) > _SHOWN:
        return f"{value[:_SHOWN]}... ({len(value)} characters)"
    return value
