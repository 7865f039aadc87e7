"""A process of psycopg connections, each in a closed loop of Reserve and Commit."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

import psycopg
import uvloop

from benchmarks.taken import Taken
from benchmarks.told import obey
from oanim.keys import new_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Connection = psycopg.AsyncConnection[tuple[Any, ...]]

LOCK = "SELECT balance_micros - held_micros FROM wallets WHERE wallet_id = %s FOR UPDATE"
HOLD = "INSERT INTO holds (wallet_id, idem_key, amount_micros) VALUES (%s, %s, %s) RETURNING hold_id"
HELD = "UPDATE wallets SET held_micros = held_micros + %s WHERE wallet_id = %s"
CHARGE = """
UPDATE holds SET charged_micros = %s WHERE hold_id = %s AND charged_micros IS NULL RETURNING amount_micros
"""
ENTRIES = (
    "INSERT INTO entries (hold_id, account, amount_micros) VALUES (%s, 'wallet', %s), (%s, 'revenue', %s)"
)
CHARGED = """
UPDATE wallets SET balance_micros = balance_micros - %s, held_micros = held_micros - %s WHERE wallet_id = %s
"""


async def reserve(connection: Connection, wallet_id: int, key: str, micros: int) -> int:
    """Hold an amount; the hold's id."""
    async with connection.transaction():
        [available] = await _one(connection, LOCK, wallet_id)
        if available < micros:
            raise RuntimeError("the wallet of the benchmark's is empty")
        [hold_id] = await _one(connection, HOLD, wallet_id, key, micros)
        await connection.execute(HELD, (micros, wallet_id))
    return int(hold_id)


async def commit(connection: Connection, wallet_id: int, hold_id: int, micros: int) -> None:
    """Charge a hold, and free the rest."""
    async with connection.transaction():
        await _one(connection, LOCK, wallet_id)
        [held] = await _one(connection, CHARGE, micros, hold_id)
        await connection.execute(ENTRIES, (hold_id, -micros, hold_id, micros))
        await connection.execute(CHARGED, (micros, held, wallet_id))


async def _one(connection: Connection, statement: str, *values: object) -> tuple[Any, ...]:
    found = await (await connection.execute(statement, values)).fetchone()
    if found is None:
        raise RuntimeError("a row of the benchmark's is not there")
    return found


async def _meet(url: str, connections: int) -> Callable[..., Awaitable[dict[str, Any]]]:
    opened = [await psycopg.AsyncConnection.connect(url, autocommit=True) for _ in range(connections)]

    async def carry_out(wallets: int, seconds: float) -> dict[str, Any]:
        taken = Taken()
        cpu, began = time.process_time(), time.perf_counter()

        async def loop(connection: Connection) -> None:
            while (start := time.perf_counter()) < began + seconds:
                wallet_id = random.randint(1, wallets)
                hold_id = await reserve(connection, wallet_id, new_key(), 2)
                held = time.perf_counter()
                await commit(connection, wallet_id, hold_id, 1)
                taken.answered.extend((held - start, time.perf_counter() - held))

        await asyncio.gather(*map(loop, opened))
        return taken.told(time.perf_counter() - began, time.process_time() - cpu)

    return carry_out


if __name__ == "__main__":
    uvloop.run(obey(_meet))
