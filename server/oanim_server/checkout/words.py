"""Stripe's JSON as words: what of an event, a session, a refund or a dispute is of concern here.

Amounts come as cents. Whatever is missing or of another type is a ValueError: nothing is guessed about money.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeGuard

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
_LONGEST = 255


def event_of(content: Mapping[str, Any]) -> Event:
    """An event, with the object that it is about.

    :raises ValueError: for what is none.
    """
    about = _object(content)
    if _is_deeper(content, 100):
        raise ValueError("it is too deep")
    return Event(
        event_id=_text(content, "id"),
        type=_text(content, "type"),
        object_id=_word(about, "id"),
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
    return _id(about, "payment_intent") or _text(about, "id")


def session_word(session: Mapping[str, Any], *, failed: bool = False) -> SessionWord:
    """A checkout session."""
    details = session.get("total_details") or {}
    if not isinstance(details, dict):
        raise ValueError("total_details is no object")  # noqa: TRY004 - it is bad content, whatever its type
    reference = session.get("client_reference_id")
    return SessionWord(
        session_id=_text(session, "id"),
        # Whatever others sell with this account may have any reference: it is none of ours then.
        reference=reference if _is_word(reference) else "",
        status=_word(session, "status"),
        paid=session.get("payment_status") == "paid",
        failed=failed,
        payment_intent=_id(session, "payment_intent"),
        # One that sells nothing has no amounts: 0 is never what was sold.
        subtotal_micros=_micros(session, "amount_subtotal", missing=0),
        total_micros=_micros(session, "amount_total", missing=0),
        tax_micros=_micros(details, "amount_tax", missing=0),
        currency=_word(session, "currency"),
        mode=_word(session, "mode"),
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
        currency=_word(refund, "currency"),
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
        currency=_word(dispute, "currency"),
    )


def _is_deeper(content: object, levels: int) -> bool:
    """Stripe's objects are a few deep: what is as deep as Python's stack is read here, and not there."""
    level = [content]
    while level and levels:
        levels -= 1
        inside = [
            one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)
        ]
        level = [one for found in inside for one in found]
    return bool(level)


def _object(content: Mapping[str, Any]) -> Mapping[str, Any]:
    data = content.get("data")
    about = data.get("object") if isinstance(data, dict) else None
    if not isinstance(about, dict):
        raise ValueError("it is about no object")  # noqa: TRY004 - it is bad content, whatever its type
    return about


def _is_word(value: object) -> TypeGuard[str]:
    """Whether it is a short text that both databases can keep."""
    return isinstance(value, str) and len(value) <= _LONGEST and value.isprintable()


def _word(content: Mapping[str, Any], name: str) -> str:
    """A text that may be missing."""
    value = content.get(name)
    if value is None:
        return ""
    if not _is_word(value):
        raise ValueError(f"{name} is no text")
    return value


def _text(content: Mapping[str, Any], name: str) -> str:
    """A text that must be there."""
    value = _word(content, name)
    if not value:
        raise ValueError(f"{name} is missing")
    return value


def _id(content: Mapping[str, Any], name: str) -> str:
    """An id, or the id of an object that came with it; empty for none."""
    value = content.get(name)
    return _text(value, "id") if isinstance(value, dict) else _word(content, name)


def _micros(content: Mapping[str, Any], name: str, *, missing: int | None = None) -> int:
    cents = content.get(name)
    if cents is None and missing is not None:
        return missing
    if type(cents) is not int or not 0 <= cents <= _MAX_CENTS:
        raise ValueError(f"{name} is no amount")
    return cents * MICROS_PER_CENT
