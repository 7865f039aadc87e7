"""Requests as bytes, made before the clock starts: of unary calls, and messages of a Meter stream."""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING

from oanim.keys import new_key
from openanimate.metering.v1.wallet_service_pb2 import (
    CommitRequest,
    MeterOperation,
    MeterRequest,
    ReserveRequest,
    ReserveResponse,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HELD_MICROS, CHARGED_MICROS = 2, 1


class Unary:
    """Reserves of some accounts, and the rest of the Commits that will follow."""

    def __init__(self, accounts: Sequence[str], ready: int) -> None:
        self._accounts = accounts
        self._reserves = deque(self._reserve() for _ in range(ready))
        self._charges = deque(_charge() for _ in range(ready))

    def reserve(self) -> bytes:
        """A ReserveRequest."""
        return self._reserves.popleft() if self._reserves else self._reserve()

    def commit(self, held: bytes) -> bytes:
        """The CommitRequest of what a Reserve answered: two messages in a row are one of all fields."""
        reservation_id = ReserveResponse.FromString(held).reservation.reservation_id
        charge = self._charges.popleft() if self._charges else _charge()
        return CommitRequest(reservation_id=reservation_id).SerializeToString() + charge

    def _reserve(self) -> bytes:
        request = ReserveRequest(
            account_id=random.choice(self._accounts), idempotency_key=new_key(), amount_micros=HELD_MICROS
        )
        return request.SerializeToString()


def _charge() -> bytes:
    return CommitRequest(idempotency_key=new_key(), amount_micros=CHARGED_MICROS).SerializeToString()


class Metered:
    """Messages of one Meter stream: each holds, and charges what the one before it held, by its key."""

    def __init__(self, accounts: Sequence[str], size: int, ready: int) -> None:
        self._accounts = accounts
        self.size = size
        self._held: list[tuple[str, str]] = []
        self._messages = deque(self._message() for _ in range(ready))

    def message(self) -> bytes:
        """The next MeterRequest."""
        return self._messages.popleft() if self._messages else self._message()

    def _message(self) -> bytes:
        charged = self._held
        held = [(random.choice(self._accounts), new_key()) for _ in range(self.size // 2)]
        operations = [_RESERVE.of(account, key) for account, key in held]
        operations += [_CHARGE.of(new_key(), key, account) for account, key in charged]
        random.shuffle(operations)
        self._held = held
        # A message of many operations is the messages of one each, in a row.
        return b"".join(operations)


class _Shape:
    """A message whose texts have a length each, cut where they stand: quicker than making it each time."""

    def __init__(self, message: MeterRequest, texts: Iterable[str]) -> None:
        self._pieces: list[bytes] = []
        rest = message.SerializeToString()
        for text in texts:
            before, _, rest = rest.partition(text.encode())
            self._pieces.append(before)
        self._rest = rest

    def of(self, *texts: str) -> bytes:
        """The message with other texts, of the same lengths, in the order of its fields."""
        return (
            b"".join(piece + text.encode() for piece, text in zip(self._pieces, texts, strict=True))
            + self._rest
        )


_ACCOUNT, _KEY, _RESERVE_KEY = "a" * 12, "k" * 36, "r" * 36
_RESERVE = _Shape(
    MeterRequest(
        operations=[
            MeterOperation(
                reserve=ReserveRequest(account_id=_ACCOUNT, idempotency_key=_KEY, amount_micros=HELD_MICROS)
            )
        ]
    ),
    (_ACCOUNT, _KEY),
)
_CHARGE = _Shape(
    MeterRequest(
        operations=[
            MeterOperation(
                commit=CommitRequest(idempotency_key=_KEY, amount_micros=CHARGED_MICROS),
                reserve_key=_RESERVE_KEY,
                account_id=_ACCOUNT,
            )
        ]
    ),
    (_KEY, _RESERVE_KEY, _ACCOUNT),
)
