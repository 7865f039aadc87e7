"""Many operations over one stream, for threads: what aio_streams.py does for tasks.

A thread of the block opens the streams and reads them; a thread of grpc's, one a stream, asks for the next
message. Both, and the callers, share one lock. Each caller watches its own time.
"""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import grpc
from google.protobuf.message import Message

from oanim.calls import streams
from oanim.calls.described import described_by
from oanim.details import error_of
from oanim.errors import OanimError
from oanim.pipeline import Asked, Pipeline, cut_off, left

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from oanim.calls.streams import Piece, StreamMethod
    from oanim.connection import Connection

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer", bound=Message)

_LEAVING_S = 1.0


class _Sending:
    """The messages of one stream, as grpc asks for them."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.over = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        message = self._stream.next_message(self)
        if message is None:
            raise StopIteration
        return message


class Stream:
    """A block of operations over streams of one method, to be entered once; threads share it."""

    def __init__(self, connection: Connection, method: StreamMethod, *, timeout_s: float | None) -> None:
        self._connection = connection
        self._method = method
        self._timeout_s = connection.timeout_s if timeout_s is None else timeout_s
        self._pipeline = Pipeline()
        self._changed = threading.Condition()
        self._carrying = threading.Thread(target=self._carry, name="oanim-stream", daemon=True)
        self._call: Any = None
        self._inside = False

    def __enter__(self) -> Self:
        self._inside = True
        self._carrying.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._inside = False
            self._changed.notify_all()
            try:
                self._changed.wait_for(lambda: not self._pipeline.unanswered)
            except BaseException:
                # Interrupted: what is not answered by now is left to its keys.
                self._pipeline.fail(left())
                self._changed.notify_all()
                raise
        self._carrying.join(_LEAVING_S)
        call = self._call
        if call is not None:
            call.cancel()
        self._carrying.join(_LEAVING_S)

    def ask(self, piece: Piece[Answer]) -> Answer:
        """Send one operation with those that others ask for meanwhile, and answer as its call would."""
        timeout_s = self._timeout_s if piece.timeout_s is None else piece.timeout_s
        promise: Future[Answer] = Future()
        asked = Asked(piece, promise, time.monotonic() + timeout_s)
        with self._changed:
            if not self._inside or not self._carrying.is_alive():
                raise RuntimeError("a stream is used inside of its block")
            self._pipeline.add(asked)
            self._changed.notify_all()
        try:
            return promise.result(None if math.isinf(timeout_s) else timeout_s)
        except TimeoutError:
            with self._changed:
                self._pipeline.expire(asked)
                self._changed.notify_all()
            return promise.result()
        except OanimError:
            raise
        except BaseException:
            with self._changed:
                promise.cancel()
                self._pipeline.abandon(asked)
                self._changed.notify_all()
            raise

    def next_message(self, sending: _Sending) -> bytes | None:
        """Wait for the next message of a stream; None ends it."""
        with self._changed:
            while not sending.over:
                message = self._pipeline.take(time.monotonic())
                if message is not None:
                    return message
                if self._is_done():
                    return None
                at = self._pipeline.next_at()
                self._changed.wait(None if at is None else max(at - time.monotonic(), 0.0))
        return None

    def _carry(self) -> None:
        """Open one stream after another, while there is something to send and until the block ends."""
        try:
            while self._has_work():
                error = self._through_one()
                if error is None:
                    return
                self._pause(error)
        finally:
            with self._changed:
                self._pipeline.fail(left())
                self._changed.notify_all()

    def _has_work(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._pipeline.unanswered or not self._inside)
            return bool(self._pipeline.unanswered)

    def _through_one(self) -> OanimError | None:
        """Open a stream and use it until it ends: why it broke, or None at the end of the block."""
        sending = _Sending(self)
        try:
            self._call = self._connection.both_ways(self._method.path, self._method.answer, sending)
            for response in self._call:
                with self._changed:
                    self._pipeline.answer(response.outcomes, time.monotonic())
                    self._changed.notify_all()
        except grpc.RpcError as failure:
            error = error_of(failure)
        except OanimError as failure:
            error = failure
        else:
            error = cut_off()
        finally:
            with self._changed:
                sending.over = True
                done = self._is_done()
                self._changed.notify_all()
            call, self._call = self._call, None
            if call is not None:
                call.cancel()
        return None if done else error

    def _pause(self, error: OanimError) -> None:
        with self._changed:
            pause_s = self._pipeline.broke(error)
            self._changed.notify_all()
            if pause_s is not None:
                self._changed.wait_for(self._is_done, pause_s)

    def _is_done(self) -> bool:
        return not self._inside and not self._pipeline.unanswered


def _asked(
    build: Callable[Arguments, Piece[Answer]],
) -> Callable[Concatenate[Stream, Arguments], Answer]:
    def method(self: Stream, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        return self.ask(build(*args, **kwargs))

    return described_by(build, method, returns="{}")


class MeterStream(Stream):
    """A Meter stream; made by `Client.meter`."""

    reserve = _asked(streams.reserve)
    commit = _asked(streams.commit)
    release = _asked(streams.release)


class UsageStream(Stream):
    """A StreamUsage stream; made by `Client.stream_usage`."""

    report = _asked(streams.report)
    event = _asked(streams.event)
