"""A process that is told what to do by lines of JSON and answers each with one: both ends of it.

What makes the load runs in a process of its own and is not started anew for each slot, so that repetitions
can be interleaved.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Told:
    """The end that tells: starts `python -m module` on entry and says hello to it."""

    def __init__(self, module: str, **hello: Any) -> None:
        self._module = module
        self._hello = hello

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.ask(**self._hello)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)

    def begin(self, **order: Any) -> None:
        """Tell it what to do, and do not wait."""
        if self._process.stdin is None:
            raise RuntimeError(f"{self._module} cannot be told")
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def end(self) -> Any:
        """Wait for the answer to what it was told."""
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            raise RuntimeError(f"{self._module} has ended")
        return json.loads(line)

    def ask(self, **order: Any) -> Any:
        """Tell it what to do; its answer."""
        self.begin(**order)
        return self.end()


async def obey(meet: Callable[..., Awaitable[Callable[..., Awaitable[Any]]]]) -> None:
    """The end that is told: `meet` takes the hello and answers what carries out orders."""
    loop = asyncio.get_running_loop()
    obeying: Callable[..., Awaitable[Any]] | None = None
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        answer: Any = None
        if obeying is None:
            obeying = await meet(**order)
        else:
            answer = await obeying(**order)
        print(json.dumps(answer), flush=True)
