"""Rendering's nouns. Amounts are micro-USD and times microseconds since 1970, always as `int`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, NamedTuple

from oanim_server.ledger.values import DAY, SECOND

if TYPE_CHECKING:
    from oanim_server.ledger.values import Scope, WalletFacts

MODEL = "oanim/cloud-render"
# An attempt is a lease that was not handed back.
ATTEMPTS = 3
MAX_BUNDLE_BYTES = 200_000_000
MAX_VIDEO_BYTES = 2_000_000_000
# How many renders of an account may wait or be rendered, and what their bundles may come to.
MAX_UNFINISHED = 10_000
MAX_ACCOUNT_BYTES = 20_000_000_000

# A render's id: its wallet and the number of its reservation.
Key = tuple[int, int]


class Times(NamedTuple):
    """How long things may take, in microseconds.

    `lease` is how long a worker need not be heard of, `queue` how long a render waits for its first one,
    `attempt` how long one attempt may take, and `kept` how long a video is there.
    """

    lease: int = 60 * SECOND
    queue: int = DAY
    attempt: int = 1_800 * SECOND
    kept: int = 30 * DAY


TIMES = Times()


class Codec(IntEnum):
    """How a video is encoded. The numbers are those of RenderCodec in the contract."""

    H264 = 1
    H265 = 2
    VP8 = 3
    VP9 = 4
    PRORES = 5
    GIF = 6

    @property
    def content_type(self) -> str:
        """The media type of its files."""
        return _CONTENT_TYPES[self]


_CONTENT_TYPES = {
    Codec.H264: "video/mp4",
    Codec.H265: "video/mp4",
    Codec.VP8: "video/webm",
    Codec.VP9: "video/webm",
    Codec.PRORES: "video/quicktime",
    Codec.GIF: "image/gif",
}


class State(IntEnum):
    """Where a render stands; three of them are ends. The numbers are those of RenderState."""

    QUEUED = 1
    RENDERING = 2
    SUCCEEDED = 3
    FAILED = 4
    CANCELLED = 5


OPEN = (State.QUEUED, State.RENDERING)


class Reason(StrEnum):
    """Why a render failed; the names are those of ErrorReason in the contract."""

    RENDER_FAILED = "RENDER_FAILED"
    DEADLINE_PASSED = "DEADLINE_PASSED"


class Failure(NamedTuple):
    """Why a render failed, and what its last worker said about it."""

    reason: Reason
    message: str


class Spec(NamedTuple):
    """What is to be rendered. It fixes the quote."""

    composition: str
    width: int
    height: int
    fps: int
    frames: int
    codec: Codec
    props_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A request for a render; its shape was checked at the edge. The bundle comes after it."""

    account_id: int
    api_key_id: str
    idempotency_key: str
    spec: Spec
    bundle_bytes: int
    bundle_sha256: bytes
    spend_scopes: tuple[Scope, ...] = ()
    labels: dict[str, str]


class Worker(NamedTuple):
    """Who asks for work: a worker's account, and its API key."""

    account_id: int
    api_key_id: str


class Claim(NamedTuple):
    """What a worker says that it has: the lease of a render, in one epoch."""

    wallet_id: int
    number: int
    epoch: int
    worker: int

    @property
    def key(self) -> Key:
        """The render's id."""
        return self.wallet_id, self.number


class Standing(NamedTuple):
    """A render as whoever decides about it needs it, under its lock."""

    wallet_id: int
    number: int
    state: State
    spec: Spec
    epoch: int
    attempts: int
    worker: int
    leased_until: int
    time_limit: int
    deadline_at: int
    frames_done: int
    message: str
    bundle_id: str
    bundle_bytes: int
    video_id: str

    @property
    def key(self) -> Key:
        """The render's id."""
        return self.wallet_id, self.number

    @property
    def claim(self) -> Claim:
        """The lease that it is in, or was in last."""
        return Claim(self.wallet_id, self.number, self.epoch, self.worker)


class End(NamedTuple):
    """How a render ends: in which state, charged how many frames, and why if it failed."""

    state: State
    frames: int = 0
    failure: Failure | None = None


class Video(NamedTuple):
    """A video in the store."""

    object_id: str
    size_bytes: int
    sha256: bytes


class Piece(NamedTuple):
    """A piece of a bundle or a video; media type, length and hash are in the first one alone."""

    content_type: str
    size_bytes: int
    sha256: bytes
    chunk: bytes


class Lease(NamedTuple):
    """A worker's hold on a render, as it is told of it."""

    claim: Claim
    spec: Spec
    bundle_bytes: int
    bundle_sha256: bytes
    expires_at: int
    time_limit: int
    attempt: int
    replayed: bool


class Beat(NamedTuple):
    """What a heartbeat is answered: until when the lease lasts, or that the worker is to stop."""

    expires_at: int
    stop: bool


class Render(NamedTuple):
    """A render as an answer shows it, with the wallet as its latest movement of money left it."""

    wallet_id: int
    number: int
    spec: Spec
    state: State
    quoted_micros: int
    charged_micros: int
    frames_done: int
    attempts: int
    epoch: int
    failure: Failure | None
    created_at: int
    finished_at: int | None
    bundle_id: str
    video: Video | None
    video_expires_at: int | None
    labels: dict[str, str]
    revision: int
    wallet: WalletFacts
    # How many are before it in the queue; 0 unless it waits.
    queue_position: int = 0

    @property
    def key(self) -> Key:
        """The render's id."""
        return self.wallet_id, self.number

    @property
    def ended(self) -> bool:
        """Whether nothing about it changes any more but that its video goes."""
        return self.finished_at is not None


class Submitted(NamedTuple):
    """A render in the queue, and the wallet right after the hold."""

    render: Render
    wallet: WalletFacts
    replayed: bool
