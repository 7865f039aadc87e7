"""Reads a .tar.gz that a stranger made, entry by entry, in memory that nothing in it can grow.

`tarfile` reads what follows a header, whatever its length, before anyone may look at it, and `gzip` takes any
number of empty members; so here one member is inflated piece by piece, and the standard library parses single
headers alone.
"""

from __future__ import annotations

import tarfile
import zlib
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from oanim_remotion.contents import MAX_NAME_BYTES, BundleRefused, Contents

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK_BYTES = 512
_PIECE_BYTES = 1 << 16
# Between the end of a tar and the end of its file, writers fill up with zeros: to 10,240 bytes, as a rule.
_MAX_PADDING_BYTES = 1 << 20
_END = bytes(_BLOCK_BYTES)
_GZIP = 16 + zlib.MAX_WBITS
_FIELDS_WITH_TEXT = (slice(0, 100), slice(157, 257), slice(265, 297), slice(297, 329), slice(345, 500))

_REFUSED_TYPES = {
    tarfile.SYMTYPE: "it is a symbolic link",
    tarfile.LNKTYPE: "it is a hard link",
    tarfile.CHRTYPE: "it is a device",
    tarfile.BLKTYPE: "it is a device",
    tarfile.FIFOTYPE: "it is a pipe",
}


class Entry(NamedTuple):
    """A file or a folder, by its checked name, parts parted by slashes."""

    name: str
    is_folder: bool
    size_bytes: int


class Archive:
    """An archive that is read once, from its start."""

    def __init__(self, file: BinaryIO, contents: Contents) -> None:
        self._inflated = _Inflated(file)
        self._contents = contents

    def entries(self) -> Iterator[tuple[Entry, Iterator[bytes]]]:
        """Yield each entry with the pieces of its content; what a caller leaves of them is read over.

        Raises BundleRefused for an entry before it is yielded, and for a torn archive where it is torn.
        """
        long_name = ""
        while (block := self._block(long_name)) != _END:
            header = _header(block, long_name)
            if header.type == tarfile.GNUTYPE_LONGNAME:
                if long_name:
                    raise BundleRefused(long_name, "it has two names")
                long_name = self._long_name(header)
                continue
            entry = _entry(header, long_name)
            long_name = ""
            self._contents.take(entry.name, size_bytes=entry.size_bytes, is_folder=entry.is_folder)
            pieces = self._pieces(entry)
            yield entry, pieces
            for _left in pieces:
                pass
        if long_name:
            raise BundleRefused(long_name, "the archive ends before it")
        if self._block("") != _END:
            raise BundleRefused("", "the archive goes on after its end")
        self._inflated.expect_zeros_to_the_end()

    def _block(self, name: str) -> bytes:
        return self._inflated.exactly(_BLOCK_BYTES, name)

    def _long_name(self, header: tarfile.TarInfo) -> str:
        # With the zero byte that ends it.
        if not 1 < header.size <= MAX_NAME_BYTES + 1:
            raise BundleRefused("", f"a name is longer than {MAX_NAME_BYTES:,} bytes, or empty")
        content = self._inflated.exactly(header.size, "")
        self._inflated.exactly(_padding(header.size), "")
        try:
            return content.removesuffix(b"\0").decode()
        except UnicodeDecodeError as error:
            raise BundleRefused(content.decode(errors="replace"), "its name is not UTF-8") from error

    def _pieces(self, entry: Entry) -> Iterator[bytes]:
        left = entry.size_bytes
        while left:
            piece = self._inflated.exactly(min(left, _PIECE_BYTES), entry.name)
            left -= len(piece)
            yield piece
        self._inflated.exactly(_padding(entry.size_bytes), entry.name)


class _Inflated:
    """The bytes within one gzip member, which is all that the file may hold."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inflater = zlib.decompressobj(_GZIP)
        self._ready = b""
        self._position = 0
        self._pending = b""

    def exactly(self, size_bytes: int, name: str) -> bytes:
        """Read so many bytes; `name` is what a file that ends too early is torn in."""
        while len(self._ready) - self._position < size_bytes:
            more = self._more(name)
            if not more:
                raise BundleRefused(name, "the archive is torn off here")
            self._ready = self._ready[self._position :] + more
            self._position = 0
        start, self._position = self._position, self._position + size_bytes
        return self._ready[start : self._position]

    def expect_zeros_to_the_end(self) -> None:
        """Read to the end, where gzip keeps its checksum, over zeros alone."""
        padding_bytes = 0
        more = self._ready[self._position :] or self._more("")
        while more:
            padding_bytes += len(more)
            if more.strip(b"\0") or padding_bytes > _MAX_PADDING_BYTES:
                raise BundleRefused("", "the archive goes on after its end")
            more = self._more("")
        if not self._inflater.eof:
            raise BundleRefused("", "the archive is torn off at its end")
        if self._inflater.unused_data or self._file.read(1):
            raise BundleRefused("", "something follows the archive")

    def _more(self, name: str) -> bytes:
        """Inflate at most one piece; nothing at the end of the member, or of a file that is torn."""
        while not self._inflater.eof:
            compressed = self._pending or self._file.read(_PIECE_BYTES)
            try:
                piece = self._inflater.decompress(compressed, _PIECE_BYTES)
            except zlib.error as error:
                raise BundleRefused(name, "it is no gzip file, or a damaged one") from error
            self._pending = self._inflater.unconsumed_tail
            if piece or not compressed:
                return piece
        return b""


def _header(block: bytes, long_name: str) -> tarfile.TarInfo:
    for field in _FIELDS_WITH_TEXT:
        text, _, rest = block[field].partition(b"\0")
        if rest.strip(b"\0"):
            name = long_name or text.decode(errors="replace")
            raise BundleRefused(name, "its header holds something after a zero byte")
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except UnicodeDecodeError as error:
        name = long_name or block[:100].rstrip(b"\0").decode(errors="replace")
        raise BundleRefused(name, "its name is not UTF-8") from error
    except tarfile.HeaderError as error:
        raise BundleRefused(long_name, "a header of the archive is damaged") from error


def _entry(header: tarfile.TarInfo, long_name: str) -> Entry:
    name = long_name or header.name
    is_folder = header.isdir()
    if is_folder:
        name = name.removesuffix("/")
    if not is_folder and header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise BundleRefused(name, _REFUSED_TYPES.get(header.type, "it is of a kind that no bundle has"))
    if header.size < 0 or (is_folder and header.size):
        raise BundleRefused(name, "its size cannot be")
    return Entry(name, is_folder, header.size)


def _padding(size_bytes: int) -> int:
    return -size_bytes % _BLOCK_BYTES
