"""Where bundles and videos are: large files under ids of our own, each there whole or not at all.

A file is on disk, its name too, before its id is answered; a row then names it. What a crash leaves has no
row, and the sweep removes it. The folder may be shared by all replicas.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import secrets
import time
from typing import TYPE_CHECKING, Protocol, TypeVar

from oanim_server.ledger.refusals import InvalidField
from oanim_server.rendering.refusals import ContentGone, StoreFull

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterable
    from pathlib import Path

T = TypeVar("T")

MAX_CHUNK_BYTES = 1 << 20
READ_BYTES = 256 * 1024
# A stream of tiny chunks costs a turn of a thread for so many bytes, not for each.
_WRITE_BYTES = 1 << 20
_SWEEP_MANY = 1_000
_PART = ".part"
_ID = re.compile(r"[0-9a-f]{32}")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Store(Protocol):
    """What rendering asks of a store."""

    async def receive(
        self,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int,
        sha256: bytes,
        check: Callable[[Path], Awaitable[None]] | None = None,
    ) -> str:
        """Keep a file as it comes; answers its id. Whatever else happens, nothing is left of it.

        :param size_bytes: how long it must be; not a byte more is taken.
        :param check: looks at the whole file before it is kept; what it raises ends this.
        :raises InvalidField: for another length or another SHA-256, or a chunk above 1 MB.
        :raises StoreFull: when there is no room.
        """

    def read(self, object_id: str) -> AsyncGenerator[bytes]:
        """A file, in chunks of at most 1 MB, no faster than they are taken; removing it does not end this.

        :raises ContentGone: when it is no longer there.
        """

    async def remove(self, object_ids: Iterable[str]) -> None:
        """Remove files; what is not there is no fault."""

    async def sweep(
        self, *, older_than_seconds: float, known: Callable[[list[str]], Awaitable[Collection[str]]]
    ) -> None:
        """Remove files that nobody names, and what a dead process left half-written.

        :param older_than_seconds: how long ago the last byte was written, at least: longer than anybody
            takes from there to the row that names the file.
        :param known: which of these ids, at most 1,000, have a row.
        """


class FolderStore:
    """A store in a folder, local or shared."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        _make(folder)

    async def receive(
        self,
        chunks: AsyncIterator[bytes],
        *,
        size_bytes: int,
        sha256: bytes,
        check: Callable[[Path], Awaitable[None]] | None = None,
    ) -> str:
        object_id = secrets.token_hex(16)
        incoming = Incoming(self._path(object_id))
        try:
            await _finished(incoming.open)
            await self._take(incoming, chunks, size_bytes)
            if incoming.digest() != sha256:
                raise InvalidField(field="chunk", description="the content has another SHA-256 than was said")
            await _finished(incoming.flush)
            if check:
                await check(incoming.part)
            await _finished(incoming.keep)
        except BaseException as error:
            await _finished(incoming.discard)
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                raise StoreFull from error
            raise
        return object_id

    async def read(self, object_id: str) -> AsyncGenerator[bytes]:
        try:
            file = await asyncio.to_thread(self._path(object_id).open, "rb", 0)
        except FileNotFoundError as error:
            raise ContentGone from error
        try:
            while chunk := await _finished(file.read, READ_BYTES):
                yield chunk
        finally:
            file.close()

    async def remove(self, object_ids: Iterable[str]) -> None:
        await asyncio.to_thread(_unlink, [self._path(object_id) for object_id in object_ids])

    async def sweep(
        self, *, older_than_seconds: float, known: Callable[[list[str]], Awaitable[Collection[str]]]
    ) -> None:
        names = await asyncio.to_thread(self._old, time.time() - older_than_seconds)
        parts = [name for name in names if name.endswith(_PART)]
        await asyncio.to_thread(_unlink, [self.folder / part for part in parts])
        whole = [name for name in names if not name.endswith(_PART)]
        for start in range(0, len(whole), _SWEEP_MANY):
            some = whole[start : start + _SWEEP_MANY]
            named = await known(some)
            await self.remove(name for name in some if name not in named)

    def _path(self, object_id: str) -> Path:
        if not _ID.fullmatch(object_id):
            raise ValueError(f"{object_id!r} is no id of an object")
        return self.folder / object_id

    async def _take(self, incoming: Incoming, chunks: AsyncIterator[bytes], size_bytes: int) -> None:
        """Write what comes, as long as it may be, and no shorter."""
        left = size_bytes
        waiting = bytearray()
        async for chunk in chunks:
            if len(chunk) > MAX_CHUNK_BYTES:
                raise InvalidField(field="chunk", description="it has more than 1 MB")
            left -= len(chunk)
            if left < 0:
                break
            waiting += chunk
            if len(waiting) >= _WRITE_BYTES:
                await _finished(incoming.write, waiting)
                waiting = bytearray()
        if left:
            compared = "more" if left < 0 else "less"
            raise InvalidField(
                field="chunk",
                description=f"the content's size is {compared} than the {size_bytes:,} bytes said",
            )
        await _finished(incoming.write, waiting)

    def _old(self, before: float) -> list[str]:
        found = []
        for entry in os.scandir(self.folder):
            with contextlib.suppress(FileNotFoundError):
                if _ID.fullmatch(entry.name.removesuffix(_PART)) and entry.stat().st_mtime < before:
                    found.append(entry.name)
        return found


class Incoming:
    """A file that is being written, under a name that says so. Its methods run in threads, one at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part = path.with_suffix(_PART)
        self._descriptor = -1
        self._sha256 = hashlib.sha256()

    def open(self) -> None:
        """Begin."""
        self._descriptor = os.open(self.part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, content: bytearray) -> None:
        """Add to the file."""
        self._sha256.update(content)
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def digest(self) -> bytes:
        """The SHA-256 of what was written."""
        return self._sha256.digest()

    def flush(self) -> None:
        """Have the content on disk."""
        os.fsync(self._descriptor)
        self._close()

    def keep(self) -> None:
        """Give the file its name, on disk, too."""
        self.part.rename(self.path)
        _sync_folder(self.path.parent)

    def discard(self) -> None:
        """Leave nothing, however far it came."""
        self._close()
        _unlink([self.part, self.path])

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


async def _finished(function: Callable[..., T], *arguments: object) -> T:
    """Run in a thread, and stay until that has ended, cancelled or not.

    Otherwise a cancelled upload would remove its file while the thread still gives it its name.
    """
    running = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        raise


def _make(folder: Path) -> None:
    """Make a folder that only its owner opens, and have its name on disk."""
    if not folder.exists():
        _make(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
