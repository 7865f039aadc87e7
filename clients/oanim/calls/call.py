"""What a call is before it is made: where it goes, what it says, and how long it may take.

The idempotency key is made here, once: a call that is repeated is the same object.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from oanim.channels import PACKAGE
from oanim.keys import new_key

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from oanim.chunks import Content, Measured
    from oanim.errors import OanimError

Answer = TypeVar("Answer", bound=Message)


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """A call with one request. `timeout_s` None is the client's default; infinity is none."""

    method: str
    request: Message
    answer: type[Answer]
    timeout_s: float | None

    @property
    def path(self) -> str:
        """The method as it stands in the HTTP/2 request."""
        return f"/{PACKAGE}.{self.method}"

    @property
    def idempotency_key(self) -> str:
        """What names this attempt; empty for a call that needs no name."""
        return getattr(self.request, "idempotency_key", "")


@dataclass(frozen=True, slots=True)
class StreamedCall(Call[Answer]):
    """A call whose answers stream in.

    With `is_news` a broken stream is taken up again: it tells, from the last message handed on and the
    present one, whether the present one is to be handed on, too. `on_break` is told before that, why the
    stream broke and for how many seconds nothing has come since; what it raises ends the call.
    """

    is_news: Callable[[Answer | None, Answer], bool] | None = None
    on_break: Callable[[OanimError, float], object] | None = None


@dataclass(frozen=True, slots=True)
class DownloadCall(StreamedCall[Answer]):
    """A call whose answers are a file, kept at `target` when its SHA-256 is the one that was said.

    `sha256` None is what the first answer says it is.
    """

    target: str | os.PathLike[str] = ""
    sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class UploadCall(Generic[Answer]):
    """A call that streams a content up, in messages that `piece` makes.

    With `first`, which makes the message that goes ahead, the content can be read again, and an upload that
    breaks off begins anew.
    """

    method: str
    content: Content
    piece: Callable[[bytes], Message]
    answer: type[Answer]
    timeout_s: float
    first: Callable[[Measured], Message] | None = None
    idempotency_key: str = ""

    @property
    def path(self) -> str:
        """The method as it stands in the HTTP/2 request."""
        return f"/{PACKAGE}.{self.method}"


def key_or_new(idempotency_key: str | None) -> str:
    """Answer the caller's key, or a new one."""
    return new_key() if idempotency_key is None else idempotency_key


def one_of(**members: object) -> dict[str, Any]:
    """Answer the one argument that is given; raises TypeError when more are: the request has room for one."""
    given = {name: value for name, value in members.items() if value is not None}
    if len(given) > 1:
        raise TypeError(f"give only one of {' and '.join(given)}")
    return given


def timestamp(value: datetime | Timestamp | None) -> Timestamp | None:
    """Turn a datetime with a time zone into a Timestamp."""
    if not isinstance(value, datetime):
        return value
    if value.tzinfo is None:
        raise ValueError("a datetime without a time zone could be any instant; give it one")
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp
