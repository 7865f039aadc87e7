"""Makes calls over one channel, for asyncio: what connection.py does, in the same order and words.

A cancelled task cancels its call and sees CancelledError, never an error of the SDK.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import grpc
from grpc import aio

from oanim.chunks import AsyncReading, measured, rewind
from oanim.details import closed, error_of
from oanim.downloads import Arriving
from oanim.errors import OanimError, Unavailable
from oanim.retries import Attempts, Deadline

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine

    from google.protobuf.message import Message

    from oanim.calls.call import Call, DownloadCall, StreamedCall, UploadCall

# grpc.aio puts this over a call's status, also over what the server said, when a write fails because of it.
_CUT_WHILE_WRITING = "Internal error from Core"

Answer = TypeVar("Answer", bound="Message")
Result = TypeVar("Result")


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
            if former is None:
                pause_s = attempts.pause_before_opening_again_s(error)
            else:
                pause_s = attempts.pause_before_repeating_s(error) if resumes else None
            if pause_s is None:
                raise error
            if resumes and call.on_break is not None:
                call.on_break(error, attempts.failing_for_s())
            await asyncio.sleep(pause_s)

    async def download(self, call: DownloadCall[Answer]) -> Answer:
        """Keep what streams in as a file, and begin anew where that breaks off."""
        deadline = Deadline(self.timeout_s if call.timeout_s is None else call.timeout_s)
        attempts = Attempts(deadline)
        while True:
            arriving = Arriving(call)
            try:
                return await self._downloaded(replace(call, timeout_s=deadline.left_s()), arriving)
            except OanimError as error:
                # Before the first message the call was repeated already.
                pause_s = attempts.pause_before_transferring_anew_s(error) if arriving.has_begun else None
                if pause_s is None:
                    raise
            await asyncio.sleep(pause_s)

    async def _downloaded(self, call: DownloadCall[Answer], arriving: Arriving[Answer]) -> Answer:
        try:
            await _in_thread(arriving.begin)
            async with aclosing(self.stream(call)) as messages:
                async for message in messages:
                    await _in_thread(arriving.take, message)
            return await _in_thread(arriving.complete)
        except BaseException as error:
            arriving.discard(error)
            raise

    async def upload(self, call: UploadCall[Answer]) -> Answer:
        """Stream a content up, and begin anew where that breaks off, if it can be read again."""
        deadline = Deadline(call.timeout_s)
        attempts = Attempts(deadline)
        first = None
        if call.first is not None:
            rewind(call.content)
            first = call.first(await asyncio.to_thread(measured, call.content))
        while True:
            self._require_open()
            try:
                return await self._uploaded(call, first, deadline.timeout_s())
            except OanimError as error:
                pause_s = attempts.pause_before_transferring_anew_s(error) if first else None
                if pause_s is None:
                    raise
            await asyncio.sleep(pause_s)

    async def _uploaded(
        self, call: UploadCall[Answer], first: Message | None, timeout_s: float | None
    ) -> Answer:
        multicallable = self._channel.stream_unary(
            call.path, request_serializer=_serialized, response_deserializer=call.answer.FromString
        )
        if first is not None:
            rewind(call.content)
        reading = AsyncReading(call.content)
        ended = _FirstEnd()
        try:
            calling = multicallable(
                _messages(call, first, reading), timeout=timeout_s, metadata=self._metadata
            )
            calling.add_done_callback(ended.note)
            return await calling
        except grpc.RpcError as failure:
            raise reading.failure or _upload_error(ended.failure or failure, call) from None
        except asyncio.CancelledError:
            # grpc.aio cancels the call, not the task, when reading fails.
            if reading.failure is None:
                raise
            raise reading.failure from None
        finally:
            # As in connection.py.
            if first is not None:
                await reading.stop()

    def both_ways(self, path: str, answer: type[Answer]) -> Any:
        """Open a stream both ways, without a time limit; what it sends is serialised already."""
        self._require_open()
        opening: Any = self._channel.stream_stream(path, response_deserializer=answer.FromString)
        return opening(metadata=self._metadata)

    def _require_open(self) -> None:
        if self._closed:
            raise closed()


async def _messages(
    call: UploadCall[Answer], first: Message | None, reading: AsyncReading
) -> AsyncIterator[Message]:
    if first is not None:
        yield first
    async for chunk in reading:
        yield call.piece(chunk)


class _FirstEnd:
    """How a call had ended before grpc.aio put the failure of a write over it."""

    def __init__(self) -> None:
        self.failure: aio.AioRpcError | None = None

    def note(self, ended: Any) -> None:
        """Keep what the server said, if it was no answer; called when the call's status is there."""
        code, message = _there(ended.code()), _there(ended.details())
        if code is not grpc.StatusCode.OK and message != _CUT_WHILE_WRITING:
            self.failure = aio.AioRpcError(code, aio.Metadata(), _there(ended.trailing_metadata()), message)


def _there(waiting: Coroutine[Any, Any, Result]) -> Result:
    """Answer at once what only a coroutine tells: a task of its own would look too late."""
    try:
        waiting.send(None)
    except StopIteration as returned:
        return cast("Result", returned.value)
    waiting.close()
    raise RuntimeError("the call has not ended")


def _upload_error(failure: grpc.RpcError, call: UploadCall[Answer]) -> OanimError:
    """Read a failed upload; how it ended may be unknown, and then it is asked again."""
    error = error_of(failure, idempotency_key=call.idempotency_key)
    if error.code is grpc.StatusCode.INTERNAL and error.message == _CUT_WHILE_WRITING:
        message = "the server ended the upload before all was sent, and how is unknown"
        code = grpc.StatusCode.UNAVAILABLE
        return Unavailable(message, code=code, idempotency_key=call.idempotency_key)
    return error


async def _in_thread(function: Callable[..., Result], *arguments: object) -> Result:
    """Run in a thread and stay until that has ended, cancelled or not: what is cleaned up is at rest."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        raise


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()
