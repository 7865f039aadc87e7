"""Has files there whole or not at all.

A file appears under its name by a rename, when its last byte is on the disk: what breaks off before leaves
what was there untouched.
"""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file to write that takes its name when the block ends well, and is gone when it does not."""
    with placed(path) as unfinished, unfinished.open("xb") as file:
        yield file


@contextmanager
def placed(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Name a file for somebody to write, with the same ending; it takes its name as that of `whole` does."""
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    # A rename over a device or a pipe would put a file in its place.
    if target.exists() and not target.is_file():
        raise FileExistsError(f"{target} is there and is not a file")
    unfinished = target.with_name(
        f".{target.stem[:100]}.{secrets.token_hex(8)}.part{target.suffix[:100].lower()}"
    )
    try:
        yield unfinished
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
