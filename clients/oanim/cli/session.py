"""Says which session a command belongs to, and what that session may spend.

A session is ANIMATE_SESSION_ID; else, on a controlling terminal, the boot, the session leader and its start;
else one machine, user and UTC day, which also stands in where a system does not show its processes under
/proc: a limit that is shared by more than was meant refuses too early, never too late.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

from oanim.cli.failures import USAGE, Failure
from oanim.cli.money import micros_of

LIMIT_VARIABLE = "ANIMATE_MAX_USD_PER_RUN"
SESSION_VARIABLE = "ANIMATE_SESSION_ID"
_PREFIX = "session:"
# What the contract allows a scope.
_MAX_SCOPE_BYTES = 64


@dataclass(frozen=True, slots=True)
class Session:
    """A spend scope's name, and its limit; None is no limit, and what is spent counts all the same."""

    scope: str
    limit_micros: int | None


def current() -> Session:
    """Read the session from where the command runs, and its limit from the environment."""
    return Session(scope=f"{_PREFIX}{_name()}", limit_micros=limit_micros())


def limit_micros() -> int | None:
    """Read ANIMATE_MAX_USD_PER_RUN; None when it is not set. An empty one is a mistake, not a permission."""
    text = os.environ.get(LIMIT_VARIABLE)
    if text is None:
        return None
    try:
        return micros_of(text)
    except ValueError as error:
        raise Failure(f"{LIMIT_VARIABLE} {error}, not {text!r}. Set it right, or unset it.", USAGE) from error


def _name() -> str:
    named = os.environ.get(SESSION_VARIABLE, "").strip()
    if named:
        return _fitting(named)
    return _of_terminal() or _of_day()


def _fitting(name: str) -> str:
    """Keep a name that a scope has room for; of any other, its hash."""
    content = os.fsencode(name)
    try:
        fits = len(content.decode()) > 0 and len(content) <= _MAX_SCOPE_BYTES - len(_PREFIX)
    except UnicodeDecodeError:
        fits = False
    return name if fits and name.isprintable() else f"id-{_hash(content)}"


def _of_terminal() -> str:
    leader = os.getsid(0)
    try:
        # The file can be opened only where there is a controlling terminal.
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        status = Path(f"/proc/{leader}/stat").read_bytes()
    except OSError:
        return ""
    # The second field is the program's name in parentheses, which may hold anything; the 22nd is the start.
    started = status.rpartition(b")")[2].split()[19]
    return f"tty-{_hash(boot.strip(), str(leader).encode(), started)}"


def _of_day() -> str:
    day = time.strftime("%Y-%m-%d", time.gmtime())
    return f"day-{day}-{_hash(_machine(), _user())}"


def _machine() -> bytes:
    try:
        return Path("/etc/machine-id").read_bytes().strip() or os.fsencode(platform.node())
    except OSError:
        return os.fsencode(platform.node())


def _user() -> bytes:
    return str(os.getuid()).encode() if hasattr(os, "getuid") else os.fsencode(getpass.getuser())


def _hash(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:24]
