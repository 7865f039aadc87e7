"""Makes bundles as somebody would who means harm."""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def bundle_of(path: Path, *entries: tarfile.TarInfo | tuple[str, bytes]) -> Path:
    """Write an archive of entries, and of files given by name and content."""

    def add(archive: tarfile.TarFile) -> None:
        for given in entries:
            if isinstance(given, tarfile.TarInfo):
                archive.addfile(given, io.BytesIO(bytes(given.size)))
            else:
                name, content = given
                header = tarfile.TarInfo(name)
                header.size = len(content)
                archive.addfile(header, io.BytesIO(content))

    return written(path, add)


def written(path: Path, add: Callable[[tarfile.TarFile], None]) -> Path:
    """Write an archive with whatever a function adds to it."""
    with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT) as archive:
        add(archive)
    return path


def special(name: str, kind: bytes, *, link: str = "", size: int = 0) -> tarfile.TarInfo:
    """The header of something that is no plain file."""
    header = tarfile.TarInfo(name)
    header.type, header.linkname, header.size = kind, link, size
    return header


def of_blocks(path: Path, *blocks: bytes) -> Path:
    """Write an archive of raw blocks, its end included."""
    path.write_bytes(gzip.compress(b"".join(blocks)))
    return path


def header_block(name: str | bytes, *, size: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    """One raw header, with a name that `tarfile` would not write, and its checksum."""
    header = tarfile.TarInfo("placeholder")
    header.size, header.type = size, kind
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    encoded = name if isinstance(name, bytes) else name.encode()
    block[0:100] = encoded.ljust(100, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)
