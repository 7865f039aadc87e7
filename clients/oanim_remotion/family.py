"""The processes that descend from one, wherever they went: a browser leaves the group it was started in."""

from __future__ import annotations

import subprocess
from pathlib import Path

_PROC = Path("/proc")


def descendants(pid: int) -> list[int]:
    """Every process below this one, parents before their children."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents():
        children.setdefault(parent, []).append(child)
    found, waiting = [], [pid]
    while waiting:
        below = children.pop(waiting.pop(), [])
        found += below
        waiting += below
    return found


def memory_bytes(pids: list[int]) -> int:
    """What these processes occupy together, memory that several share counted once; 0 where nobody tells."""
    return sum(_memory_bytes(pid) for pid in pids)


def _parents() -> list[tuple[int, int]]:
    if not (_PROC / "self" / "stat").exists():
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid="], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
        )
        pairs = [line.split() for line in listed.stdout.splitlines()]
        return [(int(pid), int(parent)) for pid, parent in pairs]
    found = []
    for path in _PROC.iterdir():
        if not path.name.isdecimal():
            continue
        try:
            status = (path / "stat").read_bytes()
        except OSError:
            # It has ended meanwhile.
            continue
        # The second field is the name in parentheses, which may hold anything; the parent is the fourth.
        found.append((int(path.name), int(status.rpartition(b")")[2].split()[1])))
    return found


def _memory_bytes(pid: int) -> int:
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_bytes().splitlines()
    except OSError:
        return 0
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith((b"Pss:", b"SwapPss:"))]
    return sum(kilobytes) * 1024
