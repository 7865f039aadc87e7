"""Following a generation to its end: what of it is worth a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim_server.generation.values import Ended, Event, Generation, Progress, Queued, Standing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def events(snapshots: AsyncIterator[Generation]) -> AsyncIterator[Event]:
    """What is worth a message, from the states of a generation; the last one is that it has ended."""
    said: Event | None = None
    async for generation in snapshots:
        event = _event(generation)
        if event is not None and event != said:
            yield event
        said = event


def _event(generation: Generation) -> Event | None:
    if generation.ended:
        return Ended(generation)
    if generation.standing is not Standing.RUNNING:
        return None
    if generation.queue_position is not None:
        return Queued(generation.queue_position)
    return Progress(generation.progress) if generation.submitted else None
