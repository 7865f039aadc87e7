"""A server that is killed at a step: `python -m tests.rendering.serving STEP serve --json`.

STEP is `WHAT WHEN COUNT`: the process kills itself with -9 before or after WHAT happens, the COUNTth time.
WHAT is something done to a file, or the commit in which something is written. `none` lets it live. Leases
last LEASE_SECONDS of the environment, else three seconds.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import wraps
from typing import TYPE_CHECKING, Any

from oanim_server import __main__, app
from oanim_server.database.engine import Database
from oanim_server.ledger.values import SECOND
from oanim_server.rendering import holding, lease_rows, rows, submitting
from oanim_server.rendering.store import FolderStore, Incoming
from oanim_server.rendering.values import TIMES

if TYPE_CHECKING:
    from collections.abc import Callable

LEASE = int(os.environ.get("LEASE_SECONDS", "3")) * SECOND
# What is called, and who has it.
FILES: dict[str, tuple[Any, str]] = {
    "open": (Incoming, "open"),
    "flush": (Incoming, "flush"),
    "keep": (Incoming, "keep"),
    "check": (submitting, "check"),
}
REMOVE = "remove"
WRITES: dict[str, tuple[Any, str]] = {
    "add": (rows, "add"),
    "take": (lease_rows, "take"),
    "renew": (lease_rows, "renew"),
    "finish": (rows, "finish"),
    "give up": (lease_rows, "give_up"),
    "sweep": (lease_rows, "sweep"),
    "hold": (holding.Held, "write"),
    "release": (holding.Released, "write"),
}


class Step:
    """When to die."""

    def __init__(self, when: str, count: str) -> None:
        self._when = when
        self._left = int(count)

    def reached(self, when: str) -> None:
        """Be killed, if this is it."""
        if when == self._when:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def die_at(step: str) -> None:
    """Have this process end at a step."""
    what, when, count = step.rsplit(" ", 2)
    if what in FILES:
        _around(*FILES[what], Step(when, count))
    elif what == REMOVE:
        _around_coroutine(FolderStore, "remove", Step(when, count))
    else:
        _around_commit(*WRITES[what], Step(when, count))


def _around(owner: Any, name: str, step: Step) -> None:
    real: Callable[..., Any] = getattr(owner, name)

    @wraps(real)
    def dying(*arguments: Any, **options: Any) -> Any:
        step.reached("before")
        answer = real(*arguments, **options)
        step.reached("after")
        return answer

    setattr(owner, name, dying)


def _around_coroutine(owner: Any, name: str, step: Step) -> None:
    real: Callable[..., Any] = getattr(owner, name)

    @wraps(real)
    async def dying(*arguments: Any, **options: Any) -> Any:
        step.reached("before")
        answer = await real(*arguments, **options)
        step.reached("after")
        return answer

    setattr(owner, name, dying)


def _around_commit(owner: Any, name: str, step: Step) -> None:
    armed: list[bool] = []
    real_write: Callable[..., Any] = getattr(owner, name)
    real_commit = Database.commit

    @wraps(real_write)
    def write(*arguments: Any, **options: Any) -> Any:
        answer = real_write(*arguments, **options)
        # A look that found nothing is no step.
        if name not in ("take", "sweep") or (answer and (name == "take" or answer.offered)):
            armed.append(True)
        return answer

    def commit(self: Database, transaction: Any) -> None:
        if armed:
            step.reached("before")
        real_commit(self, transaction)
        if armed:
            armed.clear()
            step.reached("after")

    setattr(owner, name, write)
    Database.commit = commit  # type: ignore[method-assign]


if __name__ == "__main__":
    vars(app)["TIMES"] = TIMES._replace(lease=LEASE)
    if sys.argv[1] != "none":
        die_at(sys.argv[1])
    __main__.main(sys.argv[2:])
