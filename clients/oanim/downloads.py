"""Keeps files that arrive: each is there whole, and is what was said of it, or is not there at all."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, BinaryIO, Generic, Protocol, TypeVar, cast

import grpc
from google.protobuf.message import Message

from oanim.errors import OanimError
from oanim.placing import whole

if TYPE_CHECKING:
    from oanim.calls.call import DownloadCall

Answer = TypeVar("Answer", bound=Message)


class _Piece(Protocol):
    """What the messages of every download have."""

    size_bytes: int
    chunk: bytes


class Arriving(Generic[Answer]):
    """A file that arrives in messages, the first of which says how long it is. Each method may block."""

    def __init__(self, call: DownloadCall[Answer]) -> None:
        self._expected_sha256 = call.sha256
        self._saving = whole(call.target)
        self._sha256 = hashlib.sha256()
        self._received_bytes = 0
        self._first: Answer | None = None
        self._file: BinaryIO | None = None

    def begin(self) -> None:
        """Find out whether the file can be written."""
        self._file = self._saving.__enter__()

    @property
    def has_begun(self) -> bool:
        """Whether anything arrived."""
        return self._first is not None

    def take(self, message: Answer) -> None:
        """Write what a message brings."""
        chunk = cast("_Piece", message).chunk
        if self._first is None:
            self._first = type(message)()
            self._first.CopyFrom(message)
            self._first.ClearField("chunk")
        if self._file is not None:
            self._sha256.update(chunk)
            self._received_bytes += self._file.write(chunk)

    def complete(self) -> Answer:
        """Give the file its name; answers the first message without its content."""
        if self._first is None:
            raise _damaged("nothing arrived")
        size_bytes = cast("_Piece", self._first).size_bytes
        if self._received_bytes != size_bytes:
            raise _damaged(f"{self._received_bytes} of {size_bytes} bytes arrived")
        said = getattr(self._first, "sha256", b"") if self._expected_sha256 is None else self._expected_sha256
        if self._sha256.digest() != said:
            raise _damaged("what arrived has another SHA-256 than was said")
        self._saving.__exit__(None, None, None)
        return self._first

    def discard(self, error: BaseException) -> None:
        """Leave nothing of it."""
        if self._file is not None:
            self._saving.__exit__(type(error), error, error.__traceback__)


def _damaged(what: str) -> OanimError:
    return OanimError(f"the file came damaged: {what}", code=grpc.StatusCode.DATA_LOSS)
