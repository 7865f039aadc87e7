"""The load generator, a process of its own: closed loops of Reserve and Commit, or of echoes.

It is told what to do by one line of JSON on standard input and answers with one line of JSON; several
lines may follow each other, so that repetitions can be interleaved without starting it anew.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from typing import Any, TypeAlias

import grpc
import uvloop

from openanimate.metering.v1 import wallet_service_pb2 as wallet

Call: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"

ECHO = "/oanim.bench.Echo/Echo"
RESERVE = "/openanimate.metering.v1.WalletService/Reserve"
COMMIT = "/openanimate.metering.v1.WalletService/Commit"
CHANNELS = 4


def _key() -> str:
    """As the SDK's: 48 bits of time first, so that an index by key appends."""
    return f"{time.time_ns() // 1_000_000:012x}-{random.getrandbits(80):020x}"


class Load:
    """Calls from a number of loops at once, for a number of seconds."""

    def __init__(self, port: int, token: str, accounts: list[str]) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) for _ in range(CHANNELS)
        ]
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._accounts = accounts
        self._drawn = accounts
        self._seconds: list[float] = []
        self._failed = 0

    async def run(self, what: str, in_flight: int, seconds: float) -> dict[str, Any]:
        """Answer calls a second, their latencies, and this process's CPU. `hot` is one wallet for all."""
        self._seconds = []
        self._failed = 0
        cpu = time.process_time()
        began = time.perf_counter()
        self._drawn = self._accounts[:1] if what == "hot" else self._accounts
        loop = self._echo if what == "echo" else self._meter
        await asyncio.gather(*[loop(number, began + seconds) for number in range(in_flight)])
        elapsed = time.perf_counter() - began
        taken = sorted(self._seconds)
        return {
            "calls": len(taken),
            "failed": self._failed,
            "calls_per_second": len(taken) / elapsed,
            "p50_ms": taken[len(taken) // 2] * 1e3,
            "p99_ms": taken[len(taken) * 99 // 100] * 1e3,
            "client_cpu_us": (time.process_time() - cpu) / max(len(taken), 1) * 1e6,
        }

    async def _call(
        self, call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes], request: bytes
    ) -> bytes | None:
        began = time.perf_counter()
        try:
            answer = await call(request, metadata=self._metadata, timeout=60)
        except grpc.aio.AioRpcError as error:
            self._failed += 1
            print(error.code(), error.details(), file=sys.stderr)
            return None
        self._seconds.append(time.perf_counter() - began)
        return answer

    async def _echo(self, number: int, until: float) -> None:
        echo: Call = self._channels[number % CHANNELS].unary_unary(ECHO)
        request = self._reserve()
        while time.perf_counter() < until:
            await self._call(echo, request)

    async def _meter(self, number: int, until: float) -> None:
        channel = self._channels[number % CHANNELS]
        reserve: Call = channel.unary_unary(RESERVE)
        commit: Call = channel.unary_unary(COMMIT)
        while time.perf_counter() < until:
            held = await self._call(reserve, self._reserve())
            if held is None:
                continue
            reservation = wallet.ReserveResponse.FromString(held).reservation.reservation_id
            charge = wallet.CommitRequest(reservation_id=reservation, idempotency_key=_key(), amount_micros=1)
            await self._call(commit, charge.SerializeToString())

    def _reserve(self) -> bytes:
        return wallet.ReserveRequest(
            account_id=random.choice(self._drawn), idempotency_key=_key(), amount_micros=2
        ).SerializeToString()


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    told = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    load = Load(told["port"], os.environ["OANIM_BENCH_TOKEN"], told["accounts"])
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        print(json.dumps(await load.run(order["what"], order["in_flight"], order["seconds"])), flush=True)


if __name__ == "__main__":
    uvloop.run(_serve())
