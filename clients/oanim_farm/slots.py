"""The slots of a machine: one render each at a time, in a folder that no other render ever shares.

A slot is taken by a lock on a file, which the system lets go when its process ends, however that ends.
Whoever takes a slot, or finds one that nobody has, clears what is left in it.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOCK = ".lock"
# What a killed worker had started ends by itself, but not within the same instant.
_CLEARING_SECONDS = 15.0


class Slot:
    """A folder for one render."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def cleared(self) -> Iterator[Path]:
        """Give the folder, empty, and empty it again."""
        self.clear()
        self.folder.mkdir(mode=0o700)
        try:
            yield self.folder
        finally:
            self.clear()

    def clear(self) -> None:
        """Remove all that is there."""
        deadline = time.monotonic() + _CLEARING_SECONDS
        while self.folder.exists():
            shutil.rmtree(self.folder, ignore_errors=time.monotonic() < deadline)
            if self.folder.exists():
                time.sleep(0.05)


@contextmanager
def taken(folder: Path, count: int) -> Iterator[list[Slot]]:
    """Take so many slots in a folder that several workers may share, and clear those that nobody has."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as locks:
        slots: list[Slot] = []
        for number in itertools.count():
            if _lock(folder / f"{number}{_LOCK}", locks):
                slots.append(Slot(folder / str(number)))
            if len(slots) == count:
                break
        for slot in slots:
            slot.clear()
        _clear_abandoned(folder)
        yield slots


def _clear_abandoned(folder: Path) -> None:
    for lock in folder.glob(f"*{_LOCK}"):
        with ExitStack() as short:
            if lock.stem.isdecimal() and _lock(lock, short):
                Slot(folder / lock.stem).clear()


def _lock(path: Path, held: ExitStack) -> bool:
    """Lock a file, which is never removed: a lock on a removed file would keep nobody out."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held.callback(os.close, descriptor)
        return True
    os.close(descriptor)
    return False
