"""Prepaid credits for Open Animate: `Client` for threads, `AsyncClient` for asyncio, and their errors.

Importing this package imports nothing else: grpc and the messages are loaded with the first name that
needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oanim.aio import AsyncClient
    from oanim.aio_metered import AsyncMeter
    from oanim.aio_streams import AsyncMeterStream, AsyncUsageStream
    from oanim.client import Client
    from oanim.errors import (
        AccountFrozen,
        AlreadyCommitted,
        AlreadyReleased,
        Conflict,
        DatabaseAway,
        DeadlineExceeded,
        DeadlinePassed,
        Draining,
        EmailTaken,
        ExceedsReservation,
        IdempotencyKeyReused,
        InsufficientCredits,
        Internal,
        InvalidField,
        KeyInvalid,
        LimitExceeded,
        NotFound,
        NotYourHold,
        OanimError,
        OutputGone,
        Overloaded,
        PaymentsAway,
        ProviderFailed,
        ProviderNotConfigured,
        ProviderRejected,
        ProviderUnknown,
        PurchasesNotConfigured,
        RateLimited,
        RenderFailed,
        ReservationEnded,
        ReservationExpired,
        SignUpClosed,
        SpendLimitExceeded,
        StaleLease,
        TooLarge,
        TooManyKeys,
        Unavailable,
        UnknownModel,
        Violation,
        WrongRole,
    )
    from oanim.keys import new_key
    from oanim.metered import Meter
    from oanim.streams import MeterStream, UsageStream
    from openanimate.metering.v1.reservation_pb2 import SpendScope
    from openanimate.metering.v1.wallet_service_pb2 import PricedLine

__all__ = [
    "AccountFrozen",
    "AlreadyCommitted",
    "AlreadyReleased",
    "AsyncClient",
    "AsyncMeter",
    "AsyncMeterStream",
    "AsyncUsageStream",
    "Client",
    "Conflict",
    "DatabaseAway",
    "DeadlineExceeded",
    "DeadlinePassed",
    "Draining",
    "EmailTaken",
    "ExceedsReservation",
    "IdempotencyKeyReused",
    "InsufficientCredits",
    "Internal",
    "InvalidField",
    "KeyInvalid",
    "LimitExceeded",
    "Meter",
    "MeterStream",
    "NotFound",
    "NotYourHold",
    "OanimError",
    "OutputGone",
    "Overloaded",
    "PaymentsAway",
    "PricedLine",
    "ProviderFailed",
    "ProviderNotConfigured",
    "ProviderRejected",
    "ProviderUnknown",
    "PurchasesNotConfigured",
    "RateLimited",
    "RenderFailed",
    "ReservationEnded",
    "ReservationExpired",
    "SignUpClosed",
    "SpendLimitExceeded",
    "SpendScope",
    "StaleLease",
    "TooLarge",
    "TooManyKeys",
    "Unavailable",
    "UnknownModel",
    "UsageStream",
    "Violation",
    "WrongRole",
    "new_key",
]

# Where a name is; every other name in __all__ is an error.
_HOMES = {
    "AsyncClient": "oanim.aio",
    "AsyncMeter": "oanim.aio_metered",
    "AsyncMeterStream": "oanim.aio_streams",
    "AsyncUsageStream": "oanim.aio_streams",
    "Client": "oanim.client",
    "Meter": "oanim.metered",
    "MeterStream": "oanim.streams",
    "PricedLine": "openanimate.metering.v1.wallet_service_pb2",
    "SpendScope": "openanimate.metering.v1.reservation_pb2",
    "UsageStream": "oanim.streams",
    "new_key": "oanim.keys",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES.get(name, "oanim.errors")), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
