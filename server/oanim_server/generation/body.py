"""The body of a submit: the input as it was written, with the data URL of each upload where it is named.

Pictures are read and encoded while they are sent; the length is known before the first byte. Every file is
open before the submit is written down, so that nothing that was removed is found missing half way.
"""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Self

from oanim_server.generation import upload_rows
from oanim_server.generation.inputs import uploads_named

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from oanim_server.database.engine import Database
    from oanim_server.generation.uploads import Uploads

# A multiple of three: each piece is base64 without padding, but the last one.
_PIECE_BYTES = 3 * 65_536


class InputGoneError(Exception):
    """An upload that an input names is not there any more."""


class Body:
    """What is sent. An async context manager that holds the files, and the bytes as an async iterable."""

    def __init__(self, input_json: str, database: Database, uploads: Uploads) -> None:
        self._input_json = input_json
        self._database = database
        self._uploads = uploads
        self._files = ExitStack()
        self._parts: list[bytes | IO[bytes]] = []
        self.length = 0

    async def __aenter__(self) -> Self:
        """Open every file.

        :raises InputGoneError: when one is not there, or not whole.
        """
        try:
            await self._prepare()
        except BaseException:
            self._files.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            if isinstance(part, bytes):
                yield part
            else:
                while piece := await asyncio.to_thread(part.read, _PIECE_BYTES):
                    yield b64encode(piece)

    async def _prepare(self) -> None:
        text, end = self._input_json, 0
        named = uploads_named(text)
        ids = {upload.upload_id for upload in named}
        known = {}
        if ids:
            known = await self._database.read(lambda connection: upload_rows.named(connection, ids))
        for start, stop, upload_id in named:
            upload = known.get(upload_id)
            if upload is None:
                raise InputGoneError(upload_id)
            file = await asyncio.to_thread(self._open, upload_id, upload.size_bytes)
            self._add(f'{text[end:start]}"data:{upload.content_type};base64,'.encode())
            self._parts.append(file)
            self.length += (upload.size_bytes + 2) // 3 * 4
            self._add(b'"')
            end = stop
        self._add(text[end:].encode())

    def _open(self, upload_id: str, size_bytes: int) -> IO[bytes]:
        try:
            file = self._files.enter_context(self._uploads.path(upload_id).open("rb"))
        except FileNotFoundError:
            raise InputGoneError(upload_id) from None
        if os.fstat(file.fileno()).st_size != size_bytes:
            raise InputGoneError(upload_id)
        return file

    def _add(self, content: bytes) -> None:
        self._parts.append(content)
        self.length += len(content)
