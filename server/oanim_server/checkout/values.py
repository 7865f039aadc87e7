"""Checkout's nouns: a purchase from its page to its end, and what Stripe says of its payment.

Amounts are micro-USD and times microseconds since 1970. Stripe's cents become micro-USD where they come in.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

MICROS_PER_CENT = 10_000
SOURCE = "stripe"


class State(IntEnum):
    """Where a purchase stands. CREATING: Stripe was not yet asked for its page, or has not answered."""

    CREATING = 1
    OPEN = 2
    PROCESSING = 3
    PAID = 4
    EXPIRED = 5
    FAILED = 6


# The credits are in, or can no longer come.
ENDED = (State.PAID, State.EXPIRED, State.FAILED)


class Terms(NamedTuple):
    """What may be bought, and what comes on top. `bonus_percent` is of the whole amount."""

    minimum_micros: int
    maximum_micros: int
    bonus_threshold_micros: int
    bonus_percent: int


class Purchase(NamedTuple):
    """A row of `purchases`, in the order of its columns."""

    wallet_id: int
    token: str
    api_key_id: str
    idem_key: str
    state: State
    amount_micros: int
    bonus_micros: int
    lifetime: int | None
    created_at: int
    expires_at: int
    session_id: str = ""
    url: str = ""
    payment_intent: str = ""
    charge: str = ""
    receipt_url: str = ""
    paid_micros: int = 0
    tax_micros: int = 0
    credit: int = 0
    credited_at: int | None = None
    reversed_micros: int = 0
    revision: int = 1

    @property
    def credits_micros(self) -> int:
        """All that it credits."""
        return self.amount_micros + self.bonus_micros

    @property
    def ended(self) -> bool:
        """Whether nothing more is waited for."""
        return self.state in ENDED


class SessionWord(NamedTuple):
    """What Stripe says of a checkout session."""

    session_id: str
    reference: str
    status: str
    paid: bool
    failed: bool
    payment_intent: str
    subtotal_micros: int
    total_micros: int
    tax_micros: int
    currency: str
    mode: str
    livemode: bool
    charge: str = ""
    receipt_url: str = ""


class RefundWord(NamedTuple):
    """What Stripe says of a refund."""

    refund_id: str
    payment_intent: str
    charge: str
    amount_micros: int
    state: str
    currency: str


class DisputeWord(NamedTuple):
    """What Stripe says of a dispute; `withdrawn` and `reinstated`: what it says has happened to the money."""

    dispute_id: str
    payment_intent: str
    charge: str
    amount_micros: int
    state: str
    withdrawn: bool
    reinstated: bool
    currency: str


Word = SessionWord | RefundWord | DisputeWord


class Refund(NamedTuple):
    """Money that went back, or is on its way."""

    refund_id: str
    amount_micros: int
    state: str
    first_seen_at: int


class Dispute(NamedTuple):
    """A payment that the customer's bank asks back."""

    dispute_id: str
    amount_micros: int
    state: str
    withdrawn: bool
    reinstated: bool
    first_seen_at: int


class Standing(IntEnum):
    """What became of an event in the inbox."""

    APPLIED = 1
    OF_NO_CONCERN = 2
    PARKED = 3
    QUARANTINED = 4
    DISMISSED = 5


class Event(NamedTuple):
    """What Stripe told, once for ever by its id. `payload` is the JSON text that came."""

    event_id: str
    type: str
    object_id: str
    payload: str


class Quarantined(NamedTuple):
    """An event that does not match what was sold."""

    number: int
    event_id: str
    type: str
    object_id: str
    problem: str
    purchase_id: str
    received_at: int
    resolved_at: int | None
    resolved_by: str
    resolution: str


class Receipt(NamedTuple):
    """What was paid for a purchase, and what went back."""

    purchase: Purchase
    refunds: list[Refund]
    disputes: list[Dispute]


class RefundRequest(NamedTuple):
    """A refund that the operator asked for: a row of `refund_requests`, in the order of its columns."""

    wallet_id: int
    request_id: str
    token: str
    caller: int
    idem_key: str
    asked_micros: int
    amount_micros: int
    actor: str
    reason: str
    created_at: int
    refund_id: str = ""
    state: str = ""
