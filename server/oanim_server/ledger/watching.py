"""Who wants to know when something changes: woken by this process's commits, and by a look once a second.

The look finds what other replicas did. NOTIFY would serialise PostgreSQL's commits; this costs one query a
second for all that is watched here.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0


class Hub:
    """Events by id. `wake` may be called from any thread, everything else from the event loop.

    :param look: answers (id, a number that grows with its changes) for each id that is watched; None where
        no other process writes.
    """

    def __init__(self, look: Callable[[list[int]], Awaitable[Iterable[tuple[int, int]]]] | None) -> None:
        self._look = look
        self._watched: dict[int, set[asyncio.Event]] = {}
        self._seen: dict[int, int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._looking: asyncio.Task[None] | None = None

    @contextmanager
    def watching(self, watched_id: int) -> Iterator[asyncio.Event]:
        """An event that is set after every change, until the block ends."""
        self._loop = asyncio.get_running_loop()
        if self._look is not None and self._looking is None:
            self._looking = asyncio.create_task(self._look_on(), name="watching")
        event = asyncio.Event()
        self._watched.setdefault(watched_id, set()).add(event)
        try:
            yield event
        finally:
            events = self._watched[watched_id]
            events.discard(event)
            if not events:
                del self._watched[watched_id]
                self._seen.pop(watched_id, None)

    def wake(self, changed: Iterable[int]) -> None:
        """Tell whoever watches one of these."""
        loop = self._loop
        if loop is None or not self._watched:
            return
        found = [changed_id for changed_id in changed if changed_id in self._watched]
        if found and not loop.is_closed():
            loop.call_soon_threadsafe(self._set, found)

    async def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def _set(self, changed: Iterable[int]) -> None:
        for changed_id in changed:
            for event in self._watched.get(changed_id, ()):
                event.set()

    async def _look_on(self) -> None:
        while self._look is not None:
            await asyncio.sleep(LOOK_SECONDS)
            if not self._watched:
                continue
            try:
                found = list(await self._look(list(self._watched)))
            except Exception as error:  # noqa: BLE001 - the next look finds what this one missed
                log.info("the database was away for a look: %s", type(error).__name__)
                continue
            self._set([watched_id for watched_id, number in found if self._seen.get(watched_id) != number])
            self._seen = {watched_id: number for watched_id, number in found if watched_id in self._watched}
