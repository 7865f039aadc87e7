"""Looks at the pictures that a command works on, before anything is sent or spent."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oanim.cli.failures import USAGE, Failure

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 20 * 1024 * 1024
_LONGEST_MARK = 12


@dataclass(frozen=True, slots=True)
class Picture:
    """A file that holds a picture; `digest` is the SHA-256 of its content."""

    path: Path
    content_type: str
    size_bytes: int
    digest: str


def look_at(path: Path) -> Picture:
    """Recognise a picture by its content."""
    try:
        with path.open("rb") as file:
            content_type = _content_type(file.read(_LONGEST_MARK))
            size = file.seek(0, 2)
            if not content_type:
                raise Failure(f"{path} is neither PNG, JPEG nor WebP.", USAGE)
            if size > MAX_BYTES:
                raise Failure(f"{path} is larger than 20 MB, which is the most that is taken.", USAGE)
            file.seek(0)
            return Picture(path, content_type, size, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}.", USAGE) from error


def _content_type(start: bytes) -> str:
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if start.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "image/webp"
    return ""
