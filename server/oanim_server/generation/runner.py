"""The jobs that this process works on: leased, renewed, taken over from those that stopped.

A job belongs to the server, not to a call or a process. Each is one task here; a task that is cancelled, or
that breaks, leaves its job as it stands to the next epoch.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from functools import partial
from typing import TYPE_CHECKING

from oanim_server.database.engine import driver_of
from oanim_server.generation import rows
from oanim_server.generation.steps import LeaseLostError
from oanim_server.ledger.ids import reservation_text
from oanim_server.ledger.refusals import Draining, Refusal
from oanim_server.ledger.tasks import every
from oanim_server.ledger.values import SECOND

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from oanim_server.database.engine import Database
    from oanim_server.generation.counts import Counts
    from oanim_server.generation.steps import Steps
    from oanim_server.generation.uploads import Uploads
    from oanim_server.generation.values import Job, Times
    from oanim_server.generation.worker import Worker
    from oanim_server.ledger.ledger import Ledger

log = logging.getLogger(__name__)

# In leases: a lapsed one is found soon, and one that is worked on is renewed three times before it ends.
LOOK = 1 / 15
RENEW = 1 / 4
SWEEP_UPLOADS_SECONDS = 600.0
BROKEN_PAUSE_SECONDS = 10.0
HAND_BACK_SECONDS = 2.0


class Runner:
    """Works on jobs until it is stopped.

    :param alone: no other process works on this database: what a former life left is taken over at once.
    :param workable: there is a provider to submit to.
    """

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        *,
        steps: Steps,
        worker: Worker,
        uploads: Uploads,
        counts: Counts,
        times: Times,
        alone: bool,
        workable: bool,
    ) -> None:
        # New in every life: nobody can take the jobs of a former one for its own.
        self.owner = secrets.token_hex(8)
        self._database = database
        self._ledger = ledger
        self._steps = steps
        self._worker = worker
        self._uploads = uploads
        self._counts = counts
        self._times = times
        self._alone = alone
        self._workable = workable
        self._stopping = False
        self._jobs: dict[tuple[int, int], tuple[Job, asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Take over what was left, and keep looking."""
        await self._take_over(anyones=self._alone)
        lease_seconds = self._times.lease / SECOND
        self._loops = [
            asyncio.create_task(every(lease_seconds * LOOK, self._take_over), name="takeovers"),
            asyncio.create_task(every(lease_seconds * RENEW, self._renew), name="leases"),
            asyncio.create_task(every(SWEEP_UPLOADS_SECONDS, self._uploads.sweep), name="uploads"),
        ]

    async def quieten(self) -> None:
        """Begin nothing more; returns when no submit is on its way. What is worked on goes on meanwhile.

        A submit that is cut off is one whose outcome nobody ever knows; everything else loses nothing.
        """
        self._stopping = True
        self._worker.stopping = True
        await self._worker.quiet.wait()

    async def stop(self, grace_seconds: float) -> None:
        """Let submits that are on their way be answered, then hand every job to whoever is next."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self.quieten()
        # Until now, so that no lease lapses while its submit is waited for.
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(HAND_BACK_SECONDS):
                await self._ledger.write(partial(rows.hand_all_back, owner=self.owner))
        except (Refusal, TimeoutError):
            log.warning("the leases could not be handed back and lapse by themselves")

    def take(self, job: Job) -> asyncio.Task[None] | None:
        """Work on a job that this process holds the lease of; None when it is about to stop."""
        if self._stopping:
            return None
        former = self._jobs.get(job.key)
        if former is not None:
            if former[0].lease.epoch >= job.lease.epoch:
                return former[1]
            former[1].cancel()
        task = asyncio.create_task(self._work(job), name=f"generation {reservation_text(*job.key)}")
        self._jobs[job.key] = (job, task)
        self._tasks.add(task)
        self._counts.running = len(self._jobs)
        task.add_done_callback(partial(self._done, job))
        return task

    async def _work(self, job: Job) -> None:
        try:
            await self._worker.finish(job)
        except LeaseLostError:
            self._counts.leases_lost += 1
            log.warning("a lease was lost", extra={"generation": reservation_text(*job.key)})
            with contextlib.suppress(Draining):
                await self._steps.hand_back(job, 0.0)
        except Draining:
            pass
        except Exception:
            extra = {"generation": reservation_text(*job.key)}
            log.exception("a job broke and is left to the next", extra=extra)
            with contextlib.suppress(Draining):
                await self._steps.hand_back(job, BROKEN_PAUSE_SECONDS)

    def _done(self, job: Job, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        present = self._jobs.get(job.key)
        if present is not None and present[1] is task:
            del self._jobs[job.key]
        self._counts.running = len(self._jobs)

    async def _take_over(self, *, anyones: bool = False) -> None:
        """Take over what nobody works on."""
        seen: set[tuple[int, int]] = set()
        while True:
            found = await self._database.read(partial(self._claimable, anyones=anyones))
            wanted = [key for key in found if key not in self._jobs and key not in seen]
            if not wanted or self._stopping:
                return
            seen.update(wanted)
            claim = partial(
                rows.claim, owner=self.owner, lease=self._times.lease, keys=wanted, anyones=anyones
            )
            for job in await self._ledger.write(claim):
                self._counts.takeovers += 1
                self.take(job)

    def _claimable(self, connection: Connection, *, anyones: bool) -> list[tuple[int, int]]:
        now = self._database.statements.clock(driver_of(connection))
        return rows.claimable(connection, now, anyones=anyones, workable=self._workable)

    async def _renew(self) -> None:
        """Prolong the leases, and drop the jobs whose lease somebody else has."""
        working = {job.lease: task for job, task in self._jobs.values()}
        if not working:
            return
        renew = partial(rows.renew, leases=list(working), length=self._times.lease)
        lost = await self._ledger.write(renew)
        for lease in lost:
            # One that has ended meanwhile is done already.
            working[lease].cancel()
