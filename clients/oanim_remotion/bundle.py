"""A bundle: what `npx remotion bundle` made, as one file that anyone may send and nobody need trust.

It is a .tar.gz of plain files and folders. `pack` writes it, the same bytes for the same folder; `check` and
`unpack` read it as what a stranger sent, and nothing that it says leads out of the folder that it is given.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import stat
import tarfile
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from oanim_remotion.archive import Archive
from oanim_remotion.contents import MAX_ENTRIES, MAX_UNPACKED_BYTES, BundleRefused, Contents

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oanim_remotion.archive import Entry

__all__ = [
    "MAX_ENTRIES",
    "MAX_UNPACKED_BYTES",
    "BundleRefused",
    "Checked",
    "Packed",
    "check",
    "pack",
    "unpack",
]

_PIECE_BYTES = 1 << 20


class Packed(NamedTuple):
    """A bundle as it lies there: its size, and the SHA-256 of its bytes in hexadecimal."""

    size_bytes: int
    sha256: str


class Checked(NamedTuple):
    """What a bundle unpacks to; `entries` counts files and folders, those that no entry names included."""

    entries: int
    unpacked_bytes: int


def pack(
    folder: Path,
    target: Path,
    *,
    max_unpacked_bytes: int = MAX_UNPACKED_BYTES,
    max_entries: int = MAX_ENTRIES,
) -> Packed:
    """Pack a folder into a file that `check` accepts; raises BundleRefused for what a bundle cannot hold.

    A link is packed as what it leads to: Remotion leaves links to a project's files in what it bundles.
    """
    contents = Contents(max_unpacked_bytes=max_unpacked_bytes, max_entries=max_entries)
    with target.open("w+b") as file:
        try:
            _write_all(folder, file, contents)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        size_bytes = file.tell()
        file.seek(0)
        return Packed(size_bytes, hashlib.file_digest(file, "sha256").hexdigest())


def check(
    path: Path, *, max_unpacked_bytes: int = MAX_UNPACKED_BYTES, max_entries: int = MAX_ENTRIES
) -> Checked:
    """Read a bundle to its end and write nothing; raises BundleRefused for the first thing that is wrong.

    Memory stays the same whatever is in it, and reading ends where a limit is passed, not later.
    """
    contents = Contents(max_unpacked_bytes=max_unpacked_bytes, max_entries=max_entries)
    with path.open("rb") as file:
        for _entry, pieces in Archive(file, contents).entries():
            for _piece in pieces:
                pass
    return Checked(contents.entries, contents.unpacked_bytes)


def unpack(
    path: Path,
    folder: Path,
    *,
    max_unpacked_bytes: int = MAX_UNPACKED_BYTES,
    max_entries: int = MAX_ENTRIES,
) -> Checked:
    """Unpack a bundle into a folder that is made here and must not be there yet.

    What is wrong raises BundleRefused, as `check` does, and then no folder is left. Modes, owners and times
    are ours, whatever an entry says.
    """
    contents = Contents(max_unpacked_bytes=max_unpacked_bytes, max_entries=max_entries)
    folder.mkdir(mode=0o700)
    try:
        with path.open("rb") as file:
            for entry, pieces in Archive(file, contents).entries():
                _write(entry, pieces, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Checked(contents.entries, contents.unpacked_bytes)


def _write(entry: Entry, pieces: Iterator[bytes], folder: Path) -> None:
    """Write one entry. Its name was looked at part by part, and no link was ever made in the folder."""
    target = folder.joinpath(*entry.name.split("/"))
    try:
        if entry.is_folder:
            target.mkdir(parents=True, exist_ok=True)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            for piece in pieces:
                file.write(piece)
    except (FileExistsError, NotADirectoryError) as error:
        # Names that differ are the same to a file system that does not tell capitals from small letters.
        raise BundleRefused(entry.name, "this file system takes it for a name that came before") from error


def _write_all(folder: Path, file: BinaryIO, contents: Contents) -> None:
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as compressed,
        # PAX would put what does not fit a header into an entry of its own; GNU does so for names alone.
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8") as archive,
    ):
        for path, name in _walk(folder, "", (folder.resolve(),)):
            _add(archive, path, name, contents)


def _walk(folder: Path, prefix: str, above: tuple[Path, ...]) -> Iterator[tuple[Path, str]]:
    """Every path under a folder with its name in the archive, always in the same order."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        name = f"{prefix}{path.name}"
        yield path, name
        if path.is_dir():
            real = path.resolve()
            if real in above:
                raise BundleRefused(name, "it is a link to a folder that it is in")
            yield from _walk(path, f"{name}/", (*above, real))


def _add(archive: tarfile.TarFile, path: Path, name: str, contents: Contents) -> None:
    try:
        found = path.stat()
    except OSError as error:
        raise BundleRefused(name, f"it cannot be read: {error.strerror}") from error
    is_folder = stat.S_ISDIR(found.st_mode)
    if not is_folder and not stat.S_ISREG(found.st_mode):
        raise BundleRefused(name, "it is neither a file nor a folder")
    size_bytes = 0 if is_folder else found.st_size
    contents.take(name, size_bytes=size_bytes, is_folder=is_folder)
    header = tarfile.TarInfo(name)
    header.type, header.mode = (tarfile.DIRTYPE, 0o755) if is_folder else (tarfile.REGTYPE, 0o644)
    header.size = size_bytes
    if is_folder:
        archive.addfile(header)
        return
    with path.open("rb", buffering=_PIECE_BYTES) as file:
        archive.addfile(header, file)
