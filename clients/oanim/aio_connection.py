"""Makes calls over one channel, for asyncio: what connection.py does, in the same order and words.

A cancelled task cancels its call and sees CancelledError, never an error of the SDK.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from oanim.chunks import chunks_async
from oanim.details import closed, error_of
from oanim.retries import Attempts, Deadline

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from google.protobuf.message import Message
    from grpc import aio

    from oanim.calls.call import Call, StreamedCall, UploadCall
    from oanim.chunks import Content

Answer = TypeVar("Answer", bound="Message")


class AsyncConnection:
    """An open channel, the key that goes with each call, and the default timeout."""

    def __init__(self, channel: aio.Channel, *, api_key: str, timeout_s: float, owns_channel: bool) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {api_key}"),) if api_key else ()
        self.timeout_s = timeout_s
        self._owns_channel = owns_channel
        self._closed = False

    async def close(self) -> None:
        """Close the channel; calls that are running are cancelled."""
        self._closed = True
        if self._owns_channel:
            await self._channel.close()

    async def unary(self, call: Call[Answer]) -> Answer:
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
                return await multicallable(
                    call.request, timeout=deadline.timeout_s(), metadata=self._metadata
                )
            except grpc.RpcError as failure:
                error = error_of(failure, idempotency_key=call.idempotency_key)
            pause_s = attempts.pause_s(error)
            if pause_s is None:
                raise error
            await asyncio.sleep(pause_s)

    async def stream(self, call: StreamedCall[Answer]) -> AsyncGenerator[Answer, None]:
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
                async for message in messages:
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
            pause_s = attempts.pause_before_repeating_s(error) if resumes else attempts.pause_s(error)
            if pause_s is None:
                raise error
            if resumes and call.on_break is not None:
                call.on_break(error, attempts.failing_for_s())
            await asyncio.sleep(pause_s)

    async def upload(self, call: UploadCall[Answer]) -> Answer:
        """Stream a content up, once: a content cannot be read twice."""
        self._require_open()
        reading = _Reading(call.content)
        multicallable = self._channel.stream_unary(
            call.path,
            request_serializer=_serialized,
            response_deserializer=call.answer.FromString,
        )
        messages = (call.piece(chunk) async for chunk in reading)
        try:
            return await multicallable(messages, timeout=call.timeout_s, metadata=self._metadata)
        except grpc.RpcError as failure:
            raise reading.failure or error_of(failure) from None
        except asyncio.CancelledError:
            # grpc.aio cancels the call, not the task, when reading fails.
            if reading.failure is None:
                raise
            raise reading.failure from None

    def both_ways(self, path: str, answer: type[Answer]) -> Any:
        """Open a stream both ways, without a time limit; what it sends is serialised already."""
        self._require_open()
        opening: Any = self._channel.stream_stream(path, response_deserializer=answer.FromString)
        return opening(metadata=self._metadata)

    def _require_open(self) -> None:
        if self._closed:
            raise closed()


class _Reading:
    """The chunks of a content, read by a task of grpc's, which would keep to itself why reading failed."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self.failure: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in chunks_async(self._content):
                yield chunk
        except Exception as failure:
            self.failure = failure
            raise


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()
