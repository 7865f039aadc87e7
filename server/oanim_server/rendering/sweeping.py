"""What nobody asks for and is due: leases whose worker is lost, deadlines, holds of workers, files.

A lease ends here and nowhere by itself. Where nobody could be heard of for a while (this process has just
started, was stopped, or the database was away), every worker is given its time anew first.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from oanim_server.ledger.ids import reservation_text
from oanim_server.ledger.refusals import OutcomeUnknown, Refusal
from oanim_server.ledger.tasks import every
from oanim_server.ledger.values import SECOND
from oanim_server.rendering import holding, lease_rows, rows
from oanim_server.rendering.refusals import StaleLease

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sqlalchemy import Connection

    from oanim_server.rendering.ending import Endings
    from oanim_server.rendering.lease_rows import Lapsed
    from oanim_server.rendering.shared import Shared
    from oanim_server.rendering.values import Key

log = logging.getLogger(__name__)

# In leases: how often it is looked, and how long a silence of our own is one that workers are not blamed for.
LOOK = 1 / 12
SILENCE = 1 / 3
FILES_SECONDS = 600.0
# Longer than anybody takes from a file's last byte to the row that names it.
ORPHAN_SECONDS = 3_600.0


class Sweeper:
    """Looks again and again as long as it runs."""

    def __init__(self, shared: Shared, endings: Endings) -> None:
        self._shared = shared
        self._endings = endings
        # When it was last seen to, by the database's clock.
        self._looked_at: int | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Give every worker its time anew, and keep looking."""
        await self.sweep()
        self._tasks = [
            asyncio.create_task(
                every(self._shared.times.lease / SECOND * LOOK, self.sweep), name="leases of renders"
            ),
            asyncio.create_task(every(FILES_SECONDS, self.sweep_files), name="files of renders"),
        ]

    async def stop(self) -> None:
        """Look no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def sweep(self) -> None:
        """End what is due; what cannot be now is tried again."""
        looked_at, lapsed = await self._shared.ledger.write(self._look)
        self._looked_at = looked_at
        for claim in lapsed.offered:
            self._shared.counts.lost += 1
            log.warning(
                "a worker is lost", extra={"render": reservation_text(*claim.key), "epoch": claim.epoch}
            )
            self._shared.changed(claim.key)
            self._shared.offered()
        for claim in lapsed.lost:
            self._shared.counts.lost += await _if_it_still_is(claim.key, self._endings.lose(claim))
        for found in lapsed.out_of_time:
            await _if_it_still_is(found.key, self._endings.run_out(found.key))
        await holding.release_left(self._shared.database, self._shared.ledger)
        self._shared.counts.queued, self._shared.counts.rendering = await self._shared.database.read(
            rows.counts
        )

    async def sweep_files(self) -> None:
        """Remove videos after their time, and files that no row names."""
        while expired := await self._shared.ledger.write(rows.forget_videos):
            await self._shared.store.remove(expired)

        async def known(object_ids: list[str]) -> set[str]:
            return await self._shared.database.read(partial(rows.named, object_ids=object_ids))

        await self._shared.store.sweep(older_than_seconds=ORPHAN_SECONDS, known=known)

    def _look(self, connection: Connection, now: int) -> tuple[int, Lapsed]:
        silence = self._shared.times.lease * SILENCE
        away = self._looked_at is None or now - self._looked_at > silence
        return now, lease_rows.sweep(connection, now, lease=self._shared.times.lease, away=away)


async def _if_it_still_is(key: Key, ending: Coroutine[object, object, bool]) -> bool:
    """End what was found due, unless it is so no longer; one that cannot be keeps no other one waiting."""
    try:
        return await ending
    except StaleLease:
        return False
    except (Refusal, OutcomeUnknown) as error:
        extra = {"render": reservation_text(*key), "error": type(error).__name__}
        log.warning("a render could not be ended and is tried again", extra=extra)
        return False
