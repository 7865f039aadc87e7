"""Runs Remotion's programs: line by line, within limits, and with nothing left behind, whatever ends it."""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oanim_remotion.errors import OutOfMemory, RenderFailed, Stopped, TimedOut
from oanim_remotion.family import descendants, memory_bytes

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping, Sequence

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_LINES_KEPT = 60
_LONGEST_LINE = 2_000
_LONGEST_UNBROKEN = 1 << 16
# A browser puts a socket some folders further down, and a socket's path has room for about 100 bytes.
_LONGEST_BASE, _SHORT_BASE = 42, "/tmp"  # noqa: S108  (what is made there is made by mkdtemp)
_LOOK_S = 0.2
_WEIGH_S = 1.0
_PATIENCE_S = 15.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What ends a program before its own end; None is no limit. `stop`, once set, ends it at once."""

    time_seconds: float | None = None
    memory_bytes: int | None = None
    stop: threading.Event | None = None


NO_LIMITS = Limits()


def run(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    limits: Limits = NO_LIMITS,
    on_line: Callable[[str], None] = lambda _line: None,
) -> None:
    """Run a command until it has ended well.

    Raises RenderFailed with the last lines of what it said when it ended otherwise, TimedOut, OutOfMemory and
    Stopped where a limit ended it. When this returns or raises, no process of it is left; should this process
    be killed, none is left either.
    """
    process = subprocess.Popen(
        [sys.executable, "-I", "-m", "oanim_remotion.supervisor", *command],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    said: deque[str] = deque(maxlen=_LINES_KEPT)
    try:
        for line in _lines(process, limits):
            said.append(line)
            on_line(line)
        code = process.wait()
    finally:
        _hang_up(process)
    if code:
        raise RenderFailed(tuple(said), exit_code=code)


@contextmanager
def scratch(environment: Mapping[str, str]) -> Iterator[Path]:
    """Give a folder for what a program leaves behind, and remove it with that.

    It is where TMPDIR says, of this environment or else of ours, unless that is too long for a browser.
    """
    usual = environment.get("TMPDIR") or tempfile.gettempdir()
    base = usual if len(usual) <= _LONGEST_BASE else _SHORT_BASE
    folder = Path(tempfile.mkdtemp(prefix="oanim-", dir=base))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lines(process: subprocess.Popen[bytes], limits: Limits) -> Iterator[str]:
    """Yield what is said until the last writer is gone; a limit that is passed raises."""
    assert process.stdout  # noqa: S101  (for the type: it is a pipe)
    started = weighed = time.monotonic()
    unbroken = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            readable = selector.select(_LOOK_S)
            now = time.monotonic()
            _keep_to(limits, elapsed=now - started)
            if limits.memory_bytes is not None and now - weighed >= _WEIGH_S:
                weighed = now
                _weigh(process.pid, limits.memory_bytes)
            if not readable:
                if process.poll() is not None:
                    return
                continue
            piece = os.read(process.stdout.fileno(), _LONGEST_UNBROKEN)
            *whole, unbroken = (unbroken + piece).replace(b"\r", b"\n").split(b"\n")
            yield from (_text(line) for line in whole if line.strip())
            if not piece:
                if unbroken.strip():
                    yield _text(unbroken)
                return
            # Whatever never ends its line is cut; the page that is rendered can make it as long as it likes.
            unbroken = unbroken[:_LONGEST_UNBROKEN]


def _text(line: bytes) -> str:
    return _COLOURS.sub("", line[:_LONGEST_LINE].decode(errors="replace")).strip()


def _keep_to(limits: Limits, *, elapsed: float) -> None:
    if limits.stop is not None and limits.stop.is_set():
        raise Stopped()
    if limits.time_seconds is not None and elapsed > limits.time_seconds:
        raise TimedOut(limits.time_seconds)


def _weigh(pid: int, limit_bytes: int) -> None:
    if memory_bytes(descendants(pid)) > limit_bytes:
        raise OutOfMemory(limit_bytes)


def _hang_up(process: subprocess.Popen[bytes]) -> None:
    """End the supervisor, and with it everything below, and wait until that is so."""
    assert process.stdin  # noqa: S101  (for the type: it is a pipe)
    assert process.stdout  # noqa: S101
    process.stdin.close()
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.returncode < 0:
        # It was killed itself, and could end nothing; what stayed in its group is left to us.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.stdout.close()
