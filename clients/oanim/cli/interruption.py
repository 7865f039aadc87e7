"""Takes Ctrl-C, and whatever else asks for an end, once: a second one would cut off what the first one says.

It must be cheap to import: until `listen` is called an interruption is a traceback.
"""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

# Whoever ends us gets what Ctrl-C gets: nothing half-written, and how to go on.
_ENDS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# What comes so soon after is the same wish. What comes later is another one: an exception that is raised
# anywhere may have got lost, and nobody must be unable to end a command.
_ONE_WISH_S = 1.0


class Interruption:
    """The wish that the command ends: KeyboardInterrupt, or a call where that would do harm."""

    def __init__(self) -> None:
        self._asked_at: float | None = None
        self._instead: Callable[[], object] | None = None

    def listen(self) -> None:
        """Take the signals that ask for an end."""
        for number in _ENDS:
            # What is ignored on purpose, as by nohup, stays ignored.
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(number, self._asked)

    def stop_listening(self) -> None:
        """Let nothing that comes from now on change the exit code."""
        for number in _ENDS:
            signal.signal(number, signal.SIG_IGN)

    @contextmanager
    def calls(self, instead: Callable[[], object]) -> Iterator[None]:
        """Call this, while the block runs, where KeyboardInterrupt would strike in the middle of anything."""
        self._instead = instead
        try:
            yield
        finally:
            self._instead = None

    def _asked(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._asked_at is not None and now - self._asked_at < _ONE_WISH_S:
            return
        self._asked_at = now
        if self._instead is None:
            raise KeyboardInterrupt
        self._instead()


interruption = Interruption()
