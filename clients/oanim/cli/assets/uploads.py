"""Remembers which uploads an attempt used, so that repeating it with its key asks for the very same thing.

Without this a repetition would upload its pictures again, under new names, and be another request.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING

from oanim.cli import home

if TYPE_CHECKING:
    from pathlib import Path

# As long as the service remembers a refusal; an effect outlives it, its uploads do not.
_KEPT_S = 30 * 24 * 3600


def known(key: str) -> dict[str, str]:
    """Answer the upload of each picture, by the SHA-256 of its content, of an attempt."""
    try:
        uploads = json.loads(_path(key).read_bytes())
    except (OSError, ValueError):
        return {}
    return uploads if isinstance(uploads, dict) else {}


def remember(key: str, uploads: dict[str, str]) -> None:
    """Keep an attempt's uploads, and forget what is old."""
    path = _path(key)
    home.write(path, json.dumps(uploads).encode())
    for other in path.parent.glob("*.json"):
        if other.stat().st_mtime < time.time() - _KEPT_S:
            other.unlink(missing_ok=True)


def _path(key: str) -> Path:
    return home.folder() / "uploads" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
