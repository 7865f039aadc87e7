"""The walking product.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("account_id", INT64, autoincrement=False, nullable=False),
        sa.Column("role", sa.Integer(), nullable=False),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", INT64, nullable=False),
        sa.Column("sign_up_key", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("free_credits_micros", INT64, nullable=False),
        sa.CheckConstraint("free_credits_micros >= 0", name=op.f("ck_accounts_free_credits")),
        sa.CheckConstraint("role BETWEEN 1 AND 4", name=op.f("ck_accounts_role")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_accounts")),
        sqlite_strict=True,
    )
    op.create_index("ix_accounts_address", "accounts", ["address", "created_at"], unique=False)
    op.create_index("ix_accounts_created_at", "accounts", ["created_at"], unique=False)
    op.create_index("uq_accounts_email", "accounts", ["email"], unique=True)
    op.create_index(
        "uq_accounts_sign_up_key",
        "accounts",
        ["sign_up_key"],
        unique=True,
        sqlite_where=sa.text("email IS NULL"),
        postgresql_where=sa.text("email IS NULL"),
    )
    op.create_table(
        "marks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_marks")),
        sqlite_strict=True,
    )
    op.create_table(
        "price_versions",
        sa.Column("version", INT64, autoincrement=False, nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("published_at", INT64, nullable=False),
        sa.Column("effective_at", INT64, nullable=False),
        sa.Column("published_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_price_versions")),
        sa.UniqueConstraint("content_hash", name=op.f("uq_price_versions_content_hash")),
        sqlite_strict=True,
    )
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("account_id", INT64, nullable=False),
        sa.Column("number", INT64, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", INT64, nullable=False),
        sa.Column("revoked_at", INT64, nullable=True),
        sa.Column("first_used_at", INT64, nullable=True),
        sa.Column("idem_key", sa.Text(), nullable=True),
        sa.CheckConstraint("number >= 1", name=op.f("ck_api_keys_number")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.account_id"], name=op.f("fk_api_keys_account_id")),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("account_id", "idem_key", name="uq_api_keys_idem_key"),
        sa.UniqueConstraint("account_id", "number", name="uq_api_keys_number"),
        sqlite_strict=True,
    )
    op.create_index("ix_api_keys_revoked_at", "api_keys", ["revoked_at"], unique=False)
    op.create_table(
        "prices",
        sa.Column("version", INT64, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("amount_micros", INT64, nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("base_quantity", INT64, nullable=False),
        sa.Column("quantity_field", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("is_default", sa.Integer(), nullable=False),
        sa.CheckConstraint("amount_micros BETWEEN 1 AND 1000000000000", name=op.f("ck_prices_amount")),
        sa.CheckConstraint("base_quantity BETWEEN 1 AND 1000000000", name=op.f("ck_prices_base")),
        sa.ForeignKeyConstraint(["version"], ["price_versions.version"], name=op.f("fk_prices_version")),
        sa.PrimaryKeyConstraint("version", "model", name=op.f("pk_prices")),
        sqlite_strict=True,
    )
    op.create_table(
        "uploads",
        sa.Column("upload_id", sa.Text(), nullable=False),
        sa.Column("account_id", INT64, nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("size_bytes", INT64, nullable=False),
        sa.Column("created_at", INT64, nullable=False),
        sa.Column("expires_at", INT64, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.account_id"], name=op.f("fk_uploads_account_id")),
        sa.PrimaryKeyConstraint("upload_id", name=op.f("pk_uploads")),
        sqlite_strict=True,
    )
    op.create_index("ix_uploads_account_id", "uploads", ["account_id"], unique=False)
    op.create_index("ix_uploads_expires_at", "uploads", ["expires_at"], unique=False)
    op.create_table(
        "wallets",
        sa.Column("wallet_id", INT64, autoincrement=False, nullable=False),
        sa.Column("balance_micros", INT64, nullable=False),
        sa.Column("held_micros", INT64, nullable=False),
        sa.Column("debt_micros", INT64, nullable=False),
        sa.Column("seq", INT64, nullable=False),
        sa.Column("at", INT64, nullable=False),
        sa.Column("link", sa.LargeBinary(), nullable=False),
        sa.Column("frozen", sa.Integer(), nullable=False),
        sa.Column("next_due_at", INT64, nullable=True),
        sa.Column("lots_made", INT64, nullable=False),
        sa.Column("limits", sa.Integer(), nullable=False),
        sa.CheckConstraint("debt_micros >= 0", name=op.f("ck_wallets_debt")),
        sa.CheckConstraint("frozen IN (0, 1)", name=op.f("ck_wallets_frozen")),
        sa.CheckConstraint("held_micros >= 0", name=op.f("ck_wallets_held")),
        sa.CheckConstraint("limits >= 0", name=op.f("ck_wallets_limits")),
        sa.CheckConstraint("seq >= 0", name=op.f("ck_wallets_seq")),
        sa.ForeignKeyConstraint(["wallet_id"], ["accounts.account_id"], name=op.f("fk_wallets_wallet_id")),
        sa.PrimaryKeyConstraint("wallet_id", name=op.f("pk_wallets")),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_wallets_next_due_at",
        "wallets",
        ["next_due_at"],
        unique=False,
        sqlite_where=sa.text("next_due_at IS NOT NULL"),
        postgresql_where=sa.text("next_due_at IS NOT NULL"),
    )
    op.create_table(
        "lots",
        sa.Column("wallet_id", INT64, nullable=False),
        sa.Column("lot", INT64, nullable=False),
        sa.Column("origin", sa.Integer(), nullable=False),
        sa.Column("amount_micros", INT64, nullable=False),
        sa.Column("remaining_micros", INT64, nullable=False),
        sa.Column("held_micros", INT64, nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("expires_at", INT64, nullable=True),
        sa.Column("created_at", INT64, nullable=False),
        sa.Column("lapsed_micros", INT64, nullable=False),
        sa.CheckConstraint("0 <= held_micros AND held_micros <= remaining_micros", name=op.f("ck_lots_held")),
        sa.CheckConstraint("amount_micros BETWEEN 1 AND 1000000000000", name=op.f("ck_lots_amount")),
        sa.CheckConstraint(
            "remaining_micros + lapsed_micros <= amount_micros", name=op.f("ck_lots_remaining")
        ),
        sa.CheckConstraint("lapsed_micros >= 0", name=op.f("ck_lots_lapsed")),
        sa.ForeignKeyConstraint(["wallet_id"], ["wallets.wallet_id"], name=op.f("fk_lots_wallet_id")),
        sa.PrimaryKeyConstraint("wallet_id", "lot", name=op.f("pk_lots")),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_lots_open",
        "lots",
        ["wallet_id"],
        unique=False,
        sqlite_where=sa.text("remaining_micros > 0"),
        postgresql_where=sa.text("remaining_micros > 0"),
    )
    op.create_table(
        "refusals",
        sa.Column("wallet_id", INT64, nullable=False),
        sa.Column("caller", INT64, nullable=False),
        sa.Column("method", sa.Integer(), nullable=False),
        sa.Column("idem_key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("at", INT64, nullable=False),
        sa.ForeignKeyConstraint(["wallet_id"], ["wallets.wallet_id"], name=op.f("fk_refusals_wallet_id")),
        sa.PrimaryKeyConstraint("idem_key", "wallet_id", "caller", "method", name=op.f("pk_refusals")),
        sqlite_strict=True,
    )
    op.create_index("ix_refusals_at", "refusals", ["at"], unique=False)
    op.create_table(
        "reservations",
        sa.Column("wallet_id", INT64, nullable=False),
        sa.Column("number", INT64, nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("opener", INT64, nullable=False),
        sa.Column("api_key_id", sa.Text(), nullable=False),
        sa.Column("reserved_micros", INT64, nullable=False),
        sa.Column("captured_micros", INT64, nullable=False),
        sa.Column("uncollected_micros", INT64, nullable=False),
        sa.Column("captures", INT64, nullable=False),
        sa.Column("captured_quantity", INT64, nullable=False),
        sa.Column("parts", sa.Text(), nullable=False),
        sa.Column("expires_at", INT64, nullable=True),
        sa.Column("created_at", INT64, nullable=False),
        sa.Column("ended_at", INT64, nullable=True),
        sa.Column("last_seq", INT64, nullable=False),
        sa.Column("price_version", INT64, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("price_micros", INT64, nullable=False),
        sa.Column("base_quantity", INT64, nullable=False),
        sa.Column("quoted_quantity", INT64, nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.CheckConstraint("(state = 1) = (ended_at IS NULL)", name=op.f("ck_reservations_ended")),
        sa.CheckConstraint(
            "0 <= captured_micros AND captured_micros <= reserved_micros",
            name=op.f("ck_reservations_captured"),
        ),
        sa.CheckConstraint(
            "reserved_micros BETWEEN 1 AND 1000000000000", name=op.f("ck_reservations_reserved")
        ),
        sa.CheckConstraint("state BETWEEN 1 AND 5", name=op.f("ck_reservations_state")),
        sa.CheckConstraint("uncollected_micros >= 0", name=op.f("ck_reservations_uncollected")),
        sa.ForeignKeyConstraint(["wallet_id"], ["wallets.wallet_id"], name=op.f("fk_reservations_wallet_id")),
        sa.PrimaryKeyConstraint("wallet_id", "number", name=op.f("pk_reservations")),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_reservations_active",
        "reservations",
        ["wallet_id", "expires_at"],
        unique=False,
        sqlite_where=sa.text("state = 1"),
        postgresql_where=sa.text("state = 1"),
    )
    op.create_table(
        "spend_counters",
        sa.Column("wallet_id", INT64, nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("window_name", sa.Text(), nullable=False),
        sa.Column("charged_micros", INT64, nullable=False),
        sa.Column("held_micros", INT64, nullable=False),
        sa.CheckConstraint("charged_micros >= 0", name=op.f("ck_spend_counters_charged")),
        sa.CheckConstraint("held_micros >= 0", name=op.f("ck_spend_counters_held")),
        sa.ForeignKeyConstraint(
            ["wallet_id"], ["wallets.wallet_id"], name=op.f("fk_spend_counters_wallet_id")
        ),
        sa.PrimaryKeyConstraint("wallet_id", "subject", "window_name", name=op.f("pk_spend_counters")),
        sqlite_strict=True,
    )
    op.create_table(
        "transactions",
        sa.Column("wallet_id", INT64, nullable=False),
        sa.Column("seq", INT64, nullable=False),
        sa.Column("at", INT64, nullable=False),
        sa.Column("kind", sa.Integer(), nullable=False),
        sa.Column("caller", INT64, nullable=False),
        sa.Column("method", sa.Integer(), nullable=False),
        sa.Column("idem_key", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=True),
        sa.Column("reservation", INT64, nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("reserved_micros", INT64, nullable=False),
        sa.Column("captured_micros", INT64, nullable=False),
        sa.Column("captures", INT64, nullable=False),
        sa.Column("captured_quantity", INT64, nullable=False),
        sa.Column("expires_at", INT64, nullable=True),
        sa.Column("charged_micros", INT64, nullable=False),
        sa.Column("quantity", INT64, nullable=False),
        sa.Column("uncollected_micros", INT64, nullable=False),
        sa.Column("balance_micros", INT64, nullable=False),
        sa.Column("held_micros", INT64, nullable=False),
        sa.Column("debt_micros", INT64, nullable=False),
        sa.Column("frozen", sa.Integer(), nullable=False),
        sa.Column("lots", sa.Text(), nullable=False),
        sa.Column("entries", sa.Text(), nullable=False),
        sa.Column("seal", sa.LargeBinary(), nullable=True),
        sa.Column("link", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint(
            "charged_micros >= 0 AND uncollected_micros >= 0", name=op.f("ck_transactions_charged")
        ),
        sa.ForeignKeyConstraint(["wallet_id"], ["wallets.wallet_id"], name=op.f("fk_transactions_wallet_id")),
        sa.PrimaryKeyConstraint("wallet_id", "seq", name=op.f("pk_transactions")),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_transactions_captures",
        "transactions",
        ["wallet_id", "reservation", "captures"],
        unique=False,
        sqlite_where=sa.text("kind = 4 AND (captures > 1 OR state = 1)"),
        postgresql_where=sa.text("kind = 4 AND (captures > 1 OR state = 1)"),
    )
    op.create_index(
        "uq_transactions_idem_key",
        "transactions",
        ["idem_key", "wallet_id", "caller", "method"],
        unique=True,
        sqlite_where=sa.text("idem_key IS NOT NULL"),
        postgresql_where=sa.text("idem_key IS NOT NULL"),
    )
    op.create_table(
        "usage_days",
        sa.Column("wallet_id", INT64, nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("api_key_id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("charges", INT64, nullable=False),
        sa.Column("charged_micros", INT64, nullable=False),
        sa.ForeignKeyConstraint(["wallet_id"], ["wallets.wallet_id"], name=op.f("fk_usage_days_wallet_id")),
        sa.PrimaryKeyConstraint(
            "wallet_id", "day", "model", "category", "api_key_id", "project", name=op.f("pk_usage_days")
        ),
        sqlite_strict=True,
    )
    op.create_table(
        "generations",
        sa.Column("wallet_id", INT64, nullable=False),
        sa.Column("number", INT64, nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("input_json", sa.Text(), nullable=False),
        sa.Column("quantity", INT64, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("leased_until", INT64, nullable=False),
        sa.Column("epoch", INT64, nullable=False),
        sa.Column("not_before", INT64, nullable=False),
        sa.Column("deadline_at", INT64, nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("status_url", sa.Text(), nullable=False),
        sa.Column("response_url", sa.Text(), nullable=False),
        sa.Column("cancel_url", sa.Text(), nullable=False),
        sa.Column("queue_position", sa.Integer(), nullable=True),
        sa.Column("progress", sa.Text(), nullable=False),
        sa.Column("outputs", sa.Text(), nullable=False),
        sa.Column("failure_reason", sa.Text(), nullable=False),
        sa.Column("failure_message", sa.Text(), nullable=False),
        sa.Column("sandbox", sa.Integer(), nullable=False),
        sa.Column("cancel_requested", sa.Integer(), nullable=False),
        sa.Column("created_at", INT64, nullable=False),
        sa.Column("finished_at", INT64, nullable=True),
        sa.Column("revision", INT64, nullable=False),
        sa.ForeignKeyConstraint(
            ["wallet_id", "number"],
            ["reservations.wallet_id", "reservations.number"],
            name=op.f("fk_generations_wallet_id"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("wallet_id", "number", name=op.f("pk_generations")),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_generations_open",
        "generations",
        ["leased_until"],
        unique=False,
        sqlite_where=sa.text("finished_at IS NULL"),
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_index(
        "ix_generations_open_by_wallet",
        "generations",
        ["wallet_id"],
        unique=False,
        sqlite_where=sa.text("finished_at IS NULL"),
        postgresql_where=sa.text("finished_at IS NULL"),
    )
