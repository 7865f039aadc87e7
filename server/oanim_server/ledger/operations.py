"""The operations on money, as small values.

An operation says which wallet it touches, whose attempt it is, and what it needs loaded; `decide` asks the
rules and has the working set apply what they say. Shape was checked at the edge before one is made.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import orjson
from msgspec import Struct, field

from oanim_server.ledger import crediting, movements, rules
from oanim_server.ledger.values import DEFAULT_TTL, Kind, Line, Method, Origin, Outcome, Scope

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from oanim_server.ledger.refusals import Refusal
    from oanim_server.ledger.values import Cap
    from oanim_server.ledger.working import Attempt, Identity, WorkingSet

# Found once: what every Commit that names its Reserve would look up.
_RESERVE = Method.RESERVE


class Companion(Protocol):
    """Rows of a capability that belong in the transaction of the money they go with.

    Both are called at the operation's turn, after the wallets are locked, and never when its key is known.
    A group that is run again calls both again.
    """

    def load(self, connection: Connection, now: int) -> None:
        """Read what `write` needs, or raise a Refusal: nothing has been decided yet."""

    def write(self, connection: Connection, outcome: Outcome) -> None:
        """Write the rows. It cannot refuse any more."""


class Ending(Companion, Protocol):
    """How a job ends. `quantity`, what of its line was used, is known after `load`."""

    @property
    def quantity(self) -> int:
        """Cumulative, in units of the pinned price; 0 charges nothing."""


class Refused:
    """A companion that refuses its operation: at its turn, so that a key which was used is answered first."""

    def __init__(self, refusal: Refusal) -> None:
        self._refusal = refusal

    def load(self, connection: Connection, now: int) -> None:  # noqa: ARG002 - as of every companion
        raise self._refusal.again()

    def write(self, connection: Connection, outcome: Outcome) -> None:
        raise NotImplementedError


def fingerprint_of(*fields: object) -> bytes:
    """SHA-256 of an operation's own fields, as JSON: equal for equal requests, whatever carried them."""
    return hashlib.sha256(orjson.dumps(fields)).digest()


class Operation(Struct, kw_only=True):
    """What every operation has: a wallet, whose attempt it is, and the rows that go with it."""

    wallet_id: int
    caller: int
    idempotency_key: str
    companion: Companion | None = None

    # Whether its refusals are remembered, and whether it waits behind commits when the queue is full.
    starts_work: ClassVar[bool] = False
    # Whether it makes its wallet.
    opens_wallet: ClassVar[bool] = False

    @property
    def method(self) -> Method:
        """The name space of its idempotency key."""
        raise NotImplementedError

    def caps(self, working: WorkingSet) -> list[Cap]:  # noqa: ARG002 - most count under nothing of their own
        """What it counts under, besides what its reservation does."""
        return []

    @property
    def identity(self) -> Identity:
        """What names the attempt."""
        return (self.idempotency_key, self.wallet_id, self.caller, self.method)

    def fingerprint(self) -> bytes:
        """What tells another request under the same key."""
        raise NotImplementedError

    def decide(self, working: WorkingSet, attempt: Attempt) -> Outcome:
        """Apply it to the working set, or raise a Refusal and change nothing."""
        raise NotImplementedError


class OpenWallet(Operation, kw_only=True):
    """Make a wallet with a grant of promotional credits in it.

    A grant of 0 makes an empty wallet, without a row in its journal. `lifetime` is how long the credits
    last, in microseconds, None for ever.
    """

    grant_micros: int
    lifetime: int | None = None

    method: ClassVar[Method] = Method.SIGN_UP
    opens_wallet: ClassVar[bool] = True

    def fingerprint(self) -> bytes:
        return fingerprint_of("open", self.grant_micros, self.lifetime)

    def decide(self, working: WorkingSet, attempt: Attempt) -> Outcome:
        return crediting.credit(
            working,
            working.open_wallet(self.wallet_id),
            Kind.SIGN_UP_GRANT,
            Origin.SIGN_UP,
            self.grant_micros,
            priority=0,
            lifetime=self.lifetime,
            attempt=attempt,
        )


class Reserve(Operation, kw_only=True):
    """Set credits aside for work that is about to start.

    `asked` is what the request named, as it named it: a model and a quantity, or work in its canonical form;
    None where it named the amount. It makes the fingerprint: what was resolved and priced of it may be
    another thing by the time of a replay. `under` is the lease under which it was asked for, if any: a number
    of a render and an epoch. `opener` alone may commit, extend or release; `ttl` in microseconds, None for
    the hold of a job.
    """

    amount_micros: int
    asked: tuple[str, int] | str | None = None
    under: tuple[int, int] | None = None
    opener: int
    api_key_id: str
    line: Line | None = None
    ttl: int | None = DEFAULT_TTL
    spend_scopes: tuple[Scope, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    method: Method = Method.RESERVE

    starts_work: ClassVar[bool] = True

    def caps(self, working: WorkingSet) -> list[Cap]:
        if not self.spend_scopes and not working.limits:
            return []
        wallet = working.wallets.get(self.wallet_id)
        if wallet is None:
            return []
        return working.caps(self.wallet_id, self.api_key_id, self.spend_scopes, working.time(wallet))

    def fingerprint(self) -> bytes:
        labels = sorted(self.labels.items()) if self.labels else []
        scopes = [list(scope) for scope in self.spend_scopes] if self.spend_scopes else []
        asked = self.amount_micros if self.asked is None else self.asked
        under = [] if self.under is None else [self.under]
        return fingerprint_of("reserve", asked, self.ttl, scopes, labels, *under)

    def decide(self, working: WorkingSet, attempt: Attempt) -> Outcome:
        wallet = working.wallet(self.wallet_id)
        caps = self.caps(working)
        counters = working.counters_of(self.wallet_id, caps)
        held = rules.reserve(wallet, self.amount_micros, caps, counters)
        return movements.hold(
            working,
            wallet,
            held,
            amount_micros=self.amount_micros,
            opener=self.opener,
            api_key_id=self.api_key_id,
            line=self.line,
            ttl=self.ttl,
            scopes=self.spend_scopes,
            labels=self.labels,
            attempt=attempt,
        )


class Ask(Reserve, kw_only=True):
    """Ask what a Reserve would be answered.

    Where its key was answered, that; else its refusal, which the key remembers as that of the Reserve itself;
    else nothing is held, and the outcome has no reservation.
    """

    def decide(self, working: WorkingSet, attempt: Attempt) -> Outcome:  # noqa: ARG002 - as in every operation
        wallet = working.wallet(self.wallet_id)
        caps = self.caps(working)
        rules.reserve(wallet, self.amount_micros, caps, working.counters_of(self.wallet_id, caps))
        return working.unchanged(wallet)


class OnReservation(Operation, kw_only=True):
    """An operation on a reservation that is there.

    `reserve_key` names it in place of its number: by the key of the caller's Reserve, which may be one
    that waits in the same queue. Its group then sets `reservation` to the number that it finds, or to 0,
    which is none that there is.
    """

    reservation: int = 0
    reserve_key: str = ""

    @property
    def reserve(self) -> Identity | None:
        """The Reserve that made the reservation, where it is named by that."""
        if not self.reserve_key:
            return None
        return (self.reserve_key, self.wallet_id, self.caller, _RESERVE)


class Commit(OnReservation, kw_only=True):
    """Charge part or all of a hold."""

    amount_micros: int | None = None
    quantity: int | None = None
    keep_rest: bool = False
    capture: int = 1

    method: ClassVar[Method] = Method.COMMIT

    def fingerprint(self) -> bytes:
        return fingerprint_of(
            "commit", self.reservation, self.amount_micros, self.quantity, self.keep_rest, self.capture
        )

    def decide(self, working: WorkingSet, attempt: Attempt) -> Outcome:
        wallet = working.wallet(self.wallet_id)
        reservation = working.reservation(self.wallet_id, self.reservation)
        now = working.time(wallet)
        decided = rules.commit(
            wallet,
            reservation,
            rules.Charge(self.amount_micros, self.quantity),
            caller=self.caller,
            capture=self.capture,
            keep_rest=self.keep_rest,
            now=now,
        )
        if isinstance(decided, rules.Captured):
            return movements.capture(working, wallet, reservation, decided, attempt, at=now)
        if isinstance(decided, rules.SettledLate):
            return movements.settle_late(working, wallet, reservation, decided, attempt)
        return movements.as_captured(working, reservation, decided.capture, self.amount_micros, self.quantity)


class Release(OnReservation, kw_only=True):
    """Give the rest of a hold back.

    `opener` is whose hold it is where the server releases another's, whose right to it has ended.
    """

    opener: int | None = None

    method: ClassVar[Method] = Method.RELEASE

    def fingerprint(self) -> bytes:
        return fingerprint_of("release", self.reservation)

    def decide(self, working: WorkingSet, attempt: Attempt) -> Outcome:
        wallet = working.wallet(self.wallet_id)
        reservation = working.reservation(self.wallet_id, self.reservation)
        now = working.time(wallet)
        caller = self.caller if self.opener is None else self.opener
        decided = rules.release(wallet, reservation, caller=caller, now=now)
        if isinstance(decided, rules.AsItEnded):
            return movements.as_it_stands(working, wallet, reservation)
        return movements.capture(working, wallet, reservation, decided, attempt, at=now)


class EndHold(OnReservation, kw_only=True):
    """End the hold of a job: charge what is found used under the wallet's lock, and give the rest back.

    However many ways a job can end, its hold has one key, so that it ends once: who comes later is answered
    as the first was, and looks how that was.
    """

    ending: Ending

    method: ClassVar[Method] = Method.COMMIT

    def fingerprint(self) -> bytes:
        return fingerprint_of("end", self.reservation)

    def decide(self, working: WorkingSet, attempt: Attempt) -> Outcome:
        quantity = self.ending.quantity
        same: dict[str, Any] = {
            "wallet_id": self.wallet_id,
            "caller": self.caller,
            "idempotency_key": self.idempotency_key,
            "reservation": self.reservation,
        }
        operation = Commit(**same, quantity=quantity) if quantity else Release(**same)
        return operation.decide(working, attempt)


class Extend(OnReservation, kw_only=True):
    """Set more aside for a hold, or let it last longer, or both."""

    amount_micros: int = 0
    ttl: int | None = None

    method: ClassVar[Method] = Method.EXTEND

    def fingerprint(self) -> bytes:
        return fingerprint_of("extend", self.reservation, self.amount_micros, self.ttl)

    def decide(self, working: WorkingSet, attempt: Attempt) -> Outcome:
        wallet = working.wallet(self.wallet_id)
        reservation = working.reservation(self.wallet_id, self.reservation)
        caps = working.caps_of(reservation)
        extended = rules.extend(
            wallet,
            reservation,
            caps,
            working.counters_of(self.wallet_id, caps),
            caller=self.caller,
            amount_micros=self.amount_micros,
            ttl=self.ttl,
            now=working.time(wallet),
        )
        return movements.extend(working, wallet, reservation, extended, attempt)


class SettleDue(Operation, kw_only=True):
    """Nothing of its own: what is due on the wallet is written before it, as before every operation."""

    method: ClassVar[Method] = Method.SETTLE_DUE

    def fingerprint(self) -> bytes:
        return b""

    def decide(self, working: WorkingSet, attempt: Attempt) -> Outcome:  # noqa: ARG002 - as in every operation
        return working.unchanged(working.wallet(self.wallet_id))
