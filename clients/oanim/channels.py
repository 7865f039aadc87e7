"""Opens channels, sync and asyncio, with the same options.

grpc itself repeats a unary call that ended UNAVAILABLE or ABORTED, within the call's deadline. That is safe
for every call here, because each has an idempotency key or changes nothing the second time. Streams are the
SDK's to repeat: of a client stream the bytes are gone, what is under way on a stream both ways is for
pipeline.py to send again, and who reads an answer stream of which all of grpc's attempts failed waits for
ever (grpc 1.85 for threads: the end is noted, the read is never told; no deadline helps).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from grpc import aio

if TYPE_CHECKING:
    from oanim.address import Address

PACKAGE = "openanimate.metering.v1"
MAX_ATTEMPTS = 4
_SERVICES = (
    "AccountService",
    "AdminService",
    "CheckoutService",
    "GenerateService",
    "PricingService",
    "RenderService",
    "WalletService",
)
_STREAMS = (
    ("CheckoutService", "WatchCheckout"),
    ("GenerateService", "Generate"),
    ("GenerateService", "UploadInput"),
    ("GenerateService", "DownloadOutput"),
    ("RenderService", "SubmitRender"),
    ("RenderService", "WatchRender"),
    ("RenderService", "DownloadRender"),
    ("RenderService", "DownloadBundle"),
    ("RenderService", "CompleteRender"),
    ("WalletService", "WatchWallet"),
    ("WalletService", "StreamUsage"),
    ("WalletService", "Meter"),
)
_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": f"{PACKAGE}.{service}"} for service in _SERVICES],
            "retryPolicy": {
                "maxAttempts": MAX_ATTEMPTS,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "ABORTED"],
            },
        },
        {"name": [{"service": f"{PACKAGE}.{service}", "method": method} for service, method in _STREAMS]},
    ]
}
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024

_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    # A server that restarts is back in seconds: grpc's own backoff goes up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 10_000),  # how long an attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # An open stream notices a peer that vanished without a word.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)
# A proxy would see the key in clear.
_PLAINTEXT_OPTIONS = (*_OPTIONS, ("grpc.enable_http_proxy", 0))


def open_sync(address: Address, *, ca_file: str | None) -> grpc.Channel:
    """Open a channel for threads. Nothing is sent before the first call."""
    if not address.tls:
        return grpc.insecure_channel(address.target, options=_PLAINTEXT_OPTIONS)
    return grpc.secure_channel(address.target, _credentials(ca_file), options=_OPTIONS)


def open_aio(address: Address, *, ca_file: str | None) -> aio.Channel:
    """Open a channel for asyncio. Nothing is sent before the first call."""
    if not address.tls:
        return aio.insecure_channel(address.target, options=_PLAINTEXT_OPTIONS)
    return aio.secure_channel(address.target, _credentials(ca_file), options=_OPTIONS)


def _credentials(ca_file: str | None) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(Path(ca_file).read_bytes() if ca_file else None)
