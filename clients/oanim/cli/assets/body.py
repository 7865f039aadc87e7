"""Writes the input that goes straight to fal.ai: JSON with each picture in it as a data URL.

A picture is read and encoded while it is sent: only a piece of it is ever in memory.
"""

from __future__ import annotations

import base64
import json
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from oanim.cli.assets.pictures import Picture
    from oanim.cli.assets.work import Asked

# A multiple of 3, so that the pieces' base64 put together is the whole's.
_PIECE_BYTES = 192 * 1024


class Body:
    """The input of one submit; `length` is its size in bytes."""

    def __init__(self, asked: Asked) -> None:
        # Marks that no prompt contains stand where the pictures go.
        mark = f"picture-{secrets.token_hex(16)}-"
        text = asked.write_input([f"{mark}{number:04}" for number in range(len(asked.pictures))])
        first, *rest = text.split(mark)
        # Each picture goes before the text that follows its mark, in whatever order the input has them.
        self._first = first.encode()
        self._rest = [(asked.pictures[int(part[:4])], part[4:].encode()) for part in rest]
        self.length = len(self._first) + sum(
            len(_prefix(picture)) + _encoded_bytes(picture.size_bytes) + len(after)
            for picture, after in self._rest
        )

    async def pieces(self) -> AsyncIterator[bytes]:
        """Read the pictures and write the body, once more for each call."""
        yield self._first
        for picture, after in self._rest:
            yield _prefix(picture)
            with picture.path.open("rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    yield base64.b64encode(piece)
            yield after


def fingerprint(asked: Asked) -> str:
    """Write what the work is, whatever the order of its fields, with each picture by its content."""
    text = asked.write_input([f"sha256:{picture.digest}" for picture in asked.pictures])
    return json.dumps([asked.model, json.loads(text)], sort_keys=True)


def _prefix(picture: Picture) -> bytes:
    return f"data:{picture.content_type};base64,".encode()


def _encoded_bytes(size: int) -> int:
    return -(-size // 3) * 4
