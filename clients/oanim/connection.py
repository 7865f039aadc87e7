"""Makes calls over one channel, for threads: sends the key, repeats what may be, raises the SDK's errors.

aio.py does the same for asyncio; what both decide lives in retries.py and details.py.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from oanim.chunks import Reading, measured, rewind
from oanim.details import closed, error_of
from oanim.downloads import Arriving
from oanim.errors import OanimError
from oanim.retries import Attempts, Deadline

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from google.protobuf.message import Message

    from oanim.calls.call import Call, DownloadCall, StreamedCall, UploadCall

Answer = TypeVar("Answer", bound="Message")


class Connection:
    """An open channel, the key that goes with each call, and the default timeout."""

    def __init__(self, channel: grpc.Channel, *, api_key: str, timeout_s: float, owns_channel: bool) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {api_key}"),) if api_key else ()
        self.timeout_s = timeout_s
        self._owns_channel = owns_channel
        self._closed = False

    def close(self) -> None:
        """Close the channel; calls that are running end with an error."""
        self._closed = True
        if self._owns_channel:
            self._channel.close()

    def unary(self, call: Call[Answer]) -> Answer:
        """Make a call with one answer."""
        deadline = Deadline(self.timeout_s if call.timeout_s is None else call.timeout_s)
        attempts = Attempts(deadline)
        multicallable = self._channel.unary_unary(
            call.path,
            request_serializer=type(call.request).SerializeToString,
            response_deserializer=call.answer.FromString,
        )
        while True:
            self._require_open()
            try:
                return multicallable(call.request, timeout=deadline.timeout_s(), metadata=self._metadata)
            except grpc.RpcError as failure:
                error = error_of(failure, idempotency_key=call.idempotency_key)
            pause_s = attempts.pause_s(error)
            if pause_s is None:
                raise error
            time.sleep(pause_s)

    def stream(self, call: StreamedCall[Answer]) -> Generator[Answer, None, None]:
        """Make a call whose answers stream in, and take it up again where it breaks, if it may be."""
        deadline = Deadline(self.timeout_s if call.timeout_s is None else call.timeout_s)
        attempts = Attempts(deadline)
        former: Answer | None = None
        while True:
            self._require_open()
            messages = self._channel.unary_stream(
                call.path,
                request_serializer=type(call.request).SerializeToString,
                response_deserializer=call.answer.FromString,
            )(call.request, timeout=deadline.timeout_s(), metadata=self._metadata)
            try:
                for message in messages:
                    attempts.went_on()
                    if call.is_news is None or call.is_news(former, message):
                        former = message
                        yield message
            except grpc.RpcError as failure:
                error = error_of(failure, idempotency_key=call.idempotency_key)
            else:
                return
            finally:
                messages.cancel()
            resumes = former is not None and call.is_news is not None
            if former is None:
                pause_s = attempts.pause_before_opening_again_s(error)
            else:
                pause_s = attempts.pause_before_repeating_s(error) if resumes else None
            if pause_s is None:
                raise error
            if resumes and call.on_break is not None:
                call.on_break(error, attempts.failing_for_s())
            time.sleep(pause_s)

    def download(self, call: DownloadCall[Answer]) -> Answer:
        """Keep what streams in as a file, and begin anew where that breaks off."""
        deadline = Deadline(self.timeout_s if call.timeout_s is None else call.timeout_s)
        attempts = Attempts(deadline)
        while True:
            arriving = Arriving(call)
            try:
                return self._downloaded(replace(call, timeout_s=deadline.left_s()), arriving)
            except OanimError as error:
                # Before the first message the call was repeated already.
                pause_s = attempts.pause_before_transferring_anew_s(error) if arriving.has_begun else None
                if pause_s is None:
                    raise
            time.sleep(pause_s)

    def _downloaded(self, call: DownloadCall[Answer], arriving: Arriving[Answer]) -> Answer:
        try:
            arriving.begin()
            with closing(self.stream(call)) as messages:
                for message in messages:
                    arriving.take(message)
            return arriving.complete()
        except BaseException as error:
            arriving.discard(error)
            raise

    def upload(self, call: UploadCall[Answer]) -> Answer:
        """Stream a content up, and begin anew where that breaks off, if it can be read again."""
        deadline = Deadline(call.timeout_s)
        attempts = Attempts(deadline)
        first = None
        if call.first is not None:
            rewind(call.content)
            first = call.first(measured(call.content))
        while True:
            self._require_open()
            try:
                return self._uploaded(call, first, deadline.timeout_s())
            except OanimError as error:
                pause_s = attempts.pause_before_transferring_anew_s(error) if first else None
                if pause_s is None:
                    raise
            time.sleep(pause_s)

    def _uploaded(self, call: UploadCall[Answer], first: Message | None, timeout_s: float | None) -> Answer:
        multicallable = self._channel.stream_unary(
            call.path, request_serializer=_serialized, response_deserializer=call.answer.FromString
        )
        if first is not None:
            rewind(call.content)
        reading = Reading(call.content)
        messages = chain([] if first is None else [first], map(call.piece, reading))
        try:
            return multicallable(messages, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as failure:
            error = error_of(failure, idempotency_key=call.idempotency_key)
        finally:
            # An answer may come before all was sent; what reads a file then must not read into the next
            # attempt. A caller's own iterable may never end its present step, so nobody waits for that.
            if first is not None:
                reading.stop()
        raise reading.failure or error

    def both_ways(self, path: str, answer: type[Answer], messages: Iterator[bytes]) -> Any:
        """Open a stream both ways, without a time limit; what it sends is serialised already."""
        self._require_open()
        opening: Any = self._channel.stream_stream(path, response_deserializer=answer.FromString)
        return opening(messages, metadata=self._metadata)

    def _require_open(self) -> None:
        if self._closed:
            raise closed()


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()
