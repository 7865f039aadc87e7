"""Keeps the CLI's own files in ~/.oanim: readable by their owner alone, replaced whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from oanim.cli.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator


def folder() -> Path:
    """Name the folder; it may not exist yet."""
    try:
        return Path.home() / ".oanim"
    except RuntimeError as error:
        raise Failure("there is no home folder to keep ~/.oanim in. Set HOME.") from error


def write(path: Path, content: bytes) -> None:
    """Replace a file in the folder, so that a crash leaves the old content or the new one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A link is followed, as whoever made it meant.
    path = path.resolve()
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(unfinished, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Keep every other process of this user out of what goes by this name, meanwhile."""
    import fcntl

    folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder() / f"{name}.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
