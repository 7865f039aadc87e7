"""The load generator, a process of its own: closed loops of calls or streams, and what is sent at a pace.

A closed loop has so much in flight and sends the next when one is answered; after a refusal it waits for as
long as that says. What is paced is sent at its time whether or not the ones before were answered, and its
latency counts from that time, so that a server that stalls is not asked less.
"""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import grpc
import uvloop
from grpc_status import rpc_status

from benchmarks.requests import Metered, Unary
from benchmarks.streams import MeterStream
from benchmarks.taken import Taken, retry_seconds
from benchmarks.told import obey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Call: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"

ECHO = "/oanim.bench.Echo/Echo"
WALLET = "/openanimate.metering.v1.WalletService"
# What is made beforehand, for each second of a slot; more is made as it is sent.
CALLS_A_SECOND, METERED_A_SECOND = 10_000, 40_000
DEADLINE_SECONDS = 60.0


class Line(NamedTuple):
    """A connection and a key: what a loop speaks with."""

    channel: grpc.aio.Channel
    metadata: tuple[tuple[str, str], ...]


class Load:
    """Connections to a server, and what is sent over them. One slot at a time."""

    def __init__(self, address: str, tokens: list[str], accounts: list[str], connections: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 8 << 20)]
        self._lines = [
            Line(
                grpc.aio.insecure_channel(address, options=options),
                (("authorization", f"Bearer {tokens[number % len(tokens)]}"),),
            )
            for number in range(connections)
        ]
        self._accounts = accounts
        self._taken = Taken()
        self._ends = 0.0

    async def obey(self, what: str, seconds: float, *, hot: bool = False, **how: Any) -> dict[str, Any]:
        """Carry out an order: what to send for so many seconds, to one wallet where `hot`, and how."""
        ways: dict[str, Callable[..., Any]] = {
            "echo": self._echoes,
            "pairs": self._pairs,
            "paced": self._paced,
            "meter": self._meters,
            "paced meter": self._paced_meters,
        }
        self._taken = Taken()
        # What it sends is made here, what sends it is started below.
        carry_out = ways[what](self._accounts[:1] if hot else self._accounts, seconds, **how)
        # What was made must not be looked through while the clock runs: all calls would stop for 20 to 40 ms.
        gc.collect()
        gc.freeze()
        cpu, began = time.process_time(), time.perf_counter()
        self._ends = began + seconds
        await carry_out()
        return self._taken.told(time.perf_counter() - began, time.process_time() - cpu)

    # Unary calls ----------------------------------------------------------------------------------

    def _echoes(self, accounts: list[str], seconds: float, in_flight: int) -> Callable[[], Awaitable[None]]:
        requests = Unary(accounts, int(seconds * CALLS_A_SECOND))

        async def loop(line: Line) -> None:
            echo: Call = line.channel.unary_unary(ECHO)
            while time.perf_counter() < self._ends:
                await self._call(echo, line, requests.reserve())

        return lambda: self._together(loop, in_flight)

    def _pairs(self, accounts: list[str], seconds: float, in_flight: int) -> Callable[[], Awaitable[None]]:
        """Reserve and Commit in turn."""
        requests = Unary(accounts, int(seconds * CALLS_A_SECOND / 2))

        async def loop(line: Line) -> None:
            reserve: Call = line.channel.unary_unary(f"{WALLET}/Reserve")
            commit: Call = line.channel.unary_unary(f"{WALLET}/Commit")
            while time.perf_counter() < self._ends:
                held = await self._call(reserve, line, requests.reserve())
                if held is not None:
                    await self._call(commit, line, requests.commit(held))

        return lambda: self._together(loop, in_flight)

    def _paced(self, accounts: list[str], seconds: float, per_second: float) -> Callable[[], Awaitable[None]]:
        """Reserves at their times."""
        requests = Unary(accounts, int(seconds * per_second))
        calls: list[Call] = [line.channel.unary_unary(f"{WALLET}/Reserve") for line in self._lines]

        async def carry_out() -> None:
            began = time.perf_counter()
            sent = []
            for number in range(int(seconds * per_second)):
                due = began + number / per_second
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                made = self._call(calls[number % len(calls)], self._line(number), requests.reserve(), due)
                sent.append(asyncio.create_task(made))
            await asyncio.gather(*sent)

        return carry_out

    async def _call(self, call: Call, line: Line, request: bytes, due: float | None = None) -> bytes | None:
        """Make a call, `due` at a time where it is paced; None when it was refused or has failed."""
        began = time.perf_counter() if due is None else due
        try:
            answer = await call(request, metadata=line.metadata, timeout=DEADLINE_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                self._taken.failed.append(f"{error.code()}: {error.details()}")
                return None
            self._taken.refused.append(time.perf_counter() - began)
            if due is None:
                status = rpc_status.from_call(error)  # type: ignore[arg-type] # it has what is asked for
                await asyncio.sleep(retry_seconds(status))
            return None
        self._taken.answered.append(time.perf_counter() - began)
        return answer

    # Streams --------------------------------------------------------------------------------------

    def _meters(
        self, accounts: list[str], seconds: float, streams: int, size: int
    ) -> Callable[[], Awaitable[None]]:
        """Messages of so many operations, each stream as fast as it is answered."""
        opened = self._streams(accounts, seconds, streams, size)
        return lambda: self._all(stream(line).loop(self._ends) for line, stream in opened)

    def _paced_meters(
        self, accounts: list[str], seconds: float, streams: int, size: int, per_second: float
    ) -> Callable[[], Awaitable[None]]:
        """So many operations a second, the streams in turn."""
        opened = self._streams(accounts, seconds, streams, size)
        every = size * streams / per_second

        async def carry_out() -> None:
            began = time.perf_counter()
            await self._all(
                stream(line).paced(began + every * number / streams, self._ends, every)
                for number, (line, stream) in enumerate(opened)
            )

        return carry_out

    def _streams(
        self, accounts: list[str], seconds: float, streams: int, size: int
    ) -> list[tuple[Line, Callable[[Line], MeterStream]]]:
        ready = int(seconds * METERED_A_SECOND / size / streams) + 1

        def make() -> Callable[[Line], MeterStream]:
            messages = Metered(accounts, size, ready)
            return lambda line: MeterStream(
                line.channel.stream_stream(f"{WALLET}/Meter")(metadata=line.metadata), messages, self._taken
            )

        return [(self._line(number), make()) for number in range(streams)]

    # Together -------------------------------------------------------------------------------------

    def _line(self, number: int) -> Line:
        return self._lines[number % len(self._lines)]

    async def _together(self, loop: Callable[[Line], Awaitable[None]], count: int) -> None:
        await self._all(loop(self._line(number)) for number in range(count))

    @staticmethod
    async def _all(loops: Any) -> None:
        await asyncio.gather(*loops)


async def _meet(
    address: str, tokens: list[str], accounts: list[str], connections: int
) -> Callable[..., Awaitable[dict[str, Any]]]:
    return Load(address, tokens, accounts, connections).obey


if __name__ == "__main__":
    # As the server's.
    gc.set_threshold(50_000, 50, 100)
    uvloop.run(obey(_meet))
