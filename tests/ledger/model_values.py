"""The model's nouns, and what makes two requests the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from oanim_server.ledger.corrections import Adjust, Correction, Freeze, Grant
from oanim_server.ledger.limits import DeleteLimit, SetLimit
from oanim_server.ledger.operations import Commit, Extend, Operation, Release, Reserve
from oanim_server.ledger.payments import Settle
from oanim_server.ledger.usage import Use
from oanim_server.ledger.values import Line, State
from oanim_server.ledger.windows import Period
from tests.ledger.driving import Credit

if TYPE_CHECKING:
    from tests.ledger.selling import Event, Purchase

SECOND = 1_000_000
DAY = 24 * 60 * 60 * SECOND


@dataclass
class MLot:
    number: int
    remaining: int
    held: int
    priority: int
    expires_at: int | None
    promotional: bool = True
    lapsed: int = 0

    @property
    def free(self) -> int:
        return self.remaining - self.held


class Capture(NamedTuple):
    amount: int
    quantity: int
    by_quantity: bool
    answer: Accepted


@dataclass
class MHold:
    number: int
    opener: int
    parts: list[tuple[int, int]]
    reserved: int
    expires_at: int | None
    scopes: tuple[tuple[str, int | None], ...]
    line: Line | None
    api_key_id: str
    created_at: int
    state: State = State.ACTIVE
    captured: int = 0
    uncollected: int = 0
    quantity: int = 0
    ended_at: int | None = None
    captures: list[Capture] = field(default_factory=list)
    # The greatest quantity that usage was reported with.
    reported: int = 0

    def facts(self) -> HoldFacts:
        return HoldFacts(
            self.number,
            self.state,
            self.reserved,
            self.captured,
            self.uncollected,
            len(self.captures),
            self.quantity,
            self.expires_at,
            self.reported,
        )

    def answered(self) -> HoldFacts:
        """As the answer of an operation has it."""
        return self.facts()._replace(reported=0)


class HoldFacts(NamedTuple):
    number: int
    state: State
    reserved: int
    captured: int
    uncollected: int
    captures: int
    quantity: int
    expires_at: int | None
    reported: int


class MItem(NamedTuple):
    """Work that a service did without a hold."""

    number: int
    at: int
    api_key_id: str
    event_id: str
    model: str
    charged: int
    uncollected: int


@dataclass
class MPurchase:
    """What was heard of a purchase, and what of its credits went back."""

    sold: Purchase
    heard: list[Event] = field(default_factory=list)
    lots: tuple[int, ...] = ()
    by_refunds: int = 0
    reversed: int = 0
    covered: int = 0
    # What was taken of other lots, or is owed, while its own were held.
    elsewhere: int = 0


class LimitUse(NamedTuple):
    """A limit, what was charged and is held in its window, and the window."""

    api_key_id: str
    period: Period
    limit: int
    charged: int
    held: int
    start: int
    end: int


class WalletFacts(NamedTuple):
    balance: int
    held: int
    debt: int
    seq: int
    frozen: bool


class Accepted(NamedTuple):
    wallet: WalletFacts
    hold: HoldFacts | None
    charged: int
    uncollected: int
    released: int
    replayed: bool


class Refused(NamedTuple):
    reason: str
    facts: tuple[object, ...]
    seq: int
    replayed: bool


Answer = Accepted | Refused


class No(Exception):
    def __init__(self, reason: str, *facts: object) -> None:
        super().__init__(reason)
        self.reason = reason
        self.facts = facts


REMEMBERED = {"InsufficientCredits", "SpendLimitExceeded", "LimitExceeded", "AccountFrozen"}


def window(period: Period, at: int) -> tuple[int, int]:
    """The day, the week from Monday or the month that an instant lies in, UTC."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    day = (epoch + timedelta(microseconds=at)).replace(hour=0, minute=0, second=0, microsecond=0)
    first, after = day, day + timedelta(days=1)
    if period is Period.WEEK:
        first = day - timedelta(days=day.weekday())
        after = first + timedelta(days=7)
    if period is Period.MONTH:
        first = day.replace(day=1)
        after = (first + timedelta(days=31)).replace(day=1)
    return (first - epoch) // timedelta(microseconds=1), (after - epoch) // timedelta(microseconds=1)


def price(line: Line, quantity: int) -> int:
    """Multiply first, round once and up, never below the base, nothing for nothing."""
    if quantity == 0:
        return 0
    product = line.price_micros * max(quantity, line.base_quantity)
    whole, rest = divmod(product, line.base_quantity)
    return whole + (1 if rest else 0)


# What makes two requests the same, besides the reason of a correction.
ASKED: dict[type[Operation], tuple[str, ...]] = {
    Commit: ("reservation", "amount_micros", "quantity", "keep_rest", "capture"),
    Release: ("reservation",),
    Use: ("asked", "labels"),
    Extend: ("reservation", "amount_micros", "ttl"),
    Credit: ("amount_micros", "priority", "lifetime"),
    Grant: ("amount_micros", "lifetime"),
    Adjust: ("amount_micros",),
    Freeze: ("frozen",),
    SetLimit: ("api_key_id", "period", "limit_micros"),
    DeleteLimit: ("api_key_id", "period"),
    Settle: (),
}


def request_of(operation: Operation) -> tuple[object, ...]:
    """What makes two requests the same."""
    if isinstance(operation, Reserve):
        line = operation.line
        asked = (line.model, line.quantity) if line is not None else (operation.amount_micros,)
        return (*asked, operation.ttl, operation.spend_scopes)
    asked = tuple(getattr(operation, name) for name in ASKED[type(operation)])
    return (*asked, operation.note.reason) if isinstance(operation, Correction) else asked
