"""The rows of accounts and API keys: every statement about them, for both databases.

A secret is made anew only by `reissue`, a first use is noted only by `use_first`: each is one guarded
UPDATE of the key's row, so that on PostgreSQL one of the two comes first and the other sees it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import and_, func, insert, select, update

from oanim_server.accounts.values import AccountSummary, ApiKey, Role
from oanim_server.database.tables import accounts, api_keys, limits, wallets
from oanim_server.ledger.values import SECOND, WalletFacts

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.sql import ColumnElement

    from oanim_server.accounts.keys import Key

REISSUE_WINDOW = 600 * SECOND
# A revocation may become visible this much later than one that is newer: longer than any transaction lasts.
VISIBLE_WITHIN = 60 * SECOND

# Opening accounts is serialised over all replicas: e-mail addresses and what a day may give are counted.
_OPENING = 7_246_035_232


class AccountRow(NamedTuple):
    """An account."""

    account_id: int
    role: int
    email: str | None
    name: str
    created_at: int
    sign_up_key: str
    address: str
    free_credits_micros: int


class KeyRow(NamedTuple):
    """A key, with its account's role."""

    key_id: str
    account_id: int
    number: int
    name: str
    secret_hash: bytes
    created_at: int
    revoked_at: int | None
    first_used_at: int | None
    role: int

    @classmethod
    def of(cls, key: Key, *, account_id: int, number: int, name: str, now: int, role: int) -> KeyRow:
        """The row of a key that is made now."""
        return cls(key.key_id, account_id, number, name, key.secret_hash, now, None, None, role)

    @property
    def facts(self) -> ApiKey:
        """The key as it can be listed."""
        return ApiKey(
            key_id=self.key_id,
            number=self.number,
            name=self.name,
            role=Role(self.role),
            created_at=self.created_at,
            revoked_at=self.revoked_at,
            used=self.first_used_at is not None,
        )


_ACCOUNT = select(*(accounts.c[name] for name in AccountRow._fields))
_KEY = select(*(api_keys.c[name] for name in KeyRow._fields[:-1]), accounts.c.role).join_from(
    api_keys, accounts
)


# Accounts -------------------------------------------------------------------------------------------


def lock_opening(connection: Connection) -> None:
    """Wait for every other opening of an account: what is read after this is not older than it."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_OPENING)))


def lock_account(connection: Connection, account_id: int) -> int:
    """The account's role. Its keys are counted after this: nobody makes one at the same time."""
    query = select(accounts.c.role).where(accounts.c.account_id == account_id)
    return int(connection.execute(query.with_for_update(key_share=True)).scalar_one())


def account(connection: Connection, account_id: int) -> AccountRow:
    """An account that is there."""
    return AccountRow._make(connection.execute(_ACCOUNT.where(accounts.c.account_id == account_id)).one())


def opened(connection: Connection, email: str | None, sign_up_key: str) -> AccountRow | None:
    """The account of an e-mail address or, without one, the account that an attempt made."""
    if email is not None:
        query = _ACCOUNT.where(accounts.c.email == email)
    else:
        query = _ACCOUNT.where(accounts.c.email.is_(None), accounts.c.sign_up_key == sign_up_key)
    found = connection.execute(query).one_or_none()
    return AccountRow._make(found) if found is not None else None


def page(connection: Connection, *, email: str, offset: int, limit: int) -> list[AccountSummary]:
    """Accounts with their wallets, newest first; of one e-mail address, or all."""
    w = wallets.c
    facts = (w.wallet_id, w.balance_micros, w.held_micros, w.debt_micros, w.seq, w.frozen)
    of = (accounts.c.account_id, accounts.c.email, accounts.c.name, accounts.c.role, accounts.c.created_at)
    query = select(*of, *facts).join_from(accounts, wallets)
    if email:
        query = query.where(accounts.c.email == email)
    query = query.order_by(accounts.c.created_at.desc(), accounts.c.account_id)
    return [
        AccountSummary(
            account_id=row[0],
            email=row[1] or "",
            name=row[2],
            role=Role(row[3]),
            created_at=row[4],
            wallet=WalletFacts(*row[5:10], frozen=bool(row[10])),
        )
        for row in connection.execute(query.offset(offset).limit(limit))
    ]


def sign_ups_from(connection: Connection, address: str, since: int, limit: int) -> list[int]:
    """When the latest accounts were signed up for from an address, newest first."""
    query = (
        select(accounts.c.created_at)
        .where(accounts.c.address == address, accounts.c.created_at > since)
        .order_by(accounts.c.created_at.desc())
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def given_away(connection: Connection, since: int) -> int:
    """The free credits of the accounts that were opened from an instant on, in micro-USD."""
    total = func.coalesce(func.sum(accounts.c.free_credits_micros), 0)
    return int(connection.execute(select(total).where(accounts.c.created_at >= since)).scalar_one())


def add_account(connection: Connection, row: AccountRow) -> None:
    connection.execute(insert(accounts).values(row._asdict()))


# Keys -----------------------------------------------------------------------------------------------


def add_key(connection: Connection, row: KeyRow, *, idempotency_key: str | None) -> None:
    values = row._asdict()
    del values["role"]  # the account's
    connection.execute(insert(api_keys).values(**values, idem_key=idempotency_key))


def key(connection: Connection, key_id: str) -> KeyRow:
    """A key that is there: keys are never deleted."""
    return KeyRow._make(connection.execute(_KEY.where(api_keys.c.key_id == key_id)).one())


def key_named(connection: Connection, key_id: str) -> KeyRow | None:
    """The key with an id that somebody says."""
    return _key(connection, api_keys.c.key_id == key_id)


def first_key(connection: Connection, account_id: int) -> KeyRow:
    """The key that came with the account."""
    first = and_(api_keys.c.account_id == account_id, api_keys.c.number == 1)
    return KeyRow._make(connection.execute(_KEY.where(first)).one())


def key_made_by(connection: Connection, account_id: int, idempotency_key: str) -> KeyRow | None:
    """The key that an attempt of the account made."""
    return _key(connection, and_(api_keys.c.account_id == account_id, api_keys.c.idem_key == idempotency_key))


def keys_of(connection: Connection, account_id: int, *, before: int | None, limit: int) -> list[KeyRow]:
    """The account's keys below a number, newest first."""
    query = _KEY.where(api_keys.c.account_id == account_id)
    if before is not None:
        query = query.where(api_keys.c.number < before)
    found = connection.execute(query.order_by(api_keys.c.number.desc()).limit(limit))
    return [KeyRow._make(row) for row in found]


def count_keys(connection: Connection, account_id: int) -> tuple[int, int]:
    """How many keys the account has ever had, and how many of them work."""
    query = select(
        func.coalesce(func.max(api_keys.c.number), 0),
        func.count().filter(api_keys.c.revoked_at.is_(None)),
    ).where(api_keys.c.account_id == account_id)
    made, working = connection.execute(query).one()
    return made, working


def reissue(connection: Connection, key: Key, now: int) -> bool:
    """Give a key that nobody has used yet this fresh secret, for ten minutes after it was made."""
    changed = connection.execute(
        update(api_keys)
        .where(api_keys.c.key_id == key.key_id)
        .where(api_keys.c.first_used_at.is_(None), api_keys.c.revoked_at.is_(None))
        .where(api_keys.c.created_at > now - REISSUE_WINDOW)
        .values(secret_hash=key.secret_hash)
    )
    return changed.rowcount == 1


def use_first(connection: Connection, key_id: str, secret_hash: bytes, now: int) -> bool:
    """Note the first use of a key; False when its secret was made anew, or it was revoked, before."""
    connection.execute(
        update(api_keys)
        .where(api_keys.c.key_id == key_id, api_keys.c.secret_hash == secret_hash)
        .where(api_keys.c.first_used_at.is_(None), api_keys.c.revoked_at.is_(None))
        .values(first_used_at=now)
    )
    row = key(connection, key_id)
    return row.secret_hash == secret_hash and row.revoked_at is None


def revoke(connection: Connection, account_id: int, key_id: str, now: int) -> KeyRow | None:
    """Revoke a key of the account, unless it is; None when it has no such key."""
    connection.execute(
        update(api_keys)
        .where(api_keys.c.key_id == key_id, api_keys.c.account_id == account_id)
        .where(api_keys.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    return _key(connection, and_(api_keys.c.key_id == key_id, api_keys.c.account_id == account_id))


def revoked_since(connection: Connection, seen: int | None) -> tuple[int, list[str]]:
    """The latest revocation, and the keys that were revoked since about the one that was seen last.

    :param seen: when the latest revocation was that is known; None to learn it without any keys.
    """
    if seen is None:
        latest = connection.execute(select(func.max(api_keys.c.revoked_at))).scalar()
        return latest or 0, []
    query = select(api_keys.c.key_id, api_keys.c.revoked_at)
    found = connection.execute(query.where(api_keys.c.revoked_at > seen - VISIBLE_WITHIN)).all()
    return max([seen, *(at for _, at in found)]), [key_id for key_id, _ in found]


def _key(connection: Connection, which: ColumnElement[bool]) -> KeyRow | None:
    found = connection.execute(_KEY.where(which)).one_or_none()
    return KeyRow._make(found) if found is not None else None


def is_key_of(connection: Connection, *, account_id: int, key_id: str) -> bool:
    """Whether a key is an account's, revoked or not."""
    query = select(api_keys.c.key_id).where(api_keys.c.account_id == account_id, api_keys.c.key_id == key_id)
    return connection.execute(query).one_or_none() is not None


def has_limit(connection: Connection, account_id: int, key_id: str) -> bool:
    """Whether a key has a limit of its own."""
    query = select(limits.c.period).where(limits.c.wallet_id == account_id, limits.c.api_key_id == key_id)
    return connection.execute(query.limit(1)).one_or_none() is not None
