"""What a stream of operations knows: what waits to be sent, what is under way, and what is to be sent again.

streams.py and aio_streams.py carry its messages; nothing here waits or touches the network. Whatever is sent
again has the bytes it had the first time, its key among them, and keeps its place before all that came later.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from oanim import errors
from oanim.details import refusal_of, timed_out
from oanim.errors import OanimError
from oanim.retries import backoff_s, is_repeatable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from oanim.calls.streams import Piece

Answer = TypeVar("Answer", bound=Message)
Given_contra = TypeVar("Given_contra", contravariant=True)

MOST_OPERATIONS = 1_000
MOST_UNDER_WAY = 4
# The server takes a message of 1 MB; one of half of it leaves no line idle, either.
_MESSAGE_BYTES = 512 * 1024
_LARGEST_BYTES = 1 << 20
# How a stream ends that was cut off on its way, if no reason of the server's goes with it.
_CUT = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN})


class Promise(Protocol[Given_contra]):
    """Where an answer is put: a future of asyncio's or of concurrent.futures'."""

    def done(self) -> bool: ...

    def set_result(self, result: Given_contra, /) -> None: ...

    def set_exception(self, exception: Any, /) -> None: ...


class Asked(Generic[Answer]):
    """An operation that a caller waits for, until `deadline`."""

    __slots__ = ("deadline", "failures", "number", "piece", "promise", "refused", "sent")

    def __init__(self, piece: Piece[Answer], promise: Promise[Answer], deadline: float) -> None:
        self.piece = piece
        self.promise = promise
        self.deadline = deadline
        self.number = 0
        # Sent and not answered since.
        self.sent = False
        # Why it is to be asked again, and how often it was.
        self.refused: OanimError | None = None
        self.failures = 0


class _Chain:
    """The operations of a reservation since its `first` was refused for a while: they wait for that one."""

    __slots__ = ("again_at", "first", "waiting")

    def __init__(self, first: Asked[Any]) -> None:
        self.first = first
        self.waiting: list[Asked[Any]] = []
        # None while it is in the queue or under way again.
        self.again_at: float | None = None


class Pipeline:
    """The operations of one block; not safe for threads that do not share a lock."""

    def __init__(self) -> None:
        # All that somebody waits for, and what is under way all the same.
        self.unanswered: set[Asked[Any]] = set()
        self._queue: deque[Asked[Any]] = deque()
        self._queued_bytes = 0
        self._under_way: deque[list[Asked[Any]]] = deque()
        self._chains: dict[str | Asked[Any], _Chain] = {}
        self._asked = 0
        self._trouble: OanimError | None = None
        self._failures = 0

    def add(self, asked: Asked[Any]) -> None:
        """Queue an operation; raises TooLarge for one that no message has room for."""
        size = len(asked.piece.message)
        if size > _LARGEST_BYTES:
            raise errors.TooLarge(
                f"the operation has {size} bytes, and a message may have {_LARGEST_BYTES}",
                code=grpc.StatusCode.RESOURCE_EXHAUSTED,
                metadata={"limit_bytes": str(_LARGEST_BYTES)},
                idempotency_key=asked.piece.idempotency_key,
            )
        if len(self._queue) > 2 * len(self.unanswered) + MOST_OPERATIONS:
            self._forget()
        self._asked += 1
        asked.number = self._asked
        self.unanswered.add(asked)
        self._queue.append(asked)
        self._queued_bytes += size

    def take(self, now: float) -> bytes | None:
        """Answer the next message, or None while it is to fill.

        One goes out at once when nothing is under way; when something is, once it is full.
        """
        self._take_up(now)
        if len(self._under_way) >= MOST_UNDER_WAY or (self._under_way and not self._is_full()):
            return None
        message: list[Asked[Any]] = []
        size = 0
        while self._queue and len(message) < MOST_OPERATIONS:
            asked = self._queue[0]
            bytes_more = len(asked.piece.message)
            if message and size + bytes_more > _MESSAGE_BYTES:
                break
            self._queue.popleft()
            self._queued_bytes -= bytes_more
            if asked.promise.done():
                self._leave(asked)
            elif not self._waits_for_its_first(asked):
                asked.sent = True
                message.append(asked)
                size += bytes_more
        if not message:
            return None
        self._under_way.append(message)
        return b"".join([asked.piece.message for asked in message])

    def next_at(self) -> float | None:
        """Answer when there may be something to take without anything else happening."""
        return min(
            (chain.again_at for chain in self._chains.values() if chain.again_at is not None), default=None
        )

    def answer(self, outcomes: Sequence[Any], now: float) -> None:
        """Hand out the outcomes of the oldest message; raises Internal when they do not fit it."""
        if not self._under_way or len(outcomes) != len(self._under_way[0]):
            raise _out_of_step()
        read = [
            _read(asked.piece, outcome) for asked, outcome in zip(self._under_way[0], outcomes, strict=True)
        ]
        self._trouble, self._failures = None, 0
        for asked, answer in zip(self._under_way.popleft(), read, strict=True):
            asked.sent = False
            if asked.promise.done():
                self._leave(asked)
            elif not isinstance(answer, OanimError):
                asked.promise.set_result(answer)
                self._leave(asked)
            elif not self._is_asked_again(asked, answer, now):
                asked.promise.set_exception(answer)
                self._leave(asked)

    def broke(self, error: OanimError) -> float | None:
        """Note how a stream ended: for how long to pause before the next, or None where that ends all."""
        if not (is_repeatable(error) or (error.code in _CUT and not error.reason)):
            self.fail(error)
            return None
        self._trouble = error
        self._failures += 1
        self._first([asked for message in self._under_way for asked in message])
        self._under_way.clear()
        return max(backoff_s(self._failures), error.retry_after_s or 0.0)

    def fail(self, error: OanimError) -> None:
        """End all that is not answered."""
        for asked in self.unanswered:
            if not asked.promise.done():
                asked.promise.set_exception(error.of_operation(asked.piece.idempotency_key, sent=asked.sent))
        self.unanswered.clear()
        self._queue.clear()
        self._queued_bytes = 0
        self._under_way.clear()
        self._chains.clear()

    def expire(self, asked: Asked[Any]) -> None:
        """End the wait for an operation whose time is over."""
        if not asked.promise.done():
            asked.promise.set_exception(self.gave_up(asked))
        self._leave(asked)

    def abandon(self, asked: Asked[Any]) -> None:
        """Note that its caller is gone; what was sent stays under way."""
        if not asked.sent:
            self._leave(asked)

    def gave_up(self, asked: Asked[Any]) -> OanimError:
        """Say why there was no answer in time."""
        why = asked.refused or self._trouble
        key = asked.piece.idempotency_key
        if why is None or (asked.sent and not why.outcome_unknown):
            return timed_out(key)
        return why.of_operation(key, sent=asked.sent)

    def _is_full(self) -> bool:
        return len(self._queue) >= MOST_OPERATIONS or self._queued_bytes >= _MESSAGE_BYTES

    def _waits_for_its_first(self, asked: Asked[Any]) -> bool:
        chain = self._chains.get(asked.piece.chain)
        if chain is None or chain.first is asked:
            return False
        chain.waiting.append(asked)
        return True

    def _is_asked_again(self, asked: Asked[Any], refusal: OanimError, now: float) -> bool:
        """Whether a refused operation is sent once more.

        One that came after another of its reservation, which is still to be repeated, may have been refused
        for want of that one alone.
        """
        if self._waits_for_its_first(asked):
            return True
        if not is_repeatable(refusal):
            return False
        # A server that says when knows better than a guess.
        pause_s = refusal.retry_after_s or backoff_s(asked.failures + 1)
        if now + pause_s >= asked.deadline:
            return False
        asked.failures += 1
        asked.refused = refusal
        # Without a chain it is one of its own.
        chain = self._chains.setdefault(asked.piece.chain or asked, _Chain(asked))
        chain.again_at = now + pause_s
        return True

    def _take_up(self, now: float) -> None:
        """Queue what was refused for a while and has waited for it."""
        if not self._chains:
            return
        due = [
            chain for chain in self._chains.values() if chain.again_at is not None and chain.again_at <= now
        ]
        for chain in due:
            chain.again_at = None
        self._first(sorted((chain.first for chain in due), key=_number))

    def _first(self, again: Iterable[Asked[Any]]) -> None:
        """Queue before all others."""
        wanted = []
        for asked in again:
            if asked.promise.done():
                self._leave(asked)
            else:
                wanted.append(asked)
                self._queued_bytes += len(asked.piece.message)
        self._queue.extendleft(reversed(wanted))

    def _leave(self, asked: Asked[Any]) -> None:
        """Note that nothing more is to be done for an operation."""
        self.unanswered.discard(asked)
        if not self._chains:
            return
        name = asked.piece.chain or asked
        chain = self._chains.get(name)
        if chain is not None and chain.first is asked:
            del self._chains[name]
            self._first(sorted(chain.waiting, key=_number))

    def _forget(self) -> None:
        """Drop from the queue what nobody waits for: while the server is away, nothing takes it out."""
        self._queue = deque(asked for asked in self._queue if not asked.promise.done())
        self._queued_bytes = sum(len(asked.piece.message) for asked in self._queue)


def _number(asked: Asked[Any]) -> int:
    return asked.number


def _read(piece: Piece[Answer], outcome: Any) -> Answer | OanimError:
    member = outcome.WhichOneof("outcome")
    if member == "refused":
        try:
            return refusal_of(outcome.refused.status, idempotency_key=piece.idempotency_key)
        except DecodeError:
            raise _out_of_step() from None
    if member != piece.outcome:
        raise _out_of_step()
    # A copy: a part of a message keeps the whole message in memory.
    answer = piece.answer()
    answer.CopyFrom(getattr(outcome, member))
    return answer


def cut_off() -> OanimError:
    """Make the error of a stream that the server ended although more was to come."""
    return errors.Unavailable("the server ended the stream", code=grpc.StatusCode.UNAVAILABLE)


def left() -> OanimError:
    """Make the error of what was not answered when its block was left."""
    return OanimError("the block of the stream was left", code=grpc.StatusCode.CANCELLED)


def _out_of_step() -> OanimError:
    return errors.Internal("the server's answers do not fit what was asked", code=grpc.StatusCode.INTERNAL)
