"""The ledger: wallets, lots, reservations, usage, the journal, and what is counted beside it."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from oanim_server.database.tables.schema import SQLITE, Int64, RowId, metadata, partial_index

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
    # JSON: the lots of which something remains, each a row of `lots` without the wallet. Beside the balance
    # they are no page of their own. What the checks of `lots` ask is asked of them in the group and, on
    # PostgreSQL, here; a check of SQLite's cannot look into an array.
    Column("open_lots", Text, nullable=False, server_default=text("'[]'")),
    CheckConstraint(
        "NOT jsonb_path_exists(CAST(open_lots AS jsonb), 'strict $[*] ? (@[4] < 0 || @[4] > @[3] || @[8] < 0"
        " || @[3] + @[8] > @[2] || @[2] < 1 || @[2] > 1000000000000)')",
        "open_lots",
    ).ddl_if(dialect="postgresql"),
    # Where SQLite keeps its rows of the journal after the last of `journal_runs`, a comma before each.
    Column("places", Text, nullable=False, server_default=text("''"), info=SQLITE),
    CheckConstraint("held_micros >= 0", "held"),
    CheckConstraint("debt_micros >= 0", "debt"),
    CheckConstraint("limits >= 0", "limits"),
    CheckConstraint("seq >= 0", "seq"),
    CheckConstraint("frozen IN (0, 1)", "frozen"),
    sqlite_strict=True,
)
partial_index(
    "ix_wallets_next_due_at",
    wallets.c.next_due_at,
    where="next_due_at IS NOT NULL",
)

# Lots that have closed: nothing remains of them, which is for ever.
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
    # The greatest quantity that usage was reported with.
    Column("reported_quantity", Int64, nullable=False, server_default=text("0")),
    # JSON, as it was sealed: the priced line or null, pairs of a scope and its limit or null, pairs of a
    # label's name and value. No query asks for a part of it, and one column costs less than ten.
    Column("pinned", Text, nullable=False, server_default=text("'[null,[],[]]'")),
    PrimaryKeyConstraint("wallet_id", "number"),
    CheckConstraint("state BETWEEN 1 AND 5", "state"),
    CheckConstraint("0 <= captured_micros AND captured_micros <= reserved_micros", "captured"),
    CheckConstraint("reserved_micros BETWEEN 1 AND 1000000000000", "reserved"),
    CheckConstraint("uncollected_micros >= 0", "uncollected"),
    CheckConstraint("(state = 1) = (ended_at IS NULL)", "ended"),
    CheckConstraint("reported_quantity >= 0", "reported"),
    sqlite_strict=True,
)
partial_index(
    "ix_reservations_active",
    reservations.c.wallet_id,
    reservations.c.expires_at,
    where="state = 1",
)

# What nobody paid for is looked through by the operator.
partial_index(
    "ix_reservations_uncollected",
    reservations.c.ended_at,
    where="uncollected_micros > 0",
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
partial_index(
    "ix_usage_items_uncollected",
    usage_items.c.at,
    where="uncollected_micros > 0",
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
    # An index by the wallet is a page a row where there are many wallets. SQLite has lists: `places.py`.
    Column("place", RowId, info=SQLITE),
    PrimaryKeyConstraint("wallet_id", "seq").ddl_if(dialect="postgresql"),
    CheckConstraint("charged_micros >= 0 AND uncollected_micros >= 0", "charged"),
    sqlite_strict=True,
)

# Where SQLite keeps a wallet's rows of the journal, so many a run. Run 0 has those from wallet_seq 1 on.
journal_runs = Table(
    "journal_runs",
    metadata,
    Column("wallet_id", Int64, ForeignKey("wallets.wallet_id"), nullable=False),
    Column("run", Int64, nullable=False),
    # JSON: a place each, in their order.
    Column("places", Text, nullable=False),
    PrimaryKeyConstraint("wallet_id", "run"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
    info=SQLITE,
)

# Begins with the key: the SDK's keys are UUIDv7, so that the index appends.
partial_index(
    "uq_transactions_idem_key",
    transactions.c.idem_key,
    transactions.c.wallet_id,
    transactions.c.caller,
    transactions.c.method,
    unique=True,
    where="idem_key IS NOT NULL",
)

# Captures that are not their reservation's only one, for a call that repeats one under a new key.
partial_index(
    "ix_transactions_captures",
    transactions.c.wallet_id,
    transactions.c.reservation,
    transactions.c.captures,
    where="kind = 4 AND (captures > 1 OR state = 1)",
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
