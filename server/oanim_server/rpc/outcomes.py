"""What became of an operation, written into its answer.

Into the messages that the answer has, from the outside in: a message that is given to another is copied into
it, and one within three of them three times. What is mostly 0 or false is set where it is not: in the bytes
of an answer that is the same, and reading a value costs less than setting it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from oanim_server.ledger import ids

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from oanim_server.ledger.values import Line, Outcome, ReservationFacts, WalletFacts
    from openanimate.metering.v1 import reservation_pb2, wallet_pb2
    from openanimate.metering.v1 import wallet_service_pb2 as pb

    OnReservation: TypeAlias = pb.ReserveResponse | pb.CommitResponse | pb.ReleaseResponse | pb.ExtendResponse

SERVER = "server"

# A busy account's id is written many times a second.
account_text = lru_cache(maxsize=65_536)(ids.account_text)


def instant(micros: int, into: Timestamp) -> None:
    """A point in time."""
    into.seconds, rest = divmod(micros, 1_000_000)
    into.nanos = rest * 1_000


def wallet(facts: WalletFacts, into: wallet_pb2.Wallet) -> None:
    """A wallet."""
    wallet_id, balance_micros, held_micros, debt_micros, seq, frozen = facts
    into.account_id = account_text(wallet_id)
    into.balance_micros = balance_micros
    into.held_micros = held_micros
    into.available_micros = balance_micros - held_micros
    into.wallet_seq = seq
    if debt_micros:
        into.debt_micros = debt_micros
    if frozen:
        into.frozen = True


def reservation(facts: ReservationFacts, into: reservation_pb2.Reservation) -> None:
    """A reservation."""
    # All at once: looked up one by one, the names of a named tuple are a tenth of what this costs.
    (
        wallet_id,
        number,
        state,
        opener,
        reserved_micros,
        captured_micros,
        uncollected_micros,
        captures,
        captured_quantity,
        expires_at,
        created_at,
        line,
        scopes,
        labels,
        reported_quantity,
    ) = facts
    account = account_text(wallet_id)
    into.reservation_id = f"{account}-{number}"
    into.account_id = account
    into.state = state  # type: ignore[assignment] # its numbers are the contract's
    into.reserved_micros = reserved_micros
    into.opened_by = account_text(opener) if opener else SERVER
    instant(created_at, into.created_at)
    if expires_at is not None:
        instant(expires_at, into.expires_at)
    if captured_micros:
        into.captured_micros = captured_micros
    if uncollected_micros:
        into.uncollected_micros = uncollected_micros
    if captures:
        into.captures = captures
    if captured_quantity:
        into.captured_quantity = captured_quantity
    if reported_quantity:
        into.reported_quantity = reported_quantity
    if held_micros := facts.held_micros:
        into.held_micros = held_micros
    if line is not None or scopes or labels:
        _asked(facts, into)


def reserved(outcome: Outcome, into: OnReservation) -> None:
    """The answer of a Reserve, or of an Extend; what the others say, too."""
    wallet(outcome.wallet, into.wallet)
    # An operation on a reservation always has one.
    if outcome.reservation is not None:
        reservation(outcome.reservation, into.reservation)
    if outcome.replayed:
        into.replayed = True


def committed(outcome: Outcome, into: pb.CommitResponse) -> None:
    """The answer of a Commit."""
    reserved(outcome, into)
    into.charged_micros = outcome.charged_micros
    if outcome.uncollected_micros:
        into.uncollected_micros = outcome.uncollected_micros


def released(outcome: Outcome, into: pb.ReleaseResponse) -> None:
    """The answer of a Release."""
    reserved(outcome, into)
    into.released_micros = outcome.released_micros


def counted(outcome: Outcome, into: pb.UsageAccepted) -> None:
    """The answer of a usage item."""
    facts = outcome.wallet
    into.charged_micros = outcome.charged_micros
    into.uncollected_micros = outcome.uncollected_micros
    into.available_micros = facts.balance_micros - facts.held_micros
    into.wallet_seq = facts.seq
    into.replayed = outcome.replayed
    if outcome.reservation is not None:
        into.reported_quantity = outcome.reservation.reported_quantity


def _asked(facts: ReservationFacts, into: reservation_pb2.Reservation) -> None:
    """What a Reserve may name besides an amount."""
    if facts.line is not None:
        _pinned(facts.line, into.price)
        into.quoted_quantity = facts.line.quantity
    for subject, limit_micros in facts.scopes:
        into.spend_scopes.add(scope=subject, limit_micros=limit_micros)
    into.labels.update(facts.labels)


def _pinned(line: Line, into: reservation_pb2.PinnedPrice) -> None:
    into.price_version = line.price_version
    into.model = line.model
    into.amount_micros = line.price_micros
    into.base_quantity = line.base_quantity
    into.unit = line.unit
    into.category = line.category
