"""A large file of zeros that knows how much of it was read since it was last read from its start."""

from __future__ import annotations

import io
import os


class Counted(io.RawIOBase):
    """A large file that knows how much of it was read."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.position = self.read_bytes = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.position = self.read_bytes = offset
        return offset

    def read(self, size: int = -1) -> bytes:
        size = min(size, self.size_bytes - self.position)
        self.position += size
        self.read_bytes += size
        return bytes(size)
