"""A server's checkouts as a process of its own, to be killed at a step.

`python -m tests.checkout.serving DIALECT WHERE STRIPE_URL PORT [STEP]` prints `ready` and takes webhooks on
the port; each line on stdin is a JSON list, `["buy", ACCOUNT, KEY]` for fifty dollars or `["refund", ACCOUNT,
TOKEN, KEY]` for ten, and is answered by a line. STEP is `WHAT before` or `WHAT after`: this process kills
itself with -9 there, before or after a call of Stripe's, or before or after the commit in which WHAT is
written.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oanim_server.checkout import reconciling, rows
from oanim_server.checkout.receiving import Receiver
from oanim_server.checkout.stripe_api import Stripe
from oanim_server.checkout.values import Event, Standing
from oanim_server.database.engine import Database
from tests.checkout.house import Shop, buy, wanted

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = {"page": (Stripe, "open_page"), "refund": (Stripe, "refund"), "look": (Receiver, "look_again")}
WRITES = {
    "add": "add",
    "has_page": "has_page",
    "park": "keep",
    "credit": "keep",
    "reverse": "keep",
    "request": "add_request",
    "answer": "answered",
}
STEPS = [f"{what} {when}" for what in (*CALLS, *WRITES) for when in ("before", "after")]


def die() -> None:
    """Be killed."""
    os.kill(os.getpid(), signal.SIGKILL)


def be_killed(step: str) -> None:
    """Have this process end at a step."""
    what, when = step.split()
    if what in CALLS:
        _at_call(*CALLS[what], when)
    else:
        _at_commit(what, when)


def _at_call(owner: type, name: str, when: str) -> None:
    real = getattr(owner, name)

    @wraps(real)
    async def dying(*arguments: Any, **options: Any) -> Any:
        if when == "before":
            die()
        answer = await real(*arguments, **options)
        die()
        return answer

    setattr(owner, name, dying)


def _at_commit(what: str, when: str) -> None:
    armed: list[str] = []
    real_write: Callable[..., Any] = getattr(rows, WRITES[what])
    real_commit = Database.commit

    @wraps(real_write)
    def write(*arguments: Any, **options: Any) -> Any:
        if WRITES[what] != "keep" or what == _kept(arguments):
            armed.append(what)
        return real_write(*arguments, **options)

    def commit(self: Database, transaction: Any) -> None:
        if armed and when == "before":
            die()
        real_commit(self, transaction)
        if armed:
            die()

    setattr(rows, WRITES[what], write)
    Database.commit = commit  # type: ignore[method-assign]


def _kept(arguments: tuple[Any, ...]) -> str:
    event, standing = next((one, arguments[-1]) for one in arguments if isinstance(one, Event))
    if standing is Standing.PARKED:
        return "park"
    return "credit" if event.type.startswith("checkout") else "reverse"


def say(*words: object) -> None:
    """Tell the test."""
    sys.stdout.write(f"{json.dumps(words)}\n")
    sys.stdout.flush()


async def obey(shop: Shop) -> None:
    """Do what the test says, until it hangs up."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        order, account, *words = json.loads(line)
        if order == "buy":
            purchase, _ = await buy(shop.checkouts, account, 50, *words)
            say(*purchase)
        else:
            token, key = words
            purchase = await shop.checkouts.get(account, token)
            request, _ = await shop.checkouts.refunds.ask(wanted(purchase, 10, key))
            say(*request)


async def main(dialect: str, where: str, url: str, port: str, *step: str) -> None:
    """Serve."""
    if dialect == "sqlite":
        database = Database.open_sqlite(Path(where))
    else:
        database = Database.open_postgresql(where, unsafe=True)
    reconciling.POLL_SECONDS = 0.2
    for one in step:
        be_killed(one)
    shop = Shop(database, url, port=int(port))
    await shop.start()
    shop.checkouts.start()
    say("ready")
    await obey(shop)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
