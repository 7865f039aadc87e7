"""Drives either client with the same words, so that one test holds for threads and for asyncio."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from oanim.aio import AsyncClient
from oanim.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Self

    from oanim.block import Readings
    from oanim.calls.call import StreamedCall

# What a block does, one after the other: use so much, raise, or call.
Step: TypeAlias = "int | BaseException | Callable[[], object]"

# An operation of a stream: its name and its arguments.
Operation: TypeAlias = tuple[str, dict[str, Any]]


class Driver(Protocol):
    """A client, its method named by a string and its answers handed back in one piece."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None: ...

    def call(self, name: str, **arguments: Any) -> Any: ...

    def collect(
        self, name: str, *, count: int | None = None, seen: Callable[[Any], object] = id, **arguments: Any
    ) -> list[Any]: ...

    def stream(self, call: StreamedCall[Any]) -> None: ...

    def metered(self, steps: Iterable[Step], **arguments: Any) -> Readings: ...

    def operate(self, stream: str, asked: Iterable[Operation], **options: Any) -> list[Any]: ...


class Threads:
    """Drives the sync client."""

    def __init__(self, url: str, api_key: str = "anim_key", **options: Any) -> None:
        self.client = Client(api_key, url=url, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the client."""
        self.client.close()

    def call(self, name: str, **arguments: Any) -> Any:
        """Make a call."""
        return getattr(self.client, name)(**arguments)

    def collect(
        self, name: str, *, count: int | None = None, seen: Callable[[Any], object] = id, **arguments: Any
    ) -> list[Any]:
        """Read a stream to its end, or so many messages, and tell `seen` each."""
        messages = []
        stream = getattr(self.client, name)(**arguments)
        for message in stream:
            messages.append(message)
            seen(message)
            if len(messages) == count:
                break
        stream.close()
        return messages

    def stream(self, call: StreamedCall[Any]) -> None:
        """Read a call to its end."""
        for _ in self.client.connection.stream(call):
            pass

    def metered(self, steps: Iterable[Step], **arguments: Any) -> Readings:
        """Run a metered block."""
        with self.client.metered(**arguments) as meter:
            for step in steps:
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, int):
                    meter.used(step)
                else:
                    step()
        return meter

    def operate(self, stream: str, asked: Iterable[Operation], **options: Any) -> list[Any]:
        """Ask for all in one block, a thread each; their answers, or their errors."""
        asked = list(asked)
        with ThreadPoolExecutor(len(asked)) as threads, getattr(self.client, stream)(**options) as opened:
            answers = [threads.submit(getattr(opened, name), **arguments) for name, arguments in asked]
            return [answer.exception() or answer.result() for answer in answers]


class Tasks:
    """Drives the asyncio client, in a loop of its own."""

    def __init__(self, url: str, api_key: str = "anim_key", **options: Any) -> None:
        self._runner = asyncio.Runner()
        self.client = self._runner.run(self._made(url, api_key, options))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._runner.close()

    def close(self) -> None:
        """Close the client."""
        self._runner.run(self.client.close())

    def call(self, name: str, **arguments: Any) -> Any:
        """Make a call."""
        return self._runner.run(getattr(self.client, name)(**arguments))

    def collect(
        self, name: str, *, count: int | None = None, seen: Callable[[Any], object] = id, **arguments: Any
    ) -> list[Any]:
        """Read a stream to its end, or so many messages, and tell `seen` each."""
        return self._runner.run(self._collected(name, count, seen, arguments))

    def stream(self, call: StreamedCall[Any]) -> None:
        """Read a call to its end."""
        self._runner.run(self._streamed(call))

    def metered(self, steps: Iterable[Step], **arguments: Any) -> Readings:
        """Run a metered block."""
        return self._runner.run(self._metered(steps, arguments))

    async def _made(self, url: str, api_key: str, options: dict[str, Any]) -> AsyncClient:
        return AsyncClient(api_key, url=url, **options)

    async def _collected(
        self, name: str, count: int | None, seen: Callable[[Any], object], arguments: dict[str, Any]
    ) -> list[Any]:
        messages = []
        stream = getattr(self.client, name)(**arguments)
        async for message in stream:
            messages.append(message)
            seen(message)
            if len(messages) == count:
                break
        await stream.aclose()
        return messages

    async def _streamed(self, call: StreamedCall[Any]) -> None:
        async for _ in self.client.connection.stream(call):
            pass

    async def _metered(self, steps: Iterable[Step], arguments: dict[str, Any]) -> Readings:
        async with self.client.metered(**arguments) as meter:
            for step in steps:
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, int):
                    await meter.used(step)
                else:
                    await asyncio.to_thread(step)
        return meter

    def operate(self, stream: str, asked: Iterable[Operation], **options: Any) -> list[Any]:
        """Ask for all in one block, a task each, in their order; their answers, or their errors."""
        return self._runner.run(self._operated(stream, asked, options))

    async def _operated(self, stream: str, asked: Iterable[Operation], options: dict[str, Any]) -> list[Any]:
        async with getattr(self.client, stream)(**options) as opened:
            answers = (getattr(opened, name)(**arguments) for name, arguments in asked)
            return await asyncio.gather(*answers, return_exceptions=True)
