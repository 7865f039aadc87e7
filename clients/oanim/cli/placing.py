"""Writes files whole or not at all, and says beforehand, in a sentence, where one cannot be written."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from oanim import placing
from oanim.cli.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write that takes its name when the block ends well, and is gone when it does not."""
    refuse_what_is_no_file(path)
    with placing.whole(path) as file:
        yield file


@contextmanager
def placed(path: Path) -> Iterator[Path]:
    """Name a file for somebody to write, which takes its name in the same way."""
    refuse_what_is_no_file(path)
    with placing.placed(path) as unfinished:
        yield unfinished


def refuse_what_is_no_file(path: Path) -> None:
    """Refuse to write over anything but a file."""
    if path.exists() and not path.is_file():
        raise Failure(f"{path} is not a file; choose another --out.")


def prepare_folder(folder: Path) -> None:
    """Make a folder, and find out whether it can be written to, before anything is spent."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Failure(f"{folder} cannot be written to.")
