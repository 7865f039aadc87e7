"""The one way into the server: every call of ours is found here, and every open one is known.

It is a generic handler, not an interceptor before registered methods: grpc.aio waits on one future a
registered method at every call, which costs more than all that is done here.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from google.protobuf.message_factory import GetMessageClass

from oanim_server.accounts.refusals import KeyInvalid
from oanim_server.ledger.refusals import Draining
from oanim_server.rpc.admission import Buckets, Rate, Streams
from oanim_server.rpc.handlers import HANDLERS, Handler, Method
from oanim_server.rpc.metrics import CallCounts
from oanim_server.rpc.roles import TABLE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from google.protobuf.descriptor import ServiceDescriptor

    from oanim_server.accounts.authenticator import Authenticator
    from oanim_server.accounts.values import Role
    from oanim_server.logs import CallLog
    from oanim_server.rpc.address import Networks

log = logging.getLogger(__name__)

RECHECK_SECONDS = 5.0
MESSAGE_BYTES = 1 << 20
# A message of an upload is a chunk of at most a megabyte, and the field around it.
_ENVELOPE_BYTES = 1 << 10
_UPLOADS = frozenset(
    {"GenerateService/UploadInput", "RenderService/SubmitRender", "RenderService/CompleteRender"}
)
# Streams that no work of the server's ends: they are ended when it begins to drain.
_ENDLESS = frozenset(
    {
        "CheckoutService/WatchCheckout",
        "RenderService/WatchRender",
        "WalletService/Meter",
        "WalletService/StreamUsage",
        "WalletService/WatchWallet",
    }
)
# Streams that follow work which goes on without them, here or in the next life.
_FOLLOWING = frozenset({"GenerateService/Generate"})
# Streams of operations: of one that is ended, what it has in hand is answered first.
_PACED = frozenset({"WalletService/Meter", "WalletService/StreamUsage"})


# grpc.aio leaves a ring of six objects for the collector after every call. By the collector's own count
# tens of thousands are looked through at once, which stops everybody for 20 ms; these take two.
CALLS_A_COLLECTION = 1_000
# Which of these collections look through what was still in use at earlier ones, too.
_OLDER, _OLDEST = 20, 400


class Limits(NamedTuple):
    """What one account, one address without a key, and all together may ask for."""

    rates: Mapping[Role, Rate]
    keyless: Rate
    open_streams: int
    calls_in_flight: int
    trusted_proxies: Networks


class Edge(grpc.GenericRpcHandler):
    """Knows every method that is served, and the calls that are open.

    :param authenticator: None serves without keys: on the local socket, which only its owner can open.
    """

    def __init__(self, authenticator: Authenticator | None, limits: Limits, call_log: CallLog) -> None:
        self.authenticator = authenticator
        self.limits = limits
        self.log = call_log
        self.buckets = Buckets()
        self.streams = Streams(limits.open_streams)
        self.counts = CallCounts(self.streams)
        self.draining = False
        self.open_streams: set[Handler] = set()
        self._methods: dict[str, Method] = {}
        self._idle = asyncio.Event()
        self._numbers = count(1)
        self._prefix = secrets.token_hex(4)
        self._ended = 0

    def serve(self, service: ServiceDescriptor, servicer: object) -> None:
        """Serve a service of the contract."""
        for method in service.methods:
            name = f"{service.name}/{method.name}"
            path = f"/{service.full_name}/{method.name}"
            self.add(
                Method(
                    path=path,
                    name=name,
                    roles=TABLE[path] if self.authenticator else None,
                    parse=GetMessageClass(method.input_type).FromString,
                    limit_bytes=MESSAGE_BYTES + (_ENVELOPE_BYTES if name in _UPLOADS else 0),
                    answer=getattr(servicer, method.name),
                    handler=HANDLERS[method.client_streaming, method.server_streaming],
                    counts=self.counts.of(name),
                    endless=name in _ENDLESS,
                    following=name in _FOLLOWING,
                    paced=name in _PACED,
                )
            )

    def serve_anyone(self, service: ServiceDescriptor, servicer: object, *, always: bool = False) -> None:
        """Serve a service that is not the contract's, without a key; `always`: also full, and draining."""
        for method in service.methods:
            name = f"{service.name}/{method.name}"
            self.add(
                Method(
                    path=f"/{service.full_name}/{method.name}",
                    name=name,
                    roles=None,
                    parse=GetMessageClass(method.input_type).FromString,
                    limit_bytes=MESSAGE_BYTES,
                    answer=getattr(servicer, method.name),
                    handler=HANDLERS[method.client_streaming, method.server_streaming],
                    counts=self.counts.of(name),
                    always=always,
                )
            )

    def add(self, method: Method) -> None:
        """Serve one method."""
        self._methods[method.path] = method

    def service(self, handler_call_details: Any) -> Any:
        """What handles a call, for grpc; None for a method that is not served."""
        method = self._methods.get(handler_call_details.method)
        if method is None:
            return None
        return method.handler(self, method, handler_call_details.invocation_metadata)

    def new_request_id(self) -> str:
        """An id for a call that brought none."""
        return f"{self._prefix}-{next(self._numbers):x}"

    def ended(self) -> None:
        """Note that a call has ended."""
        self.counts.in_flight -= 1
        self._ended += 1
        if not self._ended % CALLS_A_COLLECTION:
            _collect(self._ended // CALLS_A_COLLECTION)
        if self.draining and not self.counts.in_flight:
            self._idle.set()

    async def watch_keys(self) -> None:
        """End the streams of keys that were revoked; runs until it is cancelled."""
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            for token in {stream.token for stream in self.open_streams if stream.token}:
                await self._check(token)

    async def drain(self, seconds: float, quiet: Callable[[], Awaitable[None]]) -> None:
        """Refuse new calls, end the streams that would not end, and let the others finish.

        :param quiet: returns when the work that goes on without its calls needs this process no more; the
            streams that follow it are ended then.
        """
        self.draining = True
        self._end(lambda method: method.endless, at_once=False)
        following = asyncio.create_task(self._end_following(quiet), name="streams that follow work")
        await self._wait(seconds)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        self._end(lambda _method: True)
        await self._wait(1.0)

    async def _end_following(self, quiet: Callable[[], Awaitable[None]]) -> None:
        await quiet()
        self._end(lambda method: method.following)

    def _end(self, which: Callable[[Method], bool], *, at_once: bool = True) -> None:
        for stream in list(self.open_streams):
            if which(stream.method):
                stream.end(Draining(), at_once=at_once)

    async def _wait(self, seconds: float) -> None:
        if self.counts.in_flight:
            try:
                await asyncio.wait_for(self._idle.wait(), seconds)
            except TimeoutError:
                log.warning("calls are still open", extra={"calls": self.counts.in_flight})

    async def _check(self, token: str) -> None:
        if self.authenticator is None:
            return
        try:
            await self.authenticator.authenticate(token)
        except KeyInvalid:
            for stream in list(self.open_streams):
                if stream.token == token:
                    stream.end(KeyInvalid())
        except Exception:
            log.exception("the key of an open stream could not be checked")


def _collect(times: int) -> None:
    """Collect what calls have left, for the so many-th time."""
    gc.collect(2 if not times % _OLDEST else 1 if not times % _OLDER else 0)
