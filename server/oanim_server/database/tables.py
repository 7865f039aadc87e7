"""Every table, once, for both databases.

Money is micro-USD and time is microseconds since 1970, both as 64-bit integers, so that a row reads the
same on SQLite and on PostgreSQL. Every primary key and unique constraint of a ledger table contains the
wallet's id: the tables can be distributed by it. On SQLite a composite primary key is a unique index and
the row is kept by its rowid, so that rows append.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

# SQLite's STRICT tables know INTEGER alone, which is 64 bits there.
Int64 = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

# One row a database: what made it, and whether `dev` has used it (serve then refuses it).
marks = Table(
    "marks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    sqlite_strict=True,
)

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
Index(
    "uq_accounts_sign_up_key",
    accounts.c.sign_up_key,
    unique=True,
    sqlite_where=text("email IS NULL"),
    postgresql_where=text("email IS NULL"),
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

price_versions = Table(
    "price_versions",
    metadata,
    Column("version", Int64, primary_key=True, autoincrement=False),
    # What makes it the same publication: of a file its hash, of a call its prices and their time.
    Column("content_hash", LargeBinary, nullable=False, unique=True),
    Column("published_at", Int64, nullable=False),
    Column("effective_at", Int64, nullable=False),
    # Who published it: an API key's id, or `file`.
    Column("published_by", Text, nullable=False),
    sqlite_strict=True,
)

prices = Table(
    "prices",
    metadata,
    Column("version", Int64, ForeignKey("price_versions.version"), nullable=False),
    # Empty is the price of models that are not listed.
    Column("model", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("amount_micros", Int64, nullable=False),
    Column("unit", Text, nullable=False),
    Column("base_quantity", Int64, nullable=False),
    Column("quantity_field", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("is_default", Integer, nullable=False),
    PrimaryKeyConstraint("version", "model"),
    CheckConstraint("amount_micros BETWEEN 1 AND 1000000000000", "amount"),
    CheckConstraint("base_quantity BETWEEN 1 AND 1000000000", "base"),
    sqlite_strict=True,
)

wallets = Table(
    "wallets",
    metadata,
    Column("wallet_id", Int64, ForeignKey("accounts.account_id"), primary_key=True, autoincrement=False),
    Column("balance_micros", Int64, nullable=False),
    Column("held_micros", Int64, nullable=False),
    Column("debt_micros", Int64, nullable=False),
    Column("seq", Int64, nullable=False),
    Column("at", Int64, nullable=False),
    Column("link", LargeBinary, nullable=False),
    Column("frozen", Integer, nullable=False),
    # No reservation and no lot falls due before this instant; it may be early, never late.
    Column("next_due_at", Int64),
    Column("lots_made", Int64, nullable=False),
    CheckConstraint("held_micros >= 0", "held"),
    CheckConstraint("debt_micros >= 0", "debt"),
    CheckConstraint("seq >= 0", "seq"),
    CheckConstraint("frozen IN (0, 1)", "frozen"),
    sqlite_strict=True,
)
Index(
    "ix_wallets_next_due_at",
    wallets.c.next_due_at,
    sqlite_where=text("next_due_at IS NOT NULL"),
    postgresql_where=text("next_due_at IS NOT NULL"),
)

lots = Table(
    "lots",
    metadata,
    Column("wallet_id", Int64, ForeignKey("wallets.wallet_id"), nullable=False),
    Column("lot", Int64, nullable=False),
    Column("origin", Integer, nullable=False),
    Column("amount_micros", Int64, nullable=False),
    Column("remaining_micros", Int64, nullable=False),
    Column("held_micros", Int64, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("expires_at", Int64),
    Column("created_at", Int64, nullable=False),
    PrimaryKeyConstraint("wallet_id", "lot"),
    CheckConstraint("0 <= held_micros AND held_micros <= remaining_micros", "held"),
    CheckConstraint("remaining_micros <= amount_micros", "remaining"),
    CheckConstraint("amount_micros BETWEEN 1 AND 1000000000000", "amount"),
    sqlite_strict=True,
)
Index(
    "ix_lots_open",
    lots.c.wallet_id,
    sqlite_where=text("remaining_micros > 0"),
    postgresql_where=text("remaining_micros > 0"),
)

reservations = Table(
    "reservations",
    metadata,
    Column("wallet_id", Int64, ForeignKey("wallets.wallet_id"), nullable=False),
    # The wallet_seq of the Reserve that made it.
    Column("number", Int64, nullable=False),
    Column("state", Integer, nullable=False),
    # The account that opened it, or 0 for the server.
    Column("opener", Int64, nullable=False),
    Column("api_key_id", Text, nullable=False),
    Column("reserved_micros", Int64, nullable=False),
    Column("captured_micros", Int64, nullable=False),
    Column("uncollected_micros", Int64, nullable=False),
    Column("captures", Int64, nullable=False),
    Column("captured_quantity", Int64, nullable=False),
    # JSON: the parts of lots that it keeps, each a lot and its micros.
    Column("parts", Text, nullable=False),
    Column("expires_at", Int64),
    Column("created_at", Int64, nullable=False),
    Column("ended_at", Int64),
    # The wallet_seq of its latest journal row.
    Column("last_seq", Int64, nullable=False),
    # The pinned price; version 0 and empty words where an amount was reserved.
    Column("price_version", Int64, nullable=False),
    Column("model", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("price_micros", Int64, nullable=False),
    Column("base_quantity", Int64, nullable=False),
    Column("quoted_quantity", Int64, nullable=False),
    # JSON: pairs of a scope and its limit, or null.
    Column("scopes", Text, nullable=False),
    # JSON: an object of names and values.
    Column("labels", Text, nullable=False),
    PrimaryKeyConstraint("wallet_id", "number"),
    CheckConstraint("state BETWEEN 1 AND 5", "state"),
    CheckConstraint("0 <= captured_micros AND captured_micros <= reserved_micros", "captured"),
    CheckConstraint("reserved_micros BETWEEN 1 AND 1000000000000", "reserved"),
    CheckConstraint("uncollected_micros >= 0", "uncollected"),
    CheckConstraint("(state = 1) = (ended_at IS NULL)", "ended"),
    sqlite_strict=True,
)
Index(
    "ix_reservations_active",
    reservations.c.wallet_id,
    reservations.c.expires_at,
    sqlite_where=text("state = 1"),
    postgresql_where=text("state = 1"),
)

# The journal. A row is the transaction, its entries and the idempotent answer: they cannot come apart.
transactions = Table(
    "transactions",
    metadata,
    Column("wallet_id", Int64, ForeignKey("wallets.wallet_id"), nullable=False),
    Column("seq", Int64, nullable=False),
    Column("at", Int64, nullable=False),
    Column("kind", Integer, nullable=False),
    # Whose idempotency key it is, of which method. Rows of the clock (expiry) have none.
    Column("caller", Int64, nullable=False),
    Column("method", Integer, nullable=False),
    Column("idem_key", Text),
    Column("fingerprint", LargeBinary),
    # The reservation and how it stood afterwards; 0 without one.
    Column("reservation", Int64, nullable=False),
    Column("state", Integer, nullable=False),
    Column("reserved_micros", Int64, nullable=False),
    Column("captured_micros", Int64, nullable=False),
    Column("captures", Int64, nullable=False),
    Column("captured_quantity", Int64, nullable=False),
    Column("expires_at", Int64),
    # What this row charged, and what it could not.
    Column("charged_micros", Int64, nullable=False),
    Column("quantity", Int64, nullable=False),
    Column("uncollected_micros", Int64, nullable=False),
    # The wallet afterwards.
    Column("balance_micros", Int64, nullable=False),
    Column("held_micros", Int64, nullable=False),
    Column("debt_micros", Int64, nullable=False),
    Column("frozen", Integer, nullable=False),
    # JSON: for each lot it moved, the change of what remains in it and of what is held of it.
    Column("lots", Text, nullable=False),
    # JSON: an account and its micros each; they sum to 0.
    Column("entries", Text, nullable=False),
    # SHA-256 of what never changes of the reservation or the lot that the row made; null for others.
    Column("seal", LargeBinary),
    Column("link", LargeBinary, nullable=False),
    PrimaryKeyConstraint("wallet_id", "seq"),
    CheckConstraint("charged_micros >= 0 AND uncollected_micros >= 0", "charged"),
    sqlite_strict=True,
)
# Begins with the key: the SDK's keys are UUIDv7, so that the index appends.
Index(
    "uq_transactions_idem_key",
    transactions.c.idem_key,
    transactions.c.wallet_id,
    transactions.c.caller,
    transactions.c.method,
    unique=True,
    sqlite_where=text("idem_key IS NOT NULL"),
    postgresql_where=text("idem_key IS NOT NULL"),
)

# Captures that are not their reservation's only one, for a call that repeats one under a new key.
_SEVERAL_CAPTURES = text("kind = 4 AND (captures > 1 OR state = 1)")
Index(
    "ix_transactions_captures",
    transactions.c.wallet_id,
    transactions.c.reservation,
    transactions.c.captures,
    sqlite_where=_SEVERAL_CAPTURES,
    postgresql_where=_SEVERAL_CAPTURES,
)

# Refusals that a key remembers for 30 days; outside the chain.
refusals = Table(
    "refusals",
    metadata,
    Column("wallet_id", Int64, ForeignKey("wallets.wallet_id"), nullable=False),
    Column("caller", Int64, nullable=False),
    Column("method", Integer, nullable=False),
    Column("idem_key", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("reason", Text, nullable=False),
    # The refusal's fields, as a JSON object.
    Column("facts", Text, nullable=False),
    Column("at", Int64, nullable=False),
    PrimaryKeyConstraint("idem_key", "wallet_id", "caller", "method"),
    sqlite_strict=True,
)
Index("ix_refusals_at", refusals.c.at)

# What was spent and is held under a subject of a wallet: a spend scope.
spend_counters = Table(
    "spend_counters",
    metadata,
    Column("wallet_id", Int64, ForeignKey("wallets.wallet_id"), nullable=False),
    Column("subject", Text, nullable=False),
    Column("charged_micros", Int64, nullable=False),
    Column("held_micros", Int64, nullable=False),
    PrimaryKeyConstraint("wallet_id", "subject"),
    CheckConstraint("charged_micros >= 0", "charged"),
    CheckConstraint("held_micros >= 0", "held"),
    sqlite_strict=True,
)

usage_days = Table(
    "usage_days",
    metadata,
    Column("wallet_id", Int64, ForeignKey("wallets.wallet_id"), nullable=False),
    # Days since 1970, UTC.
    Column("day", Integer, nullable=False),
    Column("model", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("api_key_id", Text, nullable=False),
    Column("project", Text, nullable=False),
    Column("charges", Int64, nullable=False),
    Column("charged_micros", Int64, nullable=False),
    PrimaryKeyConstraint("wallet_id", "day", "model", "category", "api_key_id", "project"),
    sqlite_strict=True,
)

generations = Table(
    "generations",
    metadata,
    # The reservation that holds the price; together they are the generation's id.
    Column("wallet_id", Int64, nullable=False),
    Column("number", Int64, nullable=False),
    Column("state", Integer, nullable=False),
    Column("model", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    # As the caller wrote it.
    Column("input_json", Text, nullable=False),
    Column("quantity", Int64, nullable=False),
    Column("attempts", Integer, nullable=False),
    # Who works on it: a replica's id, until when, and the fencing epoch.
    Column("owner", Text, nullable=False),
    Column("leased_until", Int64, nullable=False),
    Column("epoch", Int64, nullable=False),
    Column("not_before", Int64, nullable=False),
    Column("deadline_at", Int64, nullable=False),
    # The provider's words: request id and urls, once it has accepted.
    Column("request_id", Text, nullable=False),
    Column("status_url", Text, nullable=False),
    Column("response_url", Text, nullable=False),
    Column("cancel_url", Text, nullable=False),
    Column("queue_position", Integer),
    Column("progress", Text, nullable=False),
    # The outcome, stored before it is settled: [{url, content_type, file_name}, ...] or a failure.
    Column("outputs", Text, nullable=False),
    Column("failure_reason", Text, nullable=False),
    Column("failure_message", Text, nullable=False),
    Column("sandbox", Integer, nullable=False),
    Column("cancel_requested", Integer, nullable=False),
    Column("created_at", Int64, nullable=False),
    Column("finished_at", Int64),
    # Grows with every change, so that replicas see what is new.
    Column("revision", Int64, nullable=False),
    PrimaryKeyConstraint("wallet_id", "number"),
    # Checked at the end of the database transaction: a companion writes before the ledger's rows are there.
    ForeignKeyConstraint(
        ["wallet_id", "number"],
        ["reservations.wallet_id", "reservations.number"],
        deferrable=True,
        initially="DEFERRED",
    ),
    sqlite_strict=True,
)
Index(
    "ix_generations_open",
    generations.c.leased_until,
    sqlite_where=text("finished_at IS NULL"),
    postgresql_where=text("finished_at IS NULL"),
)
Index(
    "ix_generations_open_by_wallet",
    generations.c.wallet_id,
    sqlite_where=text("finished_at IS NULL"),
    postgresql_where=text("finished_at IS NULL"),
)

uploads = Table(
    "uploads",
    metadata,
    Column("upload_id", Text, primary_key=True),
    Column("account_id", Int64, ForeignKey("accounts.account_id"), nullable=False),
    Column("content_type", Text, nullable=False),
    Column("size_bytes", Int64, nullable=False),
    Column("created_at", Int64, nullable=False),
    Column("expires_at", Int64, nullable=False),
    sqlite_strict=True,
)
Index("ix_uploads_account_id", uploads.c.account_id)
Index("ix_uploads_expires_at", uploads.c.expires_at)
