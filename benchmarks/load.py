"""The load generator, a process of its own: closed loops of unary calls, and calls at a given pace.

A closed loop has so many calls in flight and makes the next when one is answered; what is paced is sent at
its time whether or not the ones before were answered, and its latency counts from that time, so that a
server that stalls is not asked less. Requests are made before the clock starts. A call that is refused for
overload or for a rate is made again when the refusal says.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import grpc
import uvloop
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from grpc_status import rpc_status

from benchmarks.told import obey
from oanim.keys import new_key
from openanimate.metering.v1.wallet_service_pb2 import CommitRequest, ReserveRequest, ReserveResponse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Call: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"

ECHO = "/oanim.bench.Echo/Echo"
WALLET = "/openanimate.metering.v1.WalletService"
HELD_MICROS, CHARGED_MICROS = 2, 1
# Requests that are made beforehand, for each second of a slot; beyond them they are made as they are sent.
READY_A_SECOND = 10_000
DEADLINE_SECONDS = 60.0


class Taken(NamedTuple):
    """What became of a slot's calls: seconds of those that were answered, and of those that were refused."""

    answered: list[float]
    refused: list[float]
    failed: list[str]

    def told(self, elapsed: float, cpu: float, operations: int | None = None) -> dict[str, Any]:
        """As the end that tells is answered; `operations` where calls carry many."""
        count = len(self.answered) if operations is None else operations
        return {
            "operations": count,
            "refused": len(self.refused),
            "failed": len(self.failed),
            "failures": sorted(set(self.failed)),
            "a_second": count / elapsed,
            "p50_ms": percentile(self.answered, 50) * 1e3,
            "p99_ms": percentile(self.answered, 99) * 1e3,
            "refused_p99_ms": percentile(self.refused, 99) * 1e3,
            "client_cpu_seconds": cpu,
        }


def percentile(values: list[float], percent: int) -> float:
    """The value that so many percent do not exceed; 0 of none."""
    return sorted(values)[min(len(values) * percent // 100, len(values) - 1)] if values else 0.0


class Requests:
    """Reserves of some accounts, and the rest of the Commits that will follow, in bytes."""

    def __init__(self, accounts: list[str], count: int) -> None:
        self._accounts = accounts
        self._reserves = deque(self._reserve() for _ in range(count))
        self._charges = deque(_charge() for _ in range(count))

    def reserve(self) -> bytes:
        """A ReserveRequest."""
        return self._reserves.popleft() if self._reserves else self._reserve()

    def commit(self, held: bytes) -> bytes:
        """The CommitRequest of what a Reserve answered: two messages in a row are one of all fields."""
        reservation_id = ReserveResponse.FromString(held).reservation.reservation_id
        charge = self._charges.popleft() if self._charges else _charge()
        return CommitRequest(reservation_id=reservation_id).SerializeToString() + charge

    def _reserve(self) -> bytes:
        account_id = random.choice(self._accounts)
        return ReserveRequest(
            account_id=account_id, idempotency_key=new_key(), amount_micros=HELD_MICROS
        ).SerializeToString()


def _charge() -> bytes:
    return CommitRequest(idempotency_key=new_key(), amount_micros=CHARGED_MICROS).SerializeToString()


class Load:
    """Connections to a server, and what is sent over them. One slot at a time."""

    def __init__(self, address: str, token: str, accounts: list[str], connections: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(connections)]
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._accounts = accounts
        self._taken = Taken([], [], [])

    async def obey(self, what: str, *, hot: bool = False, **how: Any) -> dict[str, Any]:
        """Carry out an order: what to send, and how many at once or how often."""
        accounts = self._accounts[:1] if hot else self._accounts
        requests = Requests(accounts, int(how["seconds"] * READY_A_SECOND))
        self._taken = Taken([], [], [])
        cpu, began = time.process_time(), time.perf_counter()
        ways: dict[str, Callable[..., Awaitable[None]]] = {
            "echo": self._echoes,
            "pairs": self._pairs,
            "paced": self._paced,
        }
        await ways[what](requests, began=began, **how)
        return self._taken.told(time.perf_counter() - began, time.process_time() - cpu)

    async def _echoes(self, requests: Requests, *, began: float, seconds: float, in_flight: int) -> None:
        async def loop(channel: grpc.aio.Channel) -> None:
            echo: Call = channel.unary_unary(ECHO)
            while time.perf_counter() < began + seconds:
                await self._call(echo, requests.reserve())

        await self._together(loop, in_flight)

    async def _pairs(self, requests: Requests, *, began: float, seconds: float, in_flight: int) -> None:
        """Reserve and Commit in turn."""

        async def loop(channel: grpc.aio.Channel) -> None:
            reserve: Call = channel.unary_unary(f"{WALLET}/Reserve")
            commit: Call = channel.unary_unary(f"{WALLET}/Commit")
            while time.perf_counter() < began + seconds:
                held = await self._call(reserve, requests.reserve())
                if held is not None:
                    await self._call(commit, requests.commit(held))

        await self._together(loop, in_flight)

    async def _paced(self, requests: Requests, *, began: float, seconds: float, per_second: float) -> None:
        """Reserves at their times."""
        reserve: Call = self._channels[0].unary_unary(f"{WALLET}/Reserve")
        sent = []
        for number in range(int(seconds * per_second)):
            due = began + number / per_second
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            sent.append(asyncio.create_task(self._call(reserve, requests.reserve(), due, again=False)))
        await asyncio.gather(*sent)

    async def _together(self, loop: Callable[[grpc.aio.Channel], Awaitable[None]], count: int) -> None:
        await asyncio.gather(*[loop(self._channels[n % len(self._channels)]) for n in range(count)])

    async def _call(
        self, call: Call, request: bytes, due: float | None = None, *, again: bool = True
    ) -> bytes | None:
        """Make a call; None when it was refused or has failed."""
        began = time.perf_counter() if due is None else due
        try:
            answer = await call(request, metadata=self._metadata, timeout=DEADLINE_SECONDS)
        except grpc.aio.AioRpcError as error:
            took = time.perf_counter() - began
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                self._taken.failed.append(f"{error.code()}: {error.details()}")
                return None
            self._taken.refused.append(took)
            if again:
                await asyncio.sleep(_retry_seconds(error))
            return None
        self._taken.answered.append(time.perf_counter() - began)
        return answer


def _retry_seconds(error: grpc.aio.AioRpcError) -> float:
    status = rpc_status.from_call(error)  # type: ignore[arg-type] # it has what is asked for
    for detail in status.details if status is not None else ():
        if detail.Is(RetryInfo.DESCRIPTOR):
            return float(RetryInfo.FromString(detail.value).retry_delay.ToNanoseconds() / 1e9)
    return 0.0


async def _meet(
    address: str, token: str, accounts: list[str], connections: int
) -> Callable[..., Awaitable[dict[str, Any]]]:
    return Load(address, token, accounts, connections).obey


if __name__ == "__main__":
    uvloop.run(obey(_meet))
