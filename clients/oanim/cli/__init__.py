"""The command `oanim`: starts the program, and turns whatever ends it into one sentence and an exit code.

Only click is imported to start with; grpc, httpx, rich and yaml are imported by the command that needs them,
because starting is most of what a command does.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from oanim.cli.failures import FAILED, explained
from oanim.cli.program import program
from oanim.cli.showing import say

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `oanim` and exit."""
    # What grpc's core has to say about connections is said by us, in a sentence.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal cannot show must not end a command that has been paid for.
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    for name in ("SIGTERM", "SIGHUP"):
        # Whoever ends us gets what Ctrl-C gets: nothing half-written, and how to go on.
        ends = getattr(signal, name, None)
        if ends is not None and signal.getsignal(ends) is signal.SIG_DFL:
            signal.signal(ends, signal.default_int_handler)
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = program.main(arguments, prog_name="oanim", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the answer has seen enough; the interpreter must not complain while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  (nothing ever shows a traceback)
        sentence, exit_code = explained(error)
        say(f"oanim: {sentence}")
        return exit_code
    return code if isinstance(code, int) else 0
