"""Runs one command, and lets nothing of it survive: neither its own end, nor its caller's, nor a kill.

It runs as a process of its own. Standard input is the line to the caller: when that ends, however the caller
ended, so does everything that was started here. What is orphaned below comes to us instead of to init, so a
browser whose parent died is found as well.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

from oanim_remotion.family import descendants

_PR_SET_CHILD_SUBREAPER = 36
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PATIENCE_S = 10.0


def main() -> None:
    """Run the command that the arguments are; exit as it did, or with 128 and the signal that ended it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signals, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGCHLD, *_ENDS):
        # Handled, not ignored: what is ignored here would be ignored in what is started, too.
        signal.signal(number, lambda *_: None)
    code: int | None
    try:
        code = _followed(subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL), signals)
    except OSError as error:
        sys.stderr.write(f"{sys.argv[1]}: {error.strerror}\n")
        code = 127
    _end_everything()
    sys.exit(128 + signal.SIGKILL if code is None else code if code >= 0 else 128 - code)


def _followed(command: subprocess.Popen[bytes], signals: int) -> int | None:
    """Wait for the command's end, or for the caller's wish, which is None."""
    hung_up = sys.stdin.fileno()
    while command.poll() is None:
        ready, _, _ = select.select([hung_up, signals], [], [])
        if hung_up in ready or any(number in _ENDS for number in os.read(signals, 4096)):
            return None
    return command.returncode


def _end_everything() -> None:
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until and (left := descendants(os.getpid())):
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.02)


if __name__ == "__main__":
    main()
