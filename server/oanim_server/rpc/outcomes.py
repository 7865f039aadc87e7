"""What became of an operation, as the fields of its answer.

Fields, and not messages: a message within a message is copied into it, and one within three of them three
times. Nested mappings are read once, by the constructor of the outermost. That halves what an answer costs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from oanim_server.ledger import ids

if TYPE_CHECKING:
    from oanim_server.ledger.values import Line, Outcome, ReservationFacts, WalletFacts

# By the names that the contract gives them.
Fields: TypeAlias = dict[str, Any]

SERVER = "server"

# A busy account's id is written many times a second.
account_text = lru_cache(maxsize=65_536)(ids.account_text)


def instant(micros: int) -> Fields:
    """A point in time."""
    seconds, rest = divmod(micros, 1_000_000)
    return {"seconds": seconds, "nanos": rest * 1_000}


def wallet(facts: WalletFacts) -> Fields:
    """A wallet."""
    return {
        "account_id": account_text(facts.wallet_id),
        "balance_micros": facts.balance_micros,
        "held_micros": facts.held_micros,
        "available_micros": facts.balance_micros - facts.held_micros,
        "wallet_seq": facts.seq,
        "debt_micros": facts.debt_micros,
        "frozen": facts.frozen,
    }


def reservation(facts: ReservationFacts) -> Fields:
    """A reservation."""
    account = account_text(facts.wallet_id)
    fields: Fields = {
        "reservation_id": f"{account}-{facts.number}",
        "account_id": account,
        "state": int(facts.state),
        "reserved_micros": facts.reserved_micros,
        "captured_micros": facts.captured_micros,
        "held_micros": facts.held_micros,
        "captures": facts.captures,
        "captured_quantity": facts.captured_quantity,
        "created_at": instant(facts.created_at),
        "opened_by": account_text(facts.opener) if facts.opener else SERVER,
        "uncollected_micros": facts.uncollected_micros,
        "reported_quantity": facts.reported_quantity,
    }
    if facts.expires_at is not None:
        fields["expires_at"] = instant(facts.expires_at)
    if facts.line is not None:
        fields["price"] = _pinned(facts.line)
        fields["quoted_quantity"] = facts.line.quantity
    if facts.scopes:
        fields["spend_scopes"] = [
            {"scope": subject} if limit_micros is None else {"scope": subject, "limit_micros": limit_micros}
            for subject, limit_micros in facts.scopes
        ]
    if facts.labels:
        fields["labels"] = facts.labels
    return fields


def reserved(outcome: Outcome) -> Fields:
    """The answer of a Reserve, or of an Extend."""
    return _on_reservation(outcome)


def committed(outcome: Outcome) -> Fields:
    """The answer of a Commit."""
    fields = _on_reservation(outcome)
    fields["charged_micros"] = outcome.charged_micros
    fields["uncollected_micros"] = outcome.uncollected_micros
    return fields


def released(outcome: Outcome) -> Fields:
    """The answer of a Release."""
    fields = _on_reservation(outcome)
    fields["released_micros"] = outcome.released_micros
    return fields


def counted(outcome: Outcome) -> Fields:
    """The answer of a usage item."""
    facts = outcome.wallet
    return {
        "charged_micros": outcome.charged_micros,
        "uncollected_micros": outcome.uncollected_micros,
        "available_micros": facts.balance_micros - facts.held_micros,
        "wallet_seq": facts.seq,
        "replayed": outcome.replayed,
        "reported_quantity": 0 if outcome.reservation is None else outcome.reservation.reported_quantity,
    }


def _on_reservation(outcome: Outcome) -> Fields:
    fields: Fields = {"wallet": wallet(outcome.wallet), "replayed": outcome.replayed}
    # An operation on a reservation always has one.
    if outcome.reservation is not None:
        fields["reservation"] = reservation(outcome.reservation)
    return fields


def _pinned(line: Line) -> Fields:
    return {
        "price_version": line.price_version,
        "model": line.model,
        "amount_micros": line.price_micros,
        "base_quantity": line.base_quantity,
        "unit": line.unit,
        "category": line.category,
    }
