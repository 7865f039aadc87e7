"""Accounts and their keys."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
)

from oanim_server.database.tables.schema import Int64, metadata, partial_index

accounts = Table(
    "accounts",
    metadata,
    Column("account_id", Int64, primary_key=True, autoincrement=False),
    Column("role", Integer, nullable=False),
    # Folded, so that case tells nobody apart; null for an account that was not signed up for.
    Column("email", Text),
    Column("name", Text, nullable=False),
    Column("created_at", Int64, nullable=False),
    # The idempotency key that made it: within the e-mail address, or among the accounts without one.
    Column("sign_up_key", Text, nullable=False),
    # The peer that signed up, IPv6 by /64; empty for loopback, which is not counted.
    Column("address", Text, nullable=False),
    Column("free_credits_micros", Int64, nullable=False),
    CheckConstraint("role BETWEEN 1 AND 4", "role"),
    CheckConstraint("free_credits_micros >= 0", "free_credits"),
    sqlite_strict=True,
)
Index("uq_accounts_email", accounts.c.email, unique=True)
Index("ix_accounts_created_at", accounts.c.created_at)
Index("ix_accounts_address", accounts.c.address, accounts.c.created_at)
partial_index(
    "uq_accounts_sign_up_key",
    accounts.c.sign_up_key,
    unique=True,
    where="email IS NULL",
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("account_id", Int64, ForeignKey("accounts.account_id"), nullable=False),
    # Counts the account's keys from 1, the one it was opened with.
    Column("number", Int64, nullable=False),
    Column("name", Text, nullable=False),
    # SHA-256 of the whole key.
    Column("secret_hash", LargeBinary, nullable=False),
    Column("created_at", Int64, nullable=False),
    Column("revoked_at", Int64),
    # From here on its secret is never made anew.
    Column("first_used_at", Int64),
    # The attempt that made it; null for the key that came with the account.
    Column("idem_key", Text),
    UniqueConstraint("account_id", "number", name="uq_api_keys_number"),
    UniqueConstraint("account_id", "idem_key", name="uq_api_keys_idem_key"),
    CheckConstraint("number >= 1", "number"),
    sqlite_strict=True,
)
Index("ix_api_keys_revoked_at", api_keys.c.revoked_at)
