"""Uploaded inputs: taken piece by piece into a folder, kept until their job has ended, or 24 hours.

A file is whole and on disk before its row is there, and its row is gone before its file is: a row always has
its file. What a crash leaves is a file without a row, which the sweep removes. The folder is shared by all
replicas.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import time
from functools import partial
from typing import TYPE_CHECKING

from oanim_server.generation import upload_rows
from oanim_server.generation.refusals import InputTooLarge, UploadsFull
from oanim_server.generation.values import Upload
from oanim_server.ledger.refusals import InvalidField
from oanim_server.ledger.values import DAY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path
    from typing import IO

    from oanim_server.database.engine import Database
    from oanim_server.ledger.ledger import Ledger

MAX_UPLOAD_BYTES = 20_000_000
MAX_ACCOUNT_BYTES = 500_000_000
MAX_CHUNK_BYTES = 1 << 20
LIFETIME = DAY
# How old a file without a row is before nobody can be about to write the row.
ORPHAN_SECONDS = 3_600

_PART = ".part"
_ID = re.compile(r"[0-9a-f]{32}")
_HEAD_BYTES = 12


class Uploads:
    """The uploaded inputs of every account."""

    def __init__(self, folder: Path, database: Database, ledger: Ledger) -> None:
        self._folder = folder
        self._database = database
        self._ledger = ledger
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, upload_id: str) -> Path:
        """Where an upload's content is."""
        return self._folder / upload_id

    async def receive(self, account_id: int, chunks: AsyncIterator[bytes]) -> Upload:
        """Keep a picture, told by its content.

        :raises InvalidField: for other content, or a chunk above 1 MB.
        :raises InputTooLarge: above 20 MB.
        :raises UploadsFull: above 500 MB at a time in the account.
        """
        fits = partial(upload_rows.fits, account_id=account_id, size_bytes=0, most=MAX_ACCOUNT_BYTES)
        await self._database.read(fits)
        upload_id = secrets.token_hex(16)
        path = self.path(upload_id)
        part = path.with_suffix(_PART)
        try:
            content_type, size_bytes = await self._write(part, chunks)
            await asyncio.to_thread(_rename, part, path)
        finally:
            part.unlink(missing_ok=True)
        upload = Upload(upload_id, account_id, content_type, size_bytes, 0, 0)
        add = partial(upload_rows.add, upload=upload, lifetime=LIFETIME, most=MAX_ACCOUNT_BYTES)
        try:
            return await self._ledger.write(add)
        except UploadsFull:
            # After any other end the row may be there, and its file is the sweep's.
            path.unlink()
            raise

    async def remove_files(self, upload_ids: Iterable[str]) -> None:
        """Remove files whose rows are gone."""
        await asyncio.to_thread(_unlink, [self.path(upload_id) for upload_id in upload_ids])

    async def sweep(self) -> None:
        """Remove uploads after their time, and files that have no row."""
        for upload_id in await self._ledger.write(upload_rows.remove_expired):
            await self.remove_files([upload_id])
        found = await asyncio.to_thread(self._old_files)
        find = partial(upload_rows.known, upload_ids=[path.stem for path in found])
        known = await self._database.read(find)
        await asyncio.to_thread(_unlink, [path for path in found if path.stem not in known or path.suffix])

    async def _write(self, part: Path, chunks: AsyncIterator[bytes]) -> tuple[str, int]:
        """Write a file as it comes; answers its media type and its size."""
        size_bytes = 0
        head = b""
        with await asyncio.to_thread(part.open, "wb") as file:
            async for chunk in chunks:
                if len(chunk) > MAX_CHUNK_BYTES:
                    raise InvalidField(field="chunk", description="it has more than 1 MB")
                size_bytes += len(chunk)
                if size_bytes > MAX_UPLOAD_BYTES:
                    raise InputTooLarge(limit_bytes=MAX_UPLOAD_BYTES)
                if len(head) < _HEAD_BYTES:
                    head += chunk[:_HEAD_BYTES]
                    if len(head) >= _HEAD_BYTES:
                        content_type_of(head)
                await asyncio.to_thread(file.write, chunk)
            content_type = content_type_of(head)
            await asyncio.to_thread(_flush, file)
        return content_type, size_bytes

    def _old_files(self) -> list[Path]:
        before = time.time() - ORPHAN_SECONDS
        found = []
        for entry in os.scandir(self._folder):
            with contextlib.suppress(FileNotFoundError):
                if _ID.fullmatch(entry.name.removesuffix(_PART)) and entry.stat().st_mtime < before:
                    found.append(self._folder / entry.name)
        return found


def content_type_of(head: bytes) -> str:
    """The media type of a picture, by its first twelve bytes.

    :raises InvalidField: for what is none of those that are taken.
    """
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    raise InvalidField(field="chunk", description="the file must be a PNG, JPEG or WebP picture")


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _rename(part: Path, path: Path) -> None:
    part.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
