"""Stripe's JSON as words: what of an event, a session, a refund or a dispute is of concern here.

Amounts come as cents. Whatever is missing or of another type is a ValueError: nothing is guessed about money.
"""

from __future__ import annotations

import json
from itertools import chain
from typing import TYPE_CHECKING, Any

from oanim_server.checkout.values import (
    MICROS_PER_CENT,
    DisputeWord,
    Event,
    RefundWord,
    SessionWord,
    Word,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

SESSIONS = (
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.async_payment_failed",
    "checkout.session.expired",
)
REFUNDS = ("refund.created", "refund.updated", "refund.failed", "charge.refund.updated")
DISPUTES = (
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
    "charge.dispute.closed",
)
# It says how much in all, not which refunds: they are listed.
CHARGE_REFUNDED = "charge.refunded"
TYPES = (*SESSIONS, *REFUNDS, *DISPUTES, CHARGE_REFUNDED)

_MAX_CENTS = 10**12
_MAX_BYTES = 255
# Stripe's objects are a few deep. What is as deep as Python's stack could be read here, and not there.
_MAX_DEPTH = 100


def event_of(content: Mapping[str, Any]) -> Event:
    """An event, with the object that it is about.

    :raises ValueError: for what is none.
    """
    about = _object(content)
    if _depth(content) > _MAX_DEPTH:
        raise ValueError("it is too deep")
    return Event(
        event_id=_text(content, "id"),
        type=_text(content, "type"),
        object_id=_maybe_text(about, "id"),
        payload=json.dumps(content, separators=(",", ":")),
    )


def word_of(event: Event) -> Word | None:
    """What an event says; None for one that is of no concern, or says only that refunds are to be listed.

    :raises ValueError: for an object that cannot be read.
    """
    about = _object(json.loads(event.payload))
    if event.type in SESSIONS:
        return session_word(about, failed=event.type.endswith("async_payment_failed"))
    if event.type in REFUNDS:
        return refund_word(about)
    if event.type in DISPUTES:
        return dispute_word(about, event.type)
    return None


def payment_of(event: Event) -> str:
    """The payment intent, or the charge, that an event about a charge names."""
    about = _object(json.loads(event.payload))
    return _id(about, "payment_intent") or _maybe_text(about, "id")


def session_word(session: Mapping[str, Any], *, failed: bool = False) -> SessionWord:
    """A checkout session."""
    details = session.get("total_details") or {}
    return SessionWord(
        session_id=_text(session, "id"),
        reference=_maybe_text(session, "client_reference_id"),
        status=_maybe_text(session, "status"),
        paid=session.get("payment_status") == "paid",
        failed=failed,
        payment_intent=_id(session, "payment_intent"),
        subtotal_micros=_micros(session, "amount_subtotal"),
        total_micros=_micros(session, "amount_total"),
        tax_micros=_micros(details, "amount_tax") if details.get("amount_tax") is not None else 0,
        currency=_maybe_text(session, "currency"),
        mode=_maybe_text(session, "mode"),
        livemode=session.get("livemode") is True,
    )


def refund_word(refund: Mapping[str, Any]) -> RefundWord:
    """A refund."""
    return RefundWord(
        refund_id=_text(refund, "id"),
        payment_intent=_id(refund, "payment_intent"),
        charge=_id(refund, "charge"),
        amount_micros=_micros(refund, "amount"),
        state=_text(refund, "status"),
        currency=_maybe_text(refund, "currency"),
    )


def dispute_word(dispute: Mapping[str, Any], event_type: str) -> DisputeWord:
    """A dispute. An inquiry, whose states begin with `warning`, takes no money whatever it comes to."""
    state = _text(dispute, "status")
    inquiry = state.startswith("warning")
    closed = event_type == "charge.dispute.closed"
    return DisputeWord(
        dispute_id=_text(dispute, "id"),
        payment_intent=_id(dispute, "payment_intent"),
        charge=_id(dispute, "charge"),
        amount_micros=_micros(dispute, "amount"),
        state=state,
        withdrawn=not inquiry
        and (event_type == "charge.dispute.funds_withdrawn" or (closed and state == "lost")),
        reinstated=not inquiry
        and (event_type == "charge.dispute.funds_reinstated" or (closed and state == "won")),
        currency=_maybe_text(dispute, "currency"),
    )


def _depth(content: object) -> int:
    depth, level = 0, [content]
    while level:
        depth += 1
        inner = [
            one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)
        ]
        level = list(chain.from_iterable(inner))
    return depth


def _object(content: Mapping[str, Any]) -> Mapping[str, Any]:
    data = content.get("data")
    about = data.get("object") if isinstance(data, dict) else None
    if not isinstance(about, dict):
        raise ValueError("it is about no object")  # noqa: TRY004 - it is bad content, whatever its type
    return about


def _text(content: Mapping[str, Any], name: str) -> str:
    value = content.get(name)
    # What cannot be written in UTF-8 is a ValueError, too.
    if not isinstance(value, str) or not value or "\0" in value or len(value.encode()) > _MAX_BYTES:
        raise ValueError(f"{name} is missing, or no text of at most {_MAX_BYTES} bytes")
    return value


def _maybe_text(content: Mapping[str, Any], name: str) -> str:
    """A text; empty where there is none."""
    return _text(content, name) if content.get(name) else ""


def _id(content: Mapping[str, Any], name: str) -> str:
    """An id, or the id of an object that came with it; empty for none."""
    value = content.get(name)
    return _maybe_text(value, "id") if isinstance(value, dict) else _maybe_text(content, name)


def _micros(content: Mapping[str, Any], name: str) -> int:
    cents = content.get(name)
    if type(cents) is not int or not 0 <= cents <= _MAX_CENTS:
        raise ValueError(f"{name} is no amount")
    return cents * MICROS_PER_CENT
