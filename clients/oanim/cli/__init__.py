"""The command `oanim`: starts the program, and turns whatever ends it into one sentence and an exit code.

Nothing but what ends a command well is imported before `main` runs, and then click alone; grpc, httpx, rich
and yaml are imported by the command that needs them, because starting is most of what a command does.
"""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING

from oanim.cli.interruption import interruption

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

_INTERRUPTED = 130
_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `oanim` and exit."""
    try:
        interruption.listen()
        _open_streams()
        if not sys.warnoptions:
            # They are for whoever works on oanim: what an interruption left undone, and the like.
            warnings.simplefilter("ignore")
        # What grpc's core has to say about connections is said by us, in a sentence.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        from oanim.cli.running import run

        code = run(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("oanim: interrupted.\n")
        code = _INTERRUPTED
    interruption.stop_listening()
    if code == _INTERRUPTED:
        _leave(code)
    sys.exit(code)


def _leave(code: int) -> NoReturn:
    """End without what an interpreter does first: grpc would wait there for a call that was half made."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


def _open_streams() -> None:
    for name, mode in _STREAMS:
        # A stream that was closed has its number free: the next file would get it, and what is printed.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115  (kept open)
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal cannot show must not end a command that has been paid for.
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
