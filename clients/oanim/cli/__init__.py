"""The command `oanim`: starts the program, and turns whatever ends it into one sentence and an exit code.

Nothing but what ends a command well is imported before `main` runs, and then click alone; grpc, httpx, rich
and yaml are imported by the command that needs them, because starting is most of what a command does.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
# Whoever ends us gets what Ctrl-C gets: nothing half-written, and how to go on.
_ENDS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `oanim` and exit."""
    try:
        for number in _ENDS:
            # What is ignored on purpose, as by nohup, stays ignored.
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(number, _interrupt)
        _open_streams()
        # What grpc's core has to say about connections is said by us, in a sentence.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from oanim.cli.running import run

        code = run(arguments)
        # What asks for an end now comes after it.
        _ignore_ends()
    except KeyboardInterrupt:
        sys.stderr.write("oanim: interrupted.\n")
        code = 130
    sys.exit(code)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End what runs, once: a second Ctrl-C would only cut off what the first one has to say."""
    _ignore_ends()
    raise KeyboardInterrupt


def _ignore_ends() -> None:
    for number in _ENDS:
        signal.signal(number, signal.SIG_IGN)


def _open_streams() -> None:
    for name, mode in _STREAMS:
        # A stream that was closed has its number free: the next file would get it, and what is printed.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115  (kept open)
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal cannot show must not end a command that has been paid for.
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
