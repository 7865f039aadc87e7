"""Runs the CLI as its users do: as a process of its own, in a home of its own, with or without a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

PROGRAM = str(Path(sys.executable).with_name("oanim"))
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    exit_code: int
    out: str
    err: str


@dataclass
class Cli:
    """A user: a home, a folder to work in, and variables."""

    home: Path
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("ANIMATE_", "OANIM_"))
        }
        return {**kept, "HOME": str(self.home), "TERM": "xterm", **self.variables}

    def run(self, *arguments: str, stdin: str = "") -> Ended:
        """Run a command to its end, without a terminal."""
        ended = subprocess.run(
            [PROGRAM, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment(),
            timeout=_PATIENCE_S,
            check=False,
            start_new_session=True,
        )
        assert "Traceback" not in ended.stderr
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def run_raw(self, *arguments: str) -> bytes:
        """Run a command that succeeds; its answer, byte for byte."""
        return subprocess.run(
            [PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            cwd=self.folder,
            env=self.environment(),
            timeout=_PATIENCE_S,
            check=True,
        ).stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command, whose end the caller sees to."""
        former = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(
                [PROGRAM, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=self.folder,
                env=self.environment(),
                start_new_session=True,
            )
        finally:
            signal.signal(signal.SIGINT, former)

    def on_terminal(self, command: list[str], *, typed: str = "", after: str = "") -> tuple[int, str]:
        """Run a command on a terminal of its own; `typed` is typed once `after` is to be read there."""
        environment = self.environment()
        child, terminal = pty.fork()
        if child == 0:
            os.chdir(self.folder)
            os.execvpe(command[0], command, environment)  # noqa: S606  (the whole point: no shell, this terminal)
        shown = b""
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            if typed and after.encode() in shown:
                os.write(terminal, typed.encode())
                typed = ""
            if not select.select([terminal], [], [], 0.1)[0]:
                continue
            try:
                piece = os.read(terminal, 65_536)
            except OSError:  # Linux's way to say that the other end is closed
                break
            if not piece:
                break
            shown += piece
        else:
            os.kill(child, signal.SIGKILL)
        os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode()


def line_of(process: subprocess.Popen[str], wanted: str) -> str:
    """Read standard error up to the line that holds what is wanted."""
    assert process.stderr
    for line in process.stderr:
        if wanted in line:
            return line
    raise AssertionError(f"{wanted!r} was never said")
