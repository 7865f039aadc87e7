"""One call from its first byte to its status, in the four shapes that calls have.

A handler is made for each call and is the `Call` that its servicer gets. Whatever happens, cancellation
included, the call is counted, logged, and leaves the lists of what is open.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from contextlib import aclosing, contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import grpc
from google.protobuf.message import DecodeError

from oanim_server.accounts.refusals import KeyInvalid
from oanim_server.database.engine import is_away, is_conflict
from oanim_server.ledger.refusals import (
    Conflict,
    DatabaseAway,
    Draining,
    Faulty,
    InvalidField,
    Overloaded,
    Refusal,
)
from oanim_server.rpc.admission import TooLarge
from oanim_server.rpc.call import Call, Metadata
from oanim_server.rpc.messages import account_text
from oanim_server.rpc.refusals import TABLE
from oanim_server.rpc.roles import WrongRole
from oanim_server.rpc.status import Answer, answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from google.protobuf.message import Message

    from oanim_server.accounts.authenticator import Authenticator
    from oanim_server.accounts.values import Caller
    from oanim_server.rpc.admission import Rate
    from oanim_server.rpc.edge import Edge
    from oanim_server.rpc.metrics import MethodCounts
    from oanim_server.rpc.roles import Roles

log = logging.getLogger(__name__)

# How long a stream that is ended may take to send the message that it is sending.
WRITE_SECONDS = 1.0
# A smaller message of a stream that is not paced by its operations costs as much as a call: thousands of them
# would be free otherwise. Larger ones are bounded by what a stream may bring.
SMALL_BYTES = 16 * 1024
# How long a unary call that names no deadline may take.
UNARY_SECONDS = 60.0
_TOO_LATE = Answer(
    grpc.StatusCode.DEADLINE_EXCEEDED,
    "There was no answer in time and the outcome is unknown: repeat the call with the same idempotency key.",
    (),
)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Method(NamedTuple):
    """A method that is served: who may call it, what reads its requests, and who answers."""

    path: str
    name: str
    roles: Roles
    parse: Callable[[bytes], Message]
    limit_bytes: int
    answer: Callable[[Any, Call], Any]
    handler: type[Handler]
    counts: MethodCounts
    # No work of the server's ends it.
    endless: bool = False
    # The work that it follows goes on without it.
    following: bool = False
    # Answered by a server that is full or draining, too.
    always: bool = False
    # Above its rate a caller waits: its stream is opened and read more slowly, and not refused.
    paced: bool = False


class Handler(Call):
    """What the shapes have in common. A subclass says how requests become answers."""

    __slots__ = ("_ended_by", "_in_hand", "_task", "_writes", "_writing", "edge", "method", "token")

    # For grpc: bytes come in and go out, so that what cannot be parsed is refused by us.
    request_deserializer: ClassVar[None] = None
    response_serializer: ClassVar[None] = None

    def __init__(self, edge: Edge, method: Method, metadata: Metadata) -> None:
        super().__init__(metadata, edge.limits.trusted_proxies)
        self.edge = edge
        self.method = method
        self.token = ""
        self._ended_by: Refusal | None = None
        self._task: asyncio.Task[Any] | None = None
        self._writing = False
        self._writes = 0
        # Requests of a stream both ways that were taken and are not answered.
        self._in_hand = 0

    async def respond(self, source: Any) -> bytes | None:
        """Answer; `source` is the request in bytes, or the stream of them."""
        raise NotImplementedError

    async def handle(self, source: Any, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes | None:
        """Take the call through everything, and send its status."""
        began = perf_counter()
        self.context = context
        self.edge.counts.in_flight += 1
        code = "OK"
        try:
            try:
                self._read_headers()
                await self._admit(began)
                return await self.respond(source)
            except Refusal as refusal:
                status = self._status(refusal)
                code = status.code.name
            except asyncio.CancelledError:
                if self._ended_by is None or self._task is None or self._writing:
                    # The caller hung up, its deadline passed, or it takes nothing: nobody reads an answer.
                    code = "DEADLINE_EXCEEDED" if context.time_remaining() == 0 else "CANCELLED"
                    raise
                self._task.uncancel()
                status = self._status(self._ended_by)
                code = status.code.name
            except TimeoutError:
                status = _TOO_LATE
                code = status.code.name
            except grpc.aio.BaseError:
                code = "CANCELLED"
                raise
            except Exception as error:  # noqa: BLE001 - it is logged under an id; its text stays here
                status = self._status(self._known(error))
                code = status.code.name
            await context.abort(*status)
        finally:
            # Last of all: a server that drains waits until every status was sent.
            self._leave(code, perf_counter() - began)
            # The context keeps the error that it ended with, and that this frame: a ring for each refused
            # call, which the collector would have to find, 20 to 40 ms at a time.
            del self.context, context
        return None

    def end(self, refusal: Refusal, *, at_once: bool = True) -> None:
        """End an open stream with a refusal: at once, or after what it has in hand was answered."""
        if self._task is None:
            return
        waits = self._ended_by is not None and self._in_hand > 0
        if self._ended_by is not None and not (at_once and waits):
            return
        self._ended_by = refusal
        if self._writing:
            # A status cannot be sent while a message is: its end is waited for, but not for ever.
            asyncio.get_running_loop().call_later(WRITE_SECONDS, self._cut, self._writes)
        elif at_once or not self._in_hand:
            self._task.cancel()

    async def write(self, response: Message) -> None:
        """Send a message of a stream.

        :raises Refusal: when the stream was ended meanwhile.
        """
        self._writing = True
        self._writes += 1
        await self.context.write(response.SerializeToString())
        self._writing = False
        if self._in_hand:
            self._in_hand -= 1
        if self._ended_by is not None and not self._in_hand:
            raise self._ended_by

    def _cut(self, write: int) -> None:
        if self._writing and self._writes == write and self._task is not None:
            self._task.cancel()

    def parsed(self, raw: bytes) -> Message:
        """Read a request.

        :raises TooLarge: above the method's limit.
        :raises InvalidField: for bytes that are no such message.
        """
        method = self.method
        if len(raw) > method.limit_bytes:
            raise TooLarge(limit_bytes=method.limit_bytes)
        try:
            return method.parse(raw)
        except DecodeError:
            raise InvalidField(
                field="request", description=f"these bytes are not a request of {method.name}"
            ) from None

    @contextmanager
    def open(self) -> Iterator[None]:
        """Count an open stream, and make it one that can be ended."""
        holder = None if self.edge.authenticator is None else self._whose()[0]
        streams = self.edge.streams
        if holder is not None:
            streams.enter(holder)
        self._task = asyncio.current_task()
        self.edge.open_streams.add(self)
        try:
            yield
        finally:
            self.edge.open_streams.discard(self)
            if holder is not None:
                streams.leave(holder)

    async def paced(self, operations: int) -> None:
        """Wait until the caller's rate has room for so many operations: a stream is slowed, not refused.

        :raises Draining: when the server begins to drain while a stream waits to be opened.
        """
        seconds = self.edge.buckets.spend(*self._whose(), operations, perf_counter())
        if seconds:
            await asyncio.sleep(seconds)
            if self._task is None and self.edge.draining:
                raise Draining

    def _whose(self) -> tuple[int | str, Rate]:
        """Whom the call counts for, an account or an address without a key, and how much that may ask for."""
        limits = self.edge.limits
        if self.method.roles is None:
            return self.address, limits.keyless
        return self.caller.account_id, limits.rates[self.caller.role]

    def _read_headers(self) -> None:
        request_id = ""
        for key, value in self.metadata:
            if key == "authorization" and isinstance(value, str):
                scheme, _, token = value.partition(" ")
                if scheme.lower() == "bearer":
                    self.token = token.strip()
            elif key == "x-request-id" and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
                request_id = value
        self.request_id = request_id or self.edge.new_request_id()

    async def _admit(self, now: float) -> None:
        """Authenticate, authorise, limit: in this order, before a byte of the request is looked at."""
        edge = self.edge
        if not self.method.always:
            if edge.draining:
                raise Draining
            if edge.counts.in_flight > edge.limits.calls_in_flight:
                raise Overloaded
        roles = self.method.roles
        if edge.authenticator is None:
            return
        if roles is None:
            edge.buckets.take(self.address, edge.limits.keyless, now)
            return
        caller = edge.authenticator.peek(self.token)
        if caller is None:
            caller = await self._looked_up(edge.authenticator, now)
        self.caller = caller
        if edge.draining:
            # Meanwhile; the streams that are open by now were told, and this one is not.
            raise Draining
        if caller.role not in roles:
            raise WrongRole(caller.role)
        if self.method.paced:
            await self.paced(1)
        else:
            edge.buckets.take(caller.account_id, edge.limits.rates[caller.role], now)

    async def _looked_up(self, authenticator: Authenticator, now: float) -> Caller:
        """The caller of a key that is not remembered; one that nobody knows counts for its address."""
        buckets, keyless = self.edge.buckets, self.edge.limits.keyless
        # Before the key is looked up: guesses must not take that from those who have one.
        buckets.check(self.address, keyless, now)
        try:
            return await authenticator.authenticate(self.token)
        except KeyInvalid:
            buckets.take(self.address, keyless, now)
            raise

    def _known(self, error: Exception) -> Refusal:
        """What an exception that is no refusal means to the caller."""
        if is_away(error):
            return DatabaseAway()
        if is_conflict(error):
            return Conflict()
        return self._fault(error)

    def _fault(self, error: Exception) -> Faulty:
        fault = Faulty(secrets.token_hex(6))
        log.error(
            "a call failed",
            extra={"error_id": fault.error_id, "method": self.method.name, "request_id": self.request_id},
            exc_info=error,
        )
        return fault

    def _status(self, refusal: Refusal) -> Answer:
        return answer(refusal if type(refusal) in TABLE else self._fault(refusal))

    def _leave(self, code: str, seconds: float) -> None:
        caller = getattr(self, "caller", None)
        self.method.counts.add(code, seconds)
        self.edge.log.write(
            self.method.name,
            code,
            seconds,
            request_id=self.request_id,
            account=account_text(caller.account_id) if caller else "",
            key_id=caller.key_id if caller else "",
        )
        self.edge.ended()


class UnaryUnary(Handler):
    """A request, an answer."""

    __slots__ = ()
    request_streaming: ClassVar[bool] = False
    response_streaming: ClassVar[bool] = False
    unary_unary = Handler.handle

    async def respond(self, source: bytes) -> bytes:
        request = self.parsed(source)
        if self.context.time_remaining() is None:
            async with asyncio.timeout(UNARY_SECONDS):
                response = await self.method.answer(request, self)
        else:
            response = await self.method.answer(request, self)
        serialized: bytes = response if isinstance(response, bytes) else response.SerializeToString()
        return serialized


class UnaryStream(Handler):
    """A request, answers until the work has ended."""

    __slots__ = ()
    request_streaming: ClassVar[bool] = False
    response_streaming: ClassVar[bool] = True
    unary_stream = Handler.handle

    async def respond(self, source: bytes) -> None:
        with self.open():
            request = self.parsed(source)
            # Closed here and now, also when the caller hangs up: what it holds must not wait for a collector.
            async with aclosing(self.method.answer(request, self)) as responses:
                async for response in responses:
                    await self.write(response)


class Streaming(Handler):
    """What those have in common that take a stream of requests."""

    __slots__ = ()
    request_streaming: ClassVar[bool] = True

    async def requests(self, source: AsyncIterator[bytes]) -> AsyncIterator[Message]:
        """Each request as it arrives."""
        async for raw in source:
            yield await self.taken(raw)

    async def taken(self, raw: bytes) -> Message:
        """Read a request when the caller's rate has room for it. Refuses as `parsed`."""
        if len(raw) < SMALL_BYTES and not self.method.paced and self.edge.authenticator is not None:
            await self.paced(1)
        return self.parsed(raw)


class StreamUnary(Streaming):
    """Requests until the caller has sent all, then an answer."""

    __slots__ = ()
    response_streaming: ClassVar[bool] = False
    stream_unary = Handler.handle

    async def respond(self, source: AsyncIterator[bytes]) -> bytes:
        with self.open():
            response = await self.method.answer(self.requests(source), self)
        serialized: bytes = response.SerializeToString()
        return serialized


class StreamStream(Streaming):
    """Requests and answers until the caller has sent all and every answer was given."""

    __slots__ = ()
    response_streaming: ClassVar[bool] = True
    stream_stream = Handler.handle

    async def requests(self, source: AsyncIterator[bytes]) -> AsyncIterator[Message]:
        """Each request as it arrives, until the stream is to end."""
        async for raw in source:
            if self._ended_by is not None:
                return
            self._in_hand += 1
            yield await self.taken(raw)

    async def respond(self, source: AsyncIterator[bytes]) -> None:
        with self.open():
            async with aclosing(self.method.answer(self.requests(source), self)) as responses:
                async for response in responses:
                    await self.write(response)


# By (the client streams, the server streams).
HANDLERS: dict[tuple[bool, bool], type[Handler]] = {
    (False, False): UnaryUnary,
    (False, True): UnaryStream,
    (True, False): StreamUnary,
    (True, True): StreamStream,
}
