"""Rows to values and back: the one place that knows the order of the columns."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from oanim_server.ledger.journal import compact
from oanim_server.ledger.values import Line, Lot, Origin, Pinned, Reservation, Scope, State, UsageItem, Wallet

if TYPE_CHECKING:
    from collections.abc import Sequence

_ORIGINS = {int(origin): origin for origin in Origin}
_STATES = {int(state): state for state in State}


def wallet_of(row: Sequence[Any]) -> Wallet:
    """A row of `wallets`, with its open lots."""
    wallet_id, balance, held, debt, seq, at, link, frozen, next_due_at, lots_made, limits, open_lots = row
    return Wallet(
        wallet_id, balance, held, debt, seq, at, bytes(link), bool(frozen), next_due_at, lots_made, limits,
        {lot[0]: lot_of(lot) for lot in orjson.loads(open_lots)},
    )  # fmt: skip


def wallet_row(wallet: Wallet) -> tuple[Any, ...]:
    """What `insert_wallets` takes."""
    return (
        wallet.wallet_id,
        wallet.balance_micros,
        wallet.held_micros,
        wallet.debt_micros,
        wallet.seq,
        wallet.at,
        wallet.link,
        int(wallet.frozen),
        wallet.next_due_at,
        wallet.lots_made,
        wallet.limits,
        _open_lots(wallet),
    )


def _open_lots(wallet: Wallet) -> str:
    return compact([lot_fields(lot) for lot in wallet.lots.values() if lot.remaining_micros])


def lot_of(fields: Sequence[Any]) -> Lot:
    """One of `open_lots`, or a row of `lots` without its wallet."""
    number, origin, amount, remaining, held, priority, expires_at, created_at, lapsed = fields
    return Lot(number, _ORIGINS[origin], amount, remaining, held, priority, expires_at, created_at, lapsed)


def lot_fields(lot: Lot) -> tuple[Any, ...]:
    """What `lot_of` reads."""
    return (
        lot.number,
        int(lot.origin),
        lot.amount_micros,
        lot.remaining_micros,
        lot.held_micros,
        lot.priority,
        lot.expires_at,
        lot.created_at,
        lot.lapsed_micros,
    )


def reservation_of(row: Sequence[Any]) -> Reservation:
    """A row of `reservations`."""
    (wallet_id, number, state, opener, api_key_id, reserved, captured, uncollected, captures,
     captured_quantity, parts, expires_at, created_at, ended_at, last_seq, reported,
     pinned) = row  # fmt: skip
    line, scopes, labels = pinned_of(pinned)
    # CPython 3.11 keeps thousands of tuples of twenty and uses none of them again: nineteen by place.
    reservation = Reservation(
        wallet_id,
        number,
        _STATES[state],
        opener,
        api_key_id,
        reserved,
        captured,
        uncollected,
        captures,
        captured_quantity,
        [(lot, micros) for lot, micros in orjson.loads(parts)],
        expires_at,
        created_at,
        ended_at,
        last_seq,
        line,
        scopes,
        labels,
        pinned,
    )
    reservation.reported_quantity = reported
    return reservation


# Remembered: what a key holds credits for is often as it was before. Nobody changes the labels.
@lru_cache(maxsize=4_096)
def pinned_of(text: str) -> Pinned:
    """What `journal.pinned` wrote."""
    line, scopes, labels = orjson.loads(text)
    return Pinned(
        None if line is None else Line(*line),
        tuple(Scope(subject, limit) for subject, limit in scopes),
        dict(labels),
    )


def reservation_row(reservation: Reservation) -> tuple[Any, ...]:
    """What `insert_reservations` takes."""
    return (
        reservation.wallet_id,
        reservation.number,
        int(reservation.state),
        reservation.opener,
        reservation.api_key_id,
        reservation.reserved_micros,
        reservation.captured_micros,
        reservation.uncollected_micros,
        reservation.captures,
        reservation.captured_quantity,
        compact(reservation.parts),
        reservation.expires_at,
        reservation.created_at,
        reservation.ended_at,
        reservation.last_seq,
        reservation.reported_quantity,
        reservation.pinned,
    )


def reservation_update(reservation: Reservation, former_seq: int) -> tuple[Any, ...]:
    """What `update_reservations` takes: it changes the row only if nobody else has since `former_seq`."""
    return (
        int(reservation.state),
        reservation.reserved_micros,
        reservation.captured_micros,
        reservation.uncollected_micros,
        reservation.captures,
        reservation.captured_quantity,
        compact(reservation.parts) if reservation.parts else "[]",
        reservation.expires_at,
        reservation.ended_at,
        reservation.last_seq,
        reservation.reported_quantity,
        reservation.wallet_id,
        reservation.number,
        former_seq,
    )


def terms_of(wallet: Wallet) -> tuple[Any, ...]:
    """What few operations change of a wallet: not the amounts, the journal's head, the lots."""
    return (wallet.frozen, wallet.next_due_at, wallet.lots_made, wallet.limits)


def wallet_update(wallet: Wallet, former_seq: int) -> tuple[Any, ...]:
    """What `update_wallets` takes: it changes the row only if nobody else has since `former_seq`."""
    return (
        wallet.balance_micros,
        wallet.held_micros,
        wallet.debt_micros,
        wallet.seq,
        wallet.at,
        wallet.link,
        _open_lots(wallet),
        wallet.wallet_id,
        former_seq,
    )


def wallet_rewrite(wallet: Wallet, former_seq: int) -> tuple[Any, ...]:
    """What `rewrite_wallets` takes, likewise."""
    wallet_id, *values = wallet_row(wallet)
    return (*values, wallet_id, former_seq)


def item_of(row: Sequence[Any]) -> UsageItem:
    """A row of `usage_items`."""
    wallet_id, number, at, api_key_id, *line, labels, charged, uncollected = row
    return UsageItem(
        wallet_id, number, at, api_key_id, Line(*line), orjson.loads(labels), charged, uncollected
    )


def item_row(item: UsageItem) -> tuple[Any, ...]:
    """What `insert_usage_items` takes."""
    return (
        item.wallet_id,
        item.number,
        item.at,
        item.api_key_id,
        *item.line,
        compact(item.labels),
        item.charged_micros,
        item.uncollected_micros,
    )
