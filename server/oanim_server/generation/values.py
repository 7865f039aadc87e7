"""Generation's nouns. Amounts are micro-USD and times microseconds since 1970, always as `int`.

A job's state says what was decided; a generation has ended when its hold was settled, and not before.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, NamedTuple

from oanim_server.ledger.values import DAY, SECOND

if TYPE_CHECKING:
    from oanim_models.inputs import Output
    from oanim_server.ledger.values import Scope, WalletFacts

# An attempt is one POST that may leave this machine.
ATTEMPTS = 3
# What is kept of a result: addresses of files and their names. A page of a thousand is read at once.
MAX_OUTPUTS_BYTES = 65_536


class Times(NamedTuple):
    """How long a replica has a job without saying so again, and the provider an answer; in microseconds."""

    lease: int = 30 * SECOND
    deadline: int = DAY


TIMES = Times()


class State(IntEnum):
    """Where a job stands. The last three are outcomes: once stored they never change, only get settled."""

    QUEUED = 1
    # A POST may leave this machine, or has; only the epoch that wrote this may make it.
    SUBMITTING = 2
    SUBMITTED = 3
    SUCCEEDED = 4
    FAILED = 5
    CANCELLED = 6


class Standing(IntEnum):
    """What a caller is told. The numbers are those of GenerationState in the contract."""

    QUEUED = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    CANCELLED = 5


class Reason(StrEnum):
    """Why a generation failed; the names are those of ErrorReason in the contract."""

    PROVIDER_REJECTED = "PROVIDER_REJECTED"
    PROVIDER_FAILED = "PROVIDER_FAILED"
    PROVIDER_UNKNOWN = "PROVIDER_UNKNOWN"
    DEADLINE_PASSED = "DEADLINE_PASSED"


class Failure(NamedTuple):
    """Why a generation failed, and what the provider said about it."""

    reason: Reason
    message: str


class Lease(NamedTuple):
    """Who may change a job: a replica, in one epoch."""

    wallet_id: int
    number: int
    owner: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Job:
    """A job as whoever works on it needs it."""

    lease: Lease
    state: State
    endpoint: str
    input_json: str
    quantity: int
    attempts: int
    not_before: int
    deadline_at: int
    request_id: str
    status_url: str
    response_url: str

    @property
    def key(self) -> tuple[int, int]:
        """The generation's id."""
        return self.lease.wallet_id, self.lease.number


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request for work; its shape was checked at the edge."""

    account_id: int
    api_key_id: str
    model: str
    input_json: str
    idempotency_key: str
    spend_scopes: tuple[Scope, ...] = ()
    labels: dict[str, str]


class Generation(NamedTuple):
    """A generation as an answer shows it, with the wallet as its latest movement of money left it."""

    wallet_id: int
    number: int
    model: str
    standing: Standing
    quoted_micros: int
    charged_micros: int
    outputs: tuple[Output, ...]
    failure: Failure | None
    created_at: int
    finished_at: int | None
    sandbox: bool
    cancel_requested: bool
    # The provider has it, and said so.
    submitted: bool
    # How many are before it in the provider's queue; None when it is in none.
    queue_position: int | None
    progress: str
    revision: int
    wallet: WalletFacts

    @property
    def ended(self) -> bool:
        """Whether nothing about it changes any more."""
        return self.finished_at is not None


class Accepted(NamedTuple):
    """What Generate answers first: the generation, and the wallet right after the hold."""

    generation: Generation
    wallet: WalletFacts
    replayed: bool


class Queued(NamedTuple):
    """The provider has it in its queue."""

    position: int


class Progress(NamedTuple):
    """The provider works on it."""

    message: str


class Ended(NamedTuple):
    """It has ended, and its hold is settled."""

    generation: Generation


Event = Accepted | Queued | Progress | Ended


class Piece(NamedTuple):
    """A piece of an output; media type and length are in the first one alone."""

    content_type: str
    size_bytes: int
    chunk: bytes


class Upload(NamedTuple):
    """An uploaded input."""

    upload_id: str
    account_id: int
    content_type: str
    size_bytes: int
    created_at: int
    expires_at: int
