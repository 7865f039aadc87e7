"""The ledger's nouns: wallets, lots, reservations, and the words for their states.

Amounts are micro-USD and times microseconds since 1970, always as `int`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from oanim_models.quantities import charge_micros

if TYPE_CHECKING:
    from collections.abc import Callable

    from oanim_server.ledger.windows import Period, Window

Named = TypeVar("Named", bound=tuple[Any, ...])

MICROS_PER_USD = 1_000_000
MAX_AMOUNT_MICROS = 10**12
MAX_QUANTITY = 10**9

SECOND = 1_000_000
DAY = 86_400 * SECOND
DEFAULT_TTL = 900 * SECOND
LATE_SETTLEMENT_WINDOW = DAY
REFUSAL_MEMORY = 30 * DAY

# The caller of what the server starts itself, and the opener of a job's hold.
SERVER = 0

# A part of a lot: (lot number, micros).
Part = tuple[int, int]


def maker(kind: type[Named]) -> Callable[[tuple[Any, ...]], Named]:
    """What makes a named tuple of all its fields in their order, unchecked.

    One call of C, and half of what the tuple's own constructor costs, which is Python.
    """
    return partial(tuple.__new__, kind)


class Method(IntEnum):
    """Whose idempotency keys share a name space: one method of one caller on one wallet."""

    SIGN_UP = 1
    RESERVE = 2
    COMMIT = 3
    RELEASE = 4
    EXTEND = 5
    GENERATE = 6
    SETTLE_DUE = 7
    PAYMENT = 8
    GRANT = 9
    ADJUST = 10
    FREEZE = 11
    SET_LIMIT = 12
    DELETE_LIMIT = 13
    USAGE = 14
    REPORT = 15
    SUBMIT_RENDER = 16


class Kind(IntEnum):
    """What a journal row records. The numbers are those of TransactionKind in the contract."""

    SIGN_UP_GRANT = 1
    RESERVE = 2
    EXTEND = 3
    CAPTURE = 4
    RELEASE = 5
    RESERVATION_EXPIRY = 6
    LATE_SETTLEMENT = 7
    LOT_EXPIRY = 8
    PURCHASE = 9
    REVERSAL = 10
    REINSTATEMENT = 11
    GRANT = 12
    ADJUSTMENT = 13
    FREEZE = 14
    LIMIT = 15
    USAGE = 16


class Account(IntEnum):
    """An account of the ledger. The numbers are those of LedgerAccount in the contract."""

    WALLET = 1
    PROMOTIONS = 2
    REVENUE = 3
    BREAKAGE = 4
    UNCOLLECTED = 5
    STRIPE = 6
    DISPUTES = 7
    ADJUSTMENTS = 8


class State(IntEnum):
    """Where a reservation stands. The numbers are those of ReservationState in the contract."""

    ACTIVE = 1
    COMMITTED = 2
    RELEASED = 3
    EXPIRED = 4
    SETTLED_LATE = 5


# Found once: an enumeration's look-up of its member costs more than the rest of such a question.
ACTIVE, COMMITTED, EXPIRED = State.ACTIVE, State.COMMITTED, State.EXPIRED


class Origin(IntEnum):
    """Where a lot came from. The numbers are those of LotOrigin in the contract."""

    SIGN_UP = 1
    PURCHASE = 2
    BONUS = 3
    GRANT = 4
    ADJUSTMENT = 5
    REINSTATED = 6

    @property
    def source(self) -> Account:
        """The system account that a lot of this origin is paid from, and lapses to when it was a gift."""
        return _SOURCE[self]

    @property
    def promotional(self) -> bool:
        """Whether the credits were given rather than bought; given ones are drawn first."""
        return self.source is Account.PROMOTIONS

    @property
    def lapses_to(self) -> Account:
        """The system account that what expires of it goes to."""
        return Account.PROMOTIONS if self.promotional else Account.BREAKAGE


_SOURCE = {
    Origin.SIGN_UP: Account.PROMOTIONS,
    Origin.PURCHASE: Account.STRIPE,
    Origin.BONUS: Account.PROMOTIONS,
    Origin.GRANT: Account.PROMOTIONS,
    Origin.ADJUSTMENT: Account.ADJUSTMENTS,
    Origin.REINSTATED: Account.STRIPE,
}


@dataclass(slots=True)
class Lot:
    """Credits that came in together."""

    number: int
    origin: Origin
    amount_micros: int
    remaining_micros: int
    held_micros: int
    priority: int
    expires_at: int | None
    created_at: int
    # What of it has expired by now. A statement as of a time does not know it as of then.
    lapsed_micros: int = field(default=0, compare=False)

    @property
    def free_micros(self) -> int:
        """What no reservation holds."""
        return self.remaining_micros - self.held_micros

    @property
    def sound(self) -> bool:
        """Whether its amounts are what a lot's can be: what the checks of `lots` ask of those that closed."""
        return (
            0 <= self.held_micros <= self.remaining_micros
            and 0 <= self.lapsed_micros <= self.amount_micros - self.remaining_micros
            and 1 <= self.amount_micros <= MAX_AMOUNT_MICROS
        )

    def expired(self, now: int) -> bool:
        """Whether its life has ended; true at the instant itself."""
        return self.expires_at is not None and now >= self.expires_at


class Scope(NamedTuple):
    """A subject whose spending is added up, and what it may reach."""

    subject: str
    limit_micros: int | None


class Cap(NamedTuple):
    """What one subject may reach: a spend scope, or the account or a key in a window of a limit's period.

    `window` is None for a scope, whose limit may be None; else `subject` is a key's id, empty for the
    account.
    """

    subject: str
    window: Window | None
    limit_micros: int | None

    @property
    def counted_under(self) -> tuple[str, str]:
        """What names its counter within the wallet."""
        return (self.subject, self.window.name if self.window is not None else "")


class Limit(NamedTuple):
    """What the owner allows the account (an empty key) or a key to spend in each window of a period."""

    api_key_id: str
    period: Period
    limit_micros: int

    def counts(self, reservation: Reservation) -> bool:
        """Whether a reservation counts under it."""
        return self.api_key_id in ("", reservation.api_key_id)


class LimitFacts(NamedTuple):
    """A limit as an answer shows it: what it has in the present window."""

    limit: Limit
    charged_micros: int
    held_micros: int
    window: Window


class Note(NamedTuple):
    """Who of the operator's people made a row, and why."""

    actor: str
    reason: str


@dataclass(slots=True)
class Credit:
    """What a purchase credited, and where what was taken back of it has gone."""

    wallet_id: int
    number: int
    purchase_id: str
    paid_lot: int
    bonus_lot: int
    stripe_micros: int = 0
    promotions_micros: int = 0
    disputes_micros: int = 0
    covered_paid_micros: int = 0
    covered_bonus_micros: int = 0
    elsewhere_micros: int = 0

    @property
    def from_wallet_micros(self) -> int:
        """What the wallet has lost of it: what was booked back, less what had expired anyway."""
        booked = self.stripe_micros + self.promotions_micros + self.disputes_micros
        return booked - self.covered_paid_micros - self.covered_bonus_micros

    @property
    def lots(self) -> tuple[int, ...]:
        """Its own lots: a reversal takes from them first, in draw order."""
        return (self.paid_lot, self.bonus_lot) if self.bonus_lot else (self.paid_lot,)


class Line(NamedTuple):
    """A priced line: the price version that was pinned, and the quantity that was quoted."""

    price_version: int
    model: str
    category: str
    provider: str
    unit: str
    price_micros: int
    base_quantity: int
    quantity: int

    def cost_micros(self, quantity: int) -> int:
        """What a quantity costs at the pinned price, 0 for none."""
        return charge_micros(self.price_micros, self.base_quantity, quantity)


class Pinned(NamedTuple):
    """What is said of a reservation when it is made: its price, what it counts under, its labels."""

    line: Line | None
    scopes: tuple[Scope, ...]
    labels: dict[str, str]


class UsageItem(NamedTuple):
    """Work that a service did without a hold, and who paid for it. `number` is the wallet_seq of its row."""

    wallet_id: int
    number: int
    at: int
    api_key_id: str
    line: Line
    labels: dict[str, str]
    charged_micros: int
    uncollected_micros: int


@dataclass(slots=True)
class Counter:
    """What was charged and is held under one subject of one wallet."""

    charged_micros: int = 0
    held_micros: int = 0


@dataclass(slots=True)
class Reservation:
    """Credits set aside, by whom, for what, and what became of them."""

    wallet_id: int
    number: int
    state: State
    opener: int
    api_key_id: str
    reserved_micros: int
    captured_micros: int
    uncollected_micros: int
    captures: int
    captured_quantity: int
    parts: list[Part]
    expires_at: int | None
    created_at: int
    ended_at: int | None
    last_seq: int
    line: Line | None
    scopes: tuple[Scope, ...]
    labels: dict[str, str]
    # These three as they are stored and sealed.
    pinned: str
    # The greatest quantity that usage was reported with; above 0, it is charged by this counter alone.
    reported_quantity: int = 0

    @property
    def held_micros(self) -> int:
        """What it keeps of its lots now."""
        return self.reserved_micros - self.captured_micros if self.state is ACTIVE else 0


@dataclass(slots=True)
class Wallet:
    """An account's credits, and the head of its journal."""

    wallet_id: int
    balance_micros: int
    held_micros: int
    debt_micros: int
    seq: int
    at: int
    link: bytes
    frozen: bool
    next_due_at: int | None
    lots_made: int
    limits: int = 0
    lots: dict[int, Lot] = field(default_factory=dict)

    @property
    def available_micros(self) -> int:
        """What new work can be started with."""
        return self.balance_micros - self.held_micros


class WalletFacts(NamedTuple):
    """A wallet as an answer shows it."""

    wallet_id: int
    balance_micros: int
    held_micros: int
    debt_micros: int
    seq: int
    frozen: bool

    @property
    def available_micros(self) -> int:
        """What new work can be started with."""
        return self.balance_micros - self.held_micros


class ReservationFacts(NamedTuple):
    """A reservation as an answer shows it: what never changes, and how it stood."""

    wallet_id: int
    number: int
    state: State
    opener: int
    reserved_micros: int
    captured_micros: int
    uncollected_micros: int
    captures: int
    captured_quantity: int
    expires_at: int | None
    created_at: int
    line: Line | None
    scopes: tuple[Scope, ...]
    labels: dict[str, str]
    # As it stands now. No row of the journal tells it: answers of operations do not have it.
    reported_quantity: int = 0

    @property
    def held_micros(self) -> int:
        """What it keeps of its lots."""
        return self.reserved_micros - self.captured_micros if self.state is ACTIVE else 0


class Outcome(NamedTuple):
    """What an accepted operation answers: the wallet and the reservation right after it."""

    wallet: WalletFacts
    reservation: ReservationFacts | None
    charged_micros: int
    uncollected_micros: int
    released_micros: int
    replayed: bool
