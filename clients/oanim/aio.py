"""The SDK for asyncio: the methods of client.py, to be awaited or iterated with `async for`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from google.protobuf.message import Message

from oanim import address, channels
from oanim.aio_connection import AsyncConnection
from oanim.aio_metered import AsyncMeter
from oanim.aio_streams import AsyncMeterStream, AsyncUsageStream
from oanim.block import Block
from oanim.calls import account, admin, checkout, generation, holds, pricing, rendering, wallet
from oanim.calls.described import described_by
from oanim.calls.streams import METER, STREAM_USAGE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
    from types import TracebackType
    from typing import Self

    from grpc import aio

    from oanim.calls.call import Call, DownloadCall, StreamedCall, UploadCall
    from openanimate.metering.v1.reservation_pb2 import SpendScope

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer", bound=Message)


def _unary(
    build: Callable[Arguments, Call[Answer]],
) -> Callable[Concatenate[AsyncClient, Arguments], Coroutine[Any, Any, Answer]]:
    async def method(self: AsyncClient, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        return await self.connection.unary(build(*args, **kwargs))

    return described_by(build, method, returns="{}")


def _streamed(
    build: Callable[Arguments, StreamedCall[Answer]],
) -> Callable[Concatenate[AsyncClient, Arguments], AsyncGenerator[Answer, None]]:
    def method(
        self: AsyncClient, /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> AsyncGenerator[Answer, None]:
        return self.connection.stream(build(*args, **kwargs))

    return described_by(build, method, returns="AsyncGenerator[{}, None]")


def _download(
    build: Callable[Arguments, DownloadCall[Answer]],
) -> Callable[Concatenate[AsyncClient, Arguments], Coroutine[Any, Any, Answer]]:
    async def method(self: AsyncClient, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        return await self.connection.download(build(*args, **kwargs))

    return described_by(build, method, returns="{}")


def _upload(
    build: Callable[Arguments, UploadCall[Answer]],
) -> Callable[Concatenate[AsyncClient, Arguments], Coroutine[Any, Any, Answer]]:
    async def method(self: AsyncClient, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        return await self.connection.upload(build(*args, **kwargs))

    return described_by(build, method, returns="{}")


class AsyncClient:
    """A client of the metering service for one event loop; tasks may share it.

    The arguments are those of `Client`.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        url: str | None = None,
        timeout_s: float = 30.0,
        ca_file: str | None = None,
        allow_insecure: bool = False,
        channel: aio.Channel | None = None,
    ) -> None:
        key = address.checked_key(address.key_from_environment() if api_key is None else api_key)
        self._url = "" if channel else url or address.url_from_environment()
        opened = channel or channels.open_aio(
            address.parse(self._url, allow_insecure=allow_insecure),
            ca_file=ca_file or address.roots_from_environment(),
        )
        self.connection = AsyncConnection(
            opened, api_key=key, timeout_s=timeout_s, owns_channel=channel is None
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(url={self._url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel; calls that are running are cancelled."""
        await self.connection.close()

    def metered(
        self,
        *,
        model: str | None = None,
        quantity: int | None = None,
        amount_micros: int | None = None,
        account_id: str = "",
        spend_scopes: Iterable[SpendScope] = (),
        labels: Mapping[str, str] | None = None,
        ttl_seconds: int = 900,
        key: str | None = None,
    ) -> AsyncMeter:
        """Meter an `async with`: hold its price, charge what it used on any exit, give back the rest.

        A model and a quantity, or an amount, say what is held at first. A block that is entered again with
        the same `key` goes on with the same hold, unless that has ended.
        """
        block = Block(
            model=model,
            quantity=quantity,
            amount_micros=amount_micros,
            account_id=account_id,
            spend_scopes=spend_scopes,
            labels=labels,
            ttl_seconds=ttl_seconds,
            key=key,
        )
        return AsyncMeter(self.connection, block)

    def meter(self, *, timeout_s: float | None = None) -> AsyncMeterStream:
        """Open a stream of many reservations, commits and releases, to be used inside a `async with`."""
        return AsyncMeterStream(self.connection, METER, timeout_s=timeout_s)

    def stream_usage(self, *, timeout_s: float | None = None) -> AsyncUsageStream:
        """Open a stream of usage of any account, to be used inside a `async with`."""
        return AsyncUsageStream(self.connection, STREAM_USAGE, timeout_s=timeout_s)

    sign_up = _unary(account.sign_up)
    who_am_i = _unary(account.who_am_i)
    create_api_key = _unary(account.create_api_key)
    list_api_keys = _unary(account.list_api_keys)
    revoke_api_key = _unary(account.revoke_api_key)
    set_limit = _unary(account.set_limit)
    list_limits = _unary(account.list_limits)
    delete_limit = _unary(account.delete_limit)

    get_wallet = _unary(wallet.get_wallet)
    watch_wallet = _streamed(wallet.watch_wallet)
    reserve = _unary(holds.reserve)
    commit = _unary(holds.commit)
    release = _unary(holds.release)
    extend = _unary(holds.extend)
    get_reservation = _unary(wallet.get_reservation)
    list_reservations = _unary(wallet.list_reservations)
    list_transactions = _unary(wallet.list_transactions)
    get_usage = _unary(wallet.get_usage)
    list_usage = _unary(wallet.list_usage)

    list_prices = _unary(pricing.list_prices)
    get_price = _unary(pricing.get_price)
    quote = _unary(pricing.quote)
    publish_prices = _unary(pricing.publish_prices)

    create_checkout = _unary(checkout.create_checkout)
    get_checkout = _unary(checkout.get_checkout)
    watch_checkout = _streamed(checkout.watch_checkout)
    list_purchases = _unary(checkout.list_purchases)
    get_receipt = _unary(checkout.get_receipt)

    generate = _streamed(generation.generate)
    get_generation = _unary(generation.get_generation)
    list_generations = _unary(generation.list_generations)
    cancel_generation = _unary(generation.cancel_generation)
    upload_input = _upload(generation.upload_input)
    download_output = _streamed(generation.download_output)

    submit_render = _upload(rendering.submit_render)
    get_render = _unary(rendering.get_render)
    watch_render = _streamed(rendering.watch_render)
    list_renders = _unary(rendering.list_renders)
    cancel_render = _unary(rendering.cancel_render)
    download_render = _download(rendering.download_render)
    lease_render = _unary(rendering.lease_render)
    download_bundle = _download(rendering.download_bundle)
    heartbeat = _unary(rendering.heartbeat)
    complete_render = _upload(rendering.complete_render)
    fail_render = _unary(rendering.fail_render)

    create_key = _unary(admin.create_key)
    grant_credits = _unary(admin.grant_credits)
    adjust_balance = _unary(admin.adjust_balance)
    freeze_account = _unary(admin.freeze_account)
    refund_purchase = _unary(admin.refund_purchase)
    list_accounts = _unary(admin.list_accounts)
    list_quarantined = _unary(admin.list_quarantined)
    resolve_quarantined = _unary(admin.resolve_quarantined)
    list_uncollected = _unary(admin.list_uncollected)
    audit = _unary(admin.audit)
