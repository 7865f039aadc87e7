"""What a metered block knows and asks for; metered.py and aio_metered.py make the calls.

All keys of a block come from one: it is reserved, charged or given back once, however often that is tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from oanim import errors
from oanim.calls import holds, wallet
from oanim.keys import new_key
from openanimate.metering.v1.reservation_pb2 import PinnedPrice, Reservation, ReservationState
from openanimate.metering.v1.wallet_pb2 import Wallet
from openanimate.metering.v1.wallet_service_pb2 import PricedLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from oanim.calls.call import Call
    from openanimate.metering.v1.reservation_pb2 import SpendScope
    from openanimate.metering.v1.wallet_service_pb2 import (
        CommitResponse,
        ExtendResponse,
        GetReservationResponse,
        ReleaseResponse,
        ReserveResponse,
    )

# How long the end of a block waits for a server that is away.
SETTLING_S = 60.0
# The longest of a block's own endings to its key has this many bytes, and a key has at most 255.
_LONGEST_KEY_BYTES = 200
_LONGEST_TTL_SECONDS = 86_400
_ENDED: dict[ReservationState.ValueType, type[errors.ReservationEnded]] = {
    ReservationState.RESERVATION_STATE_COMMITTED: errors.AlreadyCommitted,
    ReservationState.RESERVATION_STATE_RELEASED: errors.AlreadyReleased,
    ReservationState.RESERVATION_STATE_EXPIRED: errors.ReservationExpired,
    ReservationState.RESERVATION_STATE_SETTLED_LATE: errors.ReservationExpired,
}


def price_micros(price: PinnedPrice, quantity: int) -> int:
    """Price a quantity as the server does: never below the base, rounded up to the next micro-USD."""
    if quantity == 0:
        return 0
    return -(-price.amount_micros * max(quantity, price.base_quantity) // price.base_quantity)


class Block:
    """One metered block: its hold, and how much was used under it."""

    def __init__(
        self,
        *,
        model: str | None,
        quantity: int | None,
        amount_micros: int | None,
        account_id: str,
        spend_scopes: Iterable[SpendScope],
        labels: Mapping[str, str] | None,
        ttl_seconds: int,
        key: str | None,
    ) -> None:
        if (model is None) != (quantity is None) or (model is None) == (amount_micros is None):
            raise TypeError("metered() wants a model and a quantity, or amount_micros")
        if not 1 <= ttl_seconds <= _LONGEST_TTL_SECONDS:
            raise ValueError(f"ttl_seconds is from 1 to {_LONGEST_TTL_SECONDS}")
        # A block that is repeated under its key renews and extends by keys of its own: a replay adds nothing.
        self._entry = new_key()
        self.key = self._entry if key is None else key
        if not 1 <= len(self.key.encode()) <= _LONGEST_KEY_BYTES:
            raise ValueError(f"the key of a metered block has 1 to {_LONGEST_KEY_BYTES} bytes")
        self.renew_every_s = ttl_seconds / 3
        self.total = 0
        self.charged_micros = 0
        self.uncollected_micros = 0
        self.wallet = Wallet()
        self.reservation = Reservation()
        self.ended = False
        self._ttl_seconds = ttl_seconds
        self._reserve = holds.reserve(
            account_id=account_id,
            idempotency_key=f"{self.key}:reserve",
            amount_micros=amount_micros,
            line=None if model is None else PricedLine(model=model, quantity=quantity or 0),
            ttl_seconds=ttl_seconds,
            spend_scopes=spend_scopes,
            labels=labels,
        )

    def reserve_call(self) -> Call[ReserveResponse]:
        return self._reserve

    def look_again_call(self) -> Call[GetReservationResponse]:
        """A replayed Reserve tells how the hold stood then; this asks how it stands."""
        return wallet.get_reservation(reservation_id=self.reservation.reservation_id)

    def reserved(self, answer: ReserveResponse) -> None:
        self.reservation, self.wallet = answer.reservation, answer.wallet

    def found(self, reservation: Reservation) -> None:
        """Go on with the hold of an earlier entry under the same key; raises where it has ended."""
        self.reservation = reservation
        ended = _ENDED.get(reservation.state)
        if ended is not None:
            state = ReservationState.Name(reservation.state).removeprefix("RESERVATION_STATE_")
            raise ended(
                f"the metered block {self.key} has been run before; its reservation is {state.lower()}",
                code=grpc.StatusCode.FAILED_PRECONDITION,
                metadata={
                    "state": state,
                    "reserved_micros": str(reservation.reserved_micros),
                    "captured_micros": str(reservation.captured_micros),
                },
                idempotency_key=self.key,
            )

    def missing_micros(self, units: int) -> int:
        """Answer what the hold lacks before this much more may be used."""
        if self.ended:
            raise RuntimeError("this metered block has ended")
        if units < 0:
            raise ValueError("what was used is never negative")
        return max(0, self._cost_micros(self.total + units) - self.reservation.reserved_micros)

    def extend_call(self, missing_micros: int) -> Call[ExtendResponse]:
        """Ask for more; the key says from where to where, so that what is asked again adds nothing twice."""
        span = f"{self.reservation.reserved_micros}+{missing_micros}"
        return holds.extend(
            reservation_id=self.reservation.reservation_id,
            idempotency_key=f"{self._entry}:extend:{span}",
            amount_micros=missing_micros,
        )

    def extended(self, answer: ExtendResponse) -> None:
        self.reservation, self.wallet = answer.reservation, answer.wallet

    def renew_call(self, number: int) -> Call[ExtendResponse]:
        return holds.extend(
            reservation_id=self.reservation.reservation_id,
            idempotency_key=f"{self._entry}:renew:{number}",
            ttl_seconds=self._ttl_seconds,
            timeout_s=self.renew_every_s,
        )

    def commit_call(self) -> Call[CommitResponse]:
        by_quantity = self.reservation.HasField("price")
        return holds.commit(
            reservation_id=self.reservation.reservation_id,
            idempotency_key=f"{self.key}:commit",
            amount_micros=None if by_quantity else self.total,
            quantity=self.total if by_quantity else None,
        )

    def release_call(self) -> Call[ReleaseResponse]:
        return holds.release(
            reservation_id=self.reservation.reservation_id, idempotency_key=f"{self.key}:release"
        )

    def settled(self, answer: CommitResponse | ReleaseResponse) -> None:
        self.reservation, self.wallet = answer.reservation, answer.wallet
        self.charged_micros = answer.reservation.captured_micros
        self.uncollected_micros = answer.reservation.uncollected_micros

    def not_settled(self, failure: errors.OanimError) -> str:
        """Say, beside another error, that the block's end failed, too."""
        return (
            f"oanim: {self.total} used under {self.reservation.reservation_id} could not be charged: "
            f"{failure.message}; to repeat it, the key is {failure.idempotency_key}"
        )

    def _cost_micros(self, total: int) -> int:
        if self.reservation.HasField("price"):
            return price_micros(self.reservation.price, total)
        return total


class Readings:
    """What a meter shows of its block."""

    _block: Block

    @property
    def key(self) -> str:
        """The key that names the block; entered again with it, the block goes on with the same hold."""
        return self._block.key

    @property
    def total(self) -> int:
        """What was used so far, in units of the price or in micro-USD."""
        return self._block.total

    @property
    def reservation(self) -> Reservation:
        """The hold, as the last answer about the block showed it."""
        return self._block.reservation

    @property
    def wallet(self) -> Wallet:
        """The wallet, as the last answer about the block showed it; after the block, as it left it."""
        return self._block.wallet

    @property
    def charged_micros(self) -> int:
        """What the block was charged, in micro-USD; 0 until it has ended."""
        return self._block.charged_micros

    @property
    def uncollected_micros(self) -> int:
        """What was used and could not be charged because the hold had expired, in micro-USD."""
        return self._block.uncollected_micros
