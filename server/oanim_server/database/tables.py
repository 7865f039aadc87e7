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
    # How many limits the owner has set: only where there are some are they looked up.
    Column("limits", Integer, nullable=False),
    CheckConstraint("held_micros >= 0", "held"),
    CheckConstraint("debt_micros >= 0", "debt"),
    CheckConstraint("limits >= 0", "limits"),
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
    # What of it has expired: a refund counts that as taken.
    Column("lapsed_micros", Int64, nullable=False),
    PrimaryKeyConstraint("wallet_id", "lot"),
    CheckConstraint("0 <= held_micros AND held_micros <= remaining_micros", "held"),
    CheckConstraint("remaining_micros + lapsed_micros <= amount_micros", "remaining"),
    CheckConstraint("lapsed_micros >= 0", "lapsed"),
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
    # The greatest quantity that usage was reported with.
    Column("reported_quantity", Int64, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("wallet_id", "number"),
    CheckConstraint("state BETWEEN 1 AND 5", "state"),
    CheckConstraint("0 <= captured_micros AND captured_micros <= reserved_micros", "captured"),
    CheckConstraint("reserved_micros BETWEEN 1 AND 1000000000000", "reserved"),
    CheckConstraint("uncollected_micros >= 0", "uncollected"),
    CheckConstraint("(state = 1) = (ended_at IS NULL)", "ended"),
    CheckConstraint("reported_quantity >= 0", "reported"),
    sqlite_strict=True,
)
Index(
    "ix_reservations_active",
    reservations.c.wallet_id,
    reservations.c.expires_at,
    sqlite_where=text("state = 1"),
    postgresql_where=text("state = 1"),
)

# What nobody paid for is looked through by the operator.
Index(
    "ix_reservations_uncollected",
    reservations.c.ended_at,
    sqlite_where=text("uncollected_micros > 0"),
    postgresql_where=text("uncollected_micros > 0"),
)

# Work that a service did without a hold: the number is the wallet_seq of the row that charged it.
usage_items = Table(
    "usage_items",
    metadata,
    Column("wallet_id", Int64, ForeignKey("wallets.wallet_id"), nullable=False),
    Column("number", Int64, nullable=False),
    Column("at", Int64, nullable=False),
    Column("api_key_id", Text, nullable=False),
    # The price that was in force, and how much was used.
    Column("price_version", Int64, nullable=False),
    Column("model", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("price_micros", Int64, nullable=False),
    Column("base_quantity", Int64, nullable=False),
    Column("quantity", Int64, nullable=False),
    # JSON: an object of names and values.
    Column("labels", Text, nullable=False),
    # What the wallet covered, and what nobody paid for.
    Column("charged_micros", Int64, nullable=False),
    Column("uncollected_micros", Int64, nullable=False),
    PrimaryKeyConstraint("wallet_id", "number"),
    CheckConstraint("charged_micros >= 0 AND uncollected_micros >= 0", "charged"),
    CheckConstraint("quantity >= 1", "quantity"),
    sqlite_strict=True,
)
Index(
    "ix_usage_items_uncollected",
    usage_items.c.at,
    sqlite_where=text("uncollected_micros > 0"),
    postgresql_where=text("uncollected_micros > 0"),
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

# What was spent and is held under a subject of a wallet: a spend scope, whose window is empty, or in a
# window of a limit's period the account (an empty subject) or an API key (its id).
spend_counters = Table(
    "spend_counters",
    metadata,
    Column("wallet_id", Int64, ForeignKey("wallets.wallet_id"), nullable=False),
    Column("subject", Text, nullable=False),
    # The period and its first day, as `week 2026-11-23`; empty for a spend scope.
    Column("window_name", Text, nullable=False),
    Column("charged_micros", Int64, nullable=False),
    Column("held_micros", Int64, nullable=False),
    PrimaryKeyConstraint("wallet_id", "subject", "window_name"),
    CheckConstraint("charged_micros >= 0", "charged"),
    CheckConstraint("held_micros >= 0", "held"),
    sqlite_strict=True,
)

# What the owner allows the account (an empty key) or an API key to spend in a day, a week or a month.
limits = Table(
    "limits",
    metadata,
    Column("wallet_id", Int64, ForeignKey("wallets.wallet_id"), nullable=False),
    Column("api_key_id", Text, nullable=False),
    Column("period", Integer, nullable=False),
    Column("limit_micros", Int64, nullable=False),
    PrimaryKeyConstraint("wallet_id", "api_key_id", "period"),
    CheckConstraint("period BETWEEN 1 AND 3", "period"),
    CheckConstraint("limit_micros BETWEEN 0 AND 1000000000000", "limit"),
    sqlite_strict=True,
)

# What a purchase credited, and where what refunds and disputes took of it has gone.
purchase_credits = Table(
    "purchase_credits",
    metadata,
    Column("wallet_id", Int64, ForeignKey("wallets.wallet_id"), nullable=False),
    # The wallet_seq of the row that credited it.
    Column("number", Int64, nullable=False),
    Column("purchase_id", Text, nullable=False),
    # Its own lots; bonus_lot is 0 where there was no bonus.
    Column("paid_lot", Int64, nullable=False),
    Column("bonus_lot", Int64, nullable=False),
    # What was booked back to each account.
    Column("stripe_micros", Int64, nullable=False),
    Column("promotions_micros", Int64, nullable=False),
    Column("disputes_micros", Int64, nullable=False),
    # What of that had expired in its own lots, and came from breakage and from promotions.
    Column("covered_paid_micros", Int64, nullable=False),
    Column("covered_bonus_micros", Int64, nullable=False),
    # What of it was taken from other lots, or is owed, because its own parts were held.
    Column("elsewhere_micros", Int64, nullable=False),
    PrimaryKeyConstraint("wallet_id", "number"),
    UniqueConstraint("wallet_id", "purchase_id", name="uq_purchase_credits_purchase_id"),
    CheckConstraint("stripe_micros >= 0 AND promotions_micros >= 0 AND disputes_micros >= 0", "booked"),
    CheckConstraint("covered_paid_micros >= 0 AND covered_bonus_micros >= 0", "covered"),
    CheckConstraint("elsewhere_micros >= 0", "elsewhere"),
    sqlite_strict=True,
)

# Who of the operator's people made a row of the journal, and why.
notes = Table(
    "notes",
    metadata,
    Column("wallet_id", Int64, ForeignKey("wallets.wallet_id"), nullable=False),
    Column("seq", Int64, nullable=False),
    # The id of an API key, or `local`.
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    PrimaryKeyConstraint("wallet_id", "seq"),
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

# A cloud render, from its hold to its end; whoever has its lease may say how far it is.
renders = Table(
    "renders",
    metadata,
    # The reservation that holds the quote; together they are the render's id.
    Column("wallet_id", Int64, nullable=False),
    Column("number", Int64, nullable=False),
    Column("state", Integer, nullable=False),
    # What is to be rendered. The props are as the caller wrote them.
    Column("composition", Text, nullable=False),
    Column("width", Int64, nullable=False),
    Column("height", Int64, nullable=False),
    Column("fps", Int64, nullable=False),
    Column("frames", Int64, nullable=False),
    Column("codec", Integer, nullable=False),
    Column("props_json", Text, nullable=False),
    # Its file in the store; empty from the render's end on.
    Column("bundle_id", Text, nullable=False),
    Column("bundle_bytes", Int64, nullable=False),
    Column("bundle_sha256", LargeBinary, nullable=False),
    # How long one attempt may take, in microseconds, as it was when the render was submitted.
    Column("time_limit", Int64, nullable=False),
    # The leases that were taken, those handed back aside; and all of them, which fences the former ones.
    Column("attempts", Integer, nullable=False),
    Column("epoch", Int64, nullable=False),
    # The account of the worker that has it or had it last, 0 for none; since when, and until when it need
    # not be heard of.
    Column("worker", Int64, nullable=False),
    Column("leased_at", Int64, nullable=False),
    Column("leased_until", Int64, nullable=False),
    Column("deadline_at", Int64, nullable=False),
    # The most that any epoch has reported.
    Column("frames_done", Int64, nullable=False),
    # What the last worker said, and why it failed for good.
    Column("message", Text, nullable=False),
    Column("failure_reason", Text, nullable=False),
    # Its file in the store; empty until it is there, and once it is kept no longer.
    Column("video_id", Text, nullable=False),
    Column("video_bytes", Int64, nullable=False),
    Column("video_sha256", LargeBinary),
    Column("video_expires_at", Int64),
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
    CheckConstraint("state BETWEEN 1 AND 5", "state"),
    CheckConstraint("(state <= 2) = (finished_at IS NULL)", "finished"),
    CheckConstraint("state <> 2 OR worker <> 0", "worker"),
    CheckConstraint("(state = 3) = (video_bytes > 0)", "video"),
    CheckConstraint("frames_done BETWEEN 0 AND frames", "frames_done"),
    CheckConstraint("attempts BETWEEN 0 AND epoch", "attempts"),
    sqlite_strict=True,
)
# The queue, in its order.
Index(
    "ix_renders_queued",
    renders.c.created_at,
    renders.c.wallet_id,
    renders.c.number,
    sqlite_where=text("state = 1"),
    postgresql_where=text("state = 1"),
)
Index(
    "ix_renders_leased",
    renders.c.wallet_id,
    sqlite_where=text("state = 2"),
    postgresql_where=text("state = 2"),
)
Index(
    "ix_renders_deadline_at",
    renders.c.deadline_at,
    sqlite_where=text("state <= 2"),
    postgresql_where=text("state <= 2"),
)
Index(
    "ix_renders_bundle_id",
    renders.c.bundle_id,
    sqlite_where=text("bundle_id <> ''"),
    postgresql_where=text("bundle_id <> ''"),
)
Index(
    "ix_renders_bundles_of_wallet",
    renders.c.wallet_id,
    sqlite_where=text("bundle_id <> ''"),
    postgresql_where=text("bundle_id <> ''"),
)
Index(
    "ix_renders_video_id",
    renders.c.video_id,
    sqlite_where=text("video_id <> ''"),
    postgresql_where=text("video_id <> ''"),
)
Index(
    "ix_renders_video_expires_at",
    renders.c.video_expires_at,
    sqlite_where=text("video_id <> ''"),
    postgresql_where=text("video_id <> ''"),
)

# Every lease that was taken: its key is its worker's, who does not know the render before. It lives while its
# epoch is that of a render that is leased.
render_leases = Table(
    "render_leases",
    metadata,
    Column("api_key_id", Text, nullable=False),
    Column("idem_key", Text, nullable=False),
    Column("account_id", Int64, nullable=False),
    Column("number", Int64, nullable=False),
    Column("epoch", Int64, nullable=False),
    Column("taken_at", Int64, nullable=False),
    # Whether the worker itself ended it without a video: the same word again is then no stale one.
    Column("given_up", Integer, nullable=False),
    PrimaryKeyConstraint("idem_key", "api_key_id"),
    UniqueConstraint("account_id", "number", "epoch", name="uq_render_leases_epoch"),
    ForeignKeyConstraint(["account_id", "number"], ["renders.wallet_id", "renders.number"]),
    CheckConstraint("given_up IN (0, 1)", "given_up"),
    sqlite_strict=True,
)

# What a worker holds for the account of a render that it has the lease of; released at the lease's end.
render_holds = Table(
    "render_holds",
    metadata,
    Column("wallet_id", Int64, nullable=False),
    Column("number", Int64, nullable=False),
    Column("render", Int64, nullable=False),
    Column("epoch", Int64, nullable=False),
    Column("worker", Int64, nullable=False),
    # Until it was seen to that nothing of it is held any more.
    Column("open", Integer, nullable=False),
    PrimaryKeyConstraint("wallet_id", "number"),
    ForeignKeyConstraint(
        ["wallet_id", "number"],
        ["reservations.wallet_id", "reservations.number"],
        deferrable=True,
        initially="DEFERRED",
    ),
    ForeignKeyConstraint(
        ["wallet_id", "render"], ["renders.wallet_id", "renders.number"], name="fk_render_holds_render"
    ),
    CheckConstraint("open IN (0, 1)", "open"),
    sqlite_strict=True,
)
Index(
    "ix_render_holds_open",
    render_holds.c.wallet_id,
    render_holds.c.render,
    sqlite_where=text("open = 1"),
    postgresql_where=text("open = 1"),
)

# A purchase of credits, from its page to its end. The row is there before Stripe is asked for the page.
purchases = Table(
    "purchases",
    metadata,
    Column("wallet_id", Int64, ForeignKey("wallets.wallet_id"), nullable=False),
    # 24 letters and digits: Stripe's client_reference_id and idempotency key, behind the account's id.
    Column("token", Text, nullable=False),
    Column("api_key_id", Text, nullable=False),
    Column("idem_key", Text, nullable=False),
    Column("state", Integer, nullable=False),
    Column("amount_micros", Int64, nullable=False),
    Column("bonus_micros", Int64, nullable=False),
    # How long its credits last from when they come in, in microseconds; null is for ever.
    Column("lifetime", Int64),
    Column("created_at", Int64, nullable=False),
    Column("expires_at", Int64, nullable=False),
    # Stripe's words: the session with its page, what was paid with, and what its customer was charged.
    Column("session_id", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("payment_intent", Text, nullable=False),
    Column("charge", Text, nullable=False),
    Column("receipt_url", Text, nullable=False),
    Column("paid_micros", Int64, nullable=False),
    Column("tax_micros", Int64, nullable=False),
    # The wallet_seq of the row that credited it; 0 before.
    Column("credit", Int64, nullable=False),
    Column("credited_at", Int64),
    # What refunds and disputes took of its credits.
    Column("reversed_micros", Int64, nullable=False),
    # Grows with every change, so that replicas see what is new.
    Column("revision", Int64, nullable=False),
    PrimaryKeyConstraint("wallet_id", "token"),
    UniqueConstraint("wallet_id", "idem_key", name="uq_purchases_idem_key"),
    CheckConstraint("state BETWEEN 1 AND 6", "state"),
    CheckConstraint("amount_micros > 0 AND amount_micros % 10000 = 0", "amount"),
    CheckConstraint("bonus_micros >= 0", "bonus"),
    CheckConstraint("(state = 4) = (credit > 0)", "credit"),
    CheckConstraint("reversed_micros BETWEEN 0 AND amount_micros + bonus_micros", "reversed"),
    sqlite_strict=True,
)
Index(
    "ix_purchases_unpaid",
    purchases.c.created_at,
    sqlite_where=text("state <= 3"),
    postgresql_where=text("state <= 3"),
)
Index("ix_purchases_session_id", purchases.c.session_id)
Index("ix_purchases_payment_intent", purchases.c.payment_intent)
Index("ix_purchases_charge", purchases.c.charge)

# Money that went back, or is on its way: each by Stripe's id, and its state only moves forward.
refunds = Table(
    "refunds",
    metadata,
    Column("wallet_id", Int64, nullable=False),
    Column("refund_id", Text, nullable=False),
    Column("token", Text, nullable=False),
    Column("amount_micros", Int64, nullable=False),
    Column("state", Text, nullable=False),
    Column("first_seen_at", Int64, nullable=False),
    PrimaryKeyConstraint("wallet_id", "refund_id"),
    ForeignKeyConstraint(["wallet_id", "token"], ["purchases.wallet_id", "purchases.token"]),
    CheckConstraint("amount_micros > 0", "amount"),
    sqlite_strict=True,
)
Index("ix_refunds_token", refunds.c.wallet_id, refunds.c.token)

disputes = Table(
    "disputes",
    metadata,
    Column("wallet_id", Int64, nullable=False),
    Column("dispute_id", Text, nullable=False),
    Column("token", Text, nullable=False),
    Column("amount_micros", Int64, nullable=False),
    Column("state", Text, nullable=False),
    # What has happened to the money, once and for all.
    Column("withdrawn", Integer, nullable=False),
    Column("reinstated", Integer, nullable=False),
    Column("first_seen_at", Int64, nullable=False),
    PrimaryKeyConstraint("wallet_id", "dispute_id"),
    ForeignKeyConstraint(["wallet_id", "token"], ["purchases.wallet_id", "purchases.token"]),
    CheckConstraint("amount_micros > 0", "amount"),
    sqlite_strict=True,
)
Index("ix_disputes_token", disputes.c.wallet_id, disputes.c.token)

# Refunds that the operator asked for. The row is there before Stripe is asked; the event books it.
refund_requests = Table(
    "refund_requests",
    metadata,
    Column("wallet_id", Int64, nullable=False),
    # Stripe's idempotency key.
    Column("request_id", Text, nullable=False),
    Column("token", Text, nullable=False),
    # The account of the admin key, or 0 on the local socket, and its attempt.
    Column("caller", Int64, nullable=False),
    Column("idem_key", Text, nullable=False),
    # As asked for, 0 being all that is left; and as it was decided.
    Column("asked_micros", Int64, nullable=False),
    Column("amount_micros", Int64, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", Int64, nullable=False),
    # Stripe's id of the refund, once it has answered.
    Column("refund_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    PrimaryKeyConstraint("wallet_id", "request_id"),
    UniqueConstraint("wallet_id", "caller", "idem_key", name="uq_refund_requests_idem_key"),
    ForeignKeyConstraint(["wallet_id", "token"], ["purchases.wallet_id", "purchases.token"]),
    sqlite_strict=True,
)

# What Stripe has told, each event once, in the transaction of what it did.
inbox = Table(
    "inbox",
    metadata,
    Column("number", Int64, primary_key=True, autoincrement=True),
    Column("source", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("received_at", Int64, nullable=False),
    # 1 applied, 2 of no concern, 3 parked, 4 in quarantine, 5 dismissed by the operator.
    Column("standing", Integer, nullable=False),
    # What does not match, in a sentence.
    Column("problem", Text, nullable=False),
    # The purchase that it names; empty for none of ours.
    Column("purchase_id", Text, nullable=False),
    # The payment intent or the charge of the purchase that a parked event waits for.
    Column("waits_for", Text, nullable=False),
    Column("resolved_at", Int64),
    Column("resolved_by", Text, nullable=False),
    Column("resolution", Text, nullable=False),
    UniqueConstraint("source", "event_id", name="uq_inbox_event_id"),
    CheckConstraint("standing BETWEEN 1 AND 5", "standing"),
    sqlite_strict=True,
)
Index(
    "ix_inbox_parked",
    inbox.c.waits_for,
    sqlite_where=text("standing = 3"),
    postgresql_where=text("standing = 3"),
)
Index(
    "ix_inbox_quarantined",
    inbox.c.number,
    sqlite_where=text("standing >= 4"),
    postgresql_where=text("standing >= 4"),
)
