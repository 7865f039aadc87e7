"""The journal's rows and their hash chain.

A link is SHA-256 over the former link (32 bytes) and the row's fields in the order of `Row`, without the
link itself, as a JSON array in UTF-8: no white space, nothing escaped that JSON does not require, bytes
as lower-case hex, `lots` and `entries` as the JSON texts that are stored. The first link of a wallet
follows 32 zero bytes. Integers and microseconds since 1970 only, so that both databases give the same
bytes. Changing this breaks every chain that was ever written.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from oanim_server.ledger.values import (
    Kind,
    Line,
    Lot,
    Outcome,
    Reservation,
    ReservationFacts,
    Scope,
    State,
    UsageItem,
    Wallet,
    WalletFacts,
    maker,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

GENESIS = bytes(32)


class Row(NamedTuple):
    """A transaction with its entries and the answer that its key gets. The columns of `transactions`."""

    wallet_id: int
    seq: int
    at: int
    kind: int
    caller: int
    method: int
    idem_key: str | None
    fingerprint: bytes | None
    reservation: int
    state: int
    reserved_micros: int
    captured_micros: int
    captures: int
    captured_quantity: int
    expires_at: int | None
    charged_micros: int
    quantity: int
    uncollected_micros: int
    balance_micros: int
    held_micros: int
    debt_micros: int
    frozen: int
    lots: str
    entries: str
    seal: bytes | None
    link: bytes


# Of fields in the order of `Row`.
row_of = maker(Row)
_wallet_facts, _reservation_facts = maker(WalletFacts), maker(ReservationFacts)
COLUMNS = Row._fields
_FINGERPRINT, _SEAL = COLUMNS.index("fingerprint"), COLUMNS.index("seal")


def compact(value: object) -> str:
    """JSON without white space, for a column."""
    return orjson.dumps(value).decode()


def link_of(former: bytes, fields: tuple[Any, ...]) -> bytes:
    """Chain a row, given without its link, to the former one."""
    values = list(fields)
    if (fingerprint := fields[_FINGERPRINT]) is not None:
        values[_FINGERPRINT] = fingerprint.hex()
    if (seal := fields[_SEAL]) is not None:
        values[_SEAL] = seal.hex()
    return hashlib.sha256(former + orjson.dumps(values)).digest()


def pinned(line: Line | None, scopes: tuple[Scope, ...], labels: dict[str, str]) -> str:
    """What is pinned to a reservation, as JSON: the line, the scopes, the labels by their names."""
    return _pinned(line, scopes, tuple(sorted(labels.items())) if labels else ())


# Remembered: what a key holds credits for is often as it was before.
@lru_cache(maxsize=4_096)
def _pinned(line: Line | None, scopes: tuple[Scope, ...], labels: tuple[tuple[str, str], ...]) -> str:
    return compact([line and list(line), [list(scope) for scope in scopes], labels])


@lru_cache(maxsize=4_096)
def seal_of_hold(opener: int, api_key_id: str, pinned: str) -> bytes:
    """SHA-256 of what never changes of a reservation and stands in no column of the journal.

    It is that of one JSON array: the opener, the key's id, and what is pinned.
    """
    return hashlib.sha256(f"[{opener},{compact(api_key_id)},{pinned[1:]}".encode()).digest()


def seal_of_item(item: UsageItem) -> bytes:
    """SHA-256 of what stands in no column of the journal of a usage item."""
    said = [item.api_key_id, list(item.line), sorted(item.labels.items())]
    return hashlib.sha256(orjson.dumps(said)).digest()


def seal_of_made(lots: Iterable[Lot], said: Sequence[object] = ()) -> bytes | None:
    """SHA-256 of what never changes of the lots that a row made, and of what else was said with it.

    `said` is a purchase's id, the operator's name and reason, or all limits that are set from then on. None
    where there is neither.
    """
    made = [
        [lot.number, lot.origin.value, lot.amount_micros, lot.priority, lot.expires_at, lot.created_at]
        for lot in lots
    ]
    return hashlib.sha256(orjson.dumps([made, list(said)])).digest() if made or said else None


def wallet_facts(wallet: Wallet) -> WalletFacts:
    """A wallet as an answer shows it now."""
    return _wallet_facts(
        (
            wallet.wallet_id,
            wallet.balance_micros,
            wallet.held_micros,
            wallet.debt_micros,
            wallet.seq,
            wallet.frozen,
        )
    )


def reservation_facts(reservation: Reservation) -> ReservationFacts:
    """A reservation as an answer shows it now."""
    return _reservation_facts(
        (
            reservation.wallet_id,
            reservation.number,
            reservation.state,
            reservation.opener,
            reservation.reserved_micros,
            reservation.captured_micros,
            reservation.uncollected_micros,
            reservation.captures,
            reservation.captured_quantity,
            reservation.expires_at,
            reservation.created_at,
            reservation.line,
            reservation.scopes,
            reservation.labels,
            0,
        )
    )


def replay(row: Row, reservation: Reservation | None) -> Outcome:
    """The answer that a row gave: what never changes from the reservation, how it stood from the row."""
    facts = None
    if reservation is not None:
        facts = reservation_facts(reservation)._replace(
            state=State(row.state),
            reserved_micros=row.reserved_micros,
            captured_micros=row.captured_micros,
            uncollected_micros=_uncollected(row, reservation),
            captures=row.captures,
            captured_quantity=row.captured_quantity,
            expires_at=row.expires_at,
        )
    released = row.reserved_micros - row.captured_micros if row.kind == Kind.RELEASE else 0
    return Outcome(
        wallet=WalletFacts(
            row.wallet_id, row.balance_micros, row.held_micros, row.debt_micros, row.seq, bool(row.frozen)
        ),
        reservation=facts,
        charged_micros=row.charged_micros,
        uncollected_micros=row.uncollected_micros,
        released_micros=released,
        replayed=True,
    )


def _uncollected(row: Row, reservation: Reservation) -> int:
    """What nobody had paid of a reservation's work; of one with a counter, before a late Commit, too."""
    if reservation.reported_quantity and reservation.line is not None:
        return reservation.line.cost_micros(row.captured_quantity) - row.captured_micros
    return row.uncollected_micros
