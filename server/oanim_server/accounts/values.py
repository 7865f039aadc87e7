"""The nouns of accounts. A key's secret shows in no `repr`: these values may be logged."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oanim_server.ledger.values import WalletFacts


class Role(IntEnum):
    """What a key may do. The numbers are those of Role in the contract."""

    USER = 1
    WORKER = 2
    SERVICE = 3
    ADMIN = 4


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose key a call carries."""

    account_id: int
    key_id: str
    role: Role


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it can be listed. `number` counts the account's keys from 1; times in microseconds."""

    key_id: str
    number: int
    name: str
    role: Role
    created_at: int
    revoked_at: int | None
    used: bool


@dataclass(frozen=True, slots=True)
class KeyMade:
    """A key, and the key itself where it may be shown: `secret` is the whole of it, `anim_` and so on."""

    account_id: int
    api_key: ApiKey
    secret: str | None = field(repr=False)
    replayed: bool


@dataclass(frozen=True, slots=True)
class SignedUp:
    """An account with its first key, and the wallet as it stood when it was opened."""

    account_id: int
    api_key: ApiKey
    secret: str | None = field(repr=False)
    wallet: WalletFacts
    replayed: bool


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a caller is. `email` is empty for an account that was not signed up for."""

    account_id: int
    email: str
    api_key: ApiKey


@dataclass(frozen=True, slots=True)
class AccountSummary:
    """An account as the operator sees it, with its wallet as it was last written."""

    account_id: int
    email: str
    name: str
    role: Role
    created_at: int
    wallet: WalletFacts
