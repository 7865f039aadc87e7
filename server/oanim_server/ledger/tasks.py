"""Work beside the calls: what goes on when its caller hangs up, and what is done again and again."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from oanim_server.ledger.refusals import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

T = TypeVar("T")

log = logging.getLogger(__name__)


class Kept:
    """Tasks that end whether or not somebody waits for them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it; cancelling leaves it to itself."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    async def wait(self, seconds: float) -> None:
        """Wait until all of it is done, but not for ever: a database that hangs must not keep a stop."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that a refusal nobody waits for is no complaint


async def every(seconds: float, do: Callable[[], Awaitable[None]]) -> None:
    """Do it after each pause, whatever becomes of it; runs until it is cancelled."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await do()
        except Refusal as refusal:
            log.info("put off: %s", type(refusal).__name__)
        except Exception:
            log.exception("it is tried again in %s s", seconds)
