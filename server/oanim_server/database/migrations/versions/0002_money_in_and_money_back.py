"""Money in and money back: purchases, refunds, disputes, limits, the operator's hand.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "inbox",
        sa.Column("number", INT64, autoincrement=True, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("received_at", INT64, nullable=False),
        sa.Column("standing", sa.Integer(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("purchase_id", sa.Text(), nullable=False),
        sa.Column("waits_for", sa.Text(), nullable=False),
        sa.Column("resolved_at", INT64, nullable=True),
        sa.Column("resolved_by", sa.Text(), nullable=False),
        sa.Column("resolution", sa.Text(), nullable=False),
        sa.CheckConstraint("standing BETWEEN 1 AND 5", name=op.f("ck_inbox_standing")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_inbox")),
        sa.UniqueConstraint("source", "event_id", name="uq_inbox_event_id"),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_inbox_parked",
        "inbox",
        ["waits_for"],
        unique=False,
        sqlite_where=sa.text("standing = 3"),
        postgresql_where=sa.text("standing = 3"),
    )
    op.create_index(
        "ix_inbox_quarantined",
        "inbox",
        ["number"],
        unique=False,
        sqlite_where=sa.text("standing >= 4"),
        postgresql_where=sa.text("standing >= 4"),
    )
    op.create_table(
        "limits",
        sa.Column("wallet_id", INT64, nullable=False),
        sa.Column("api_key_id", sa.Text(), nullable=False),
        sa.Column("period", sa.Integer(), nullable=False),
        sa.Column("limit_micros", INT64, nullable=False),
        sa.CheckConstraint("limit_micros BETWEEN 0 AND 1000000000000", name=op.f("ck_limits_limit")),
        sa.CheckConstraint("period BETWEEN 1 AND 3", name=op.f("ck_limits_period")),
        sa.ForeignKeyConstraint(["wallet_id"], ["wallets.wallet_id"], name=op.f("fk_limits_wallet_id")),
        sa.PrimaryKeyConstraint("wallet_id", "api_key_id", "period", name=op.f("pk_limits")),
        sqlite_strict=True,
    )
    op.create_table(
        "notes",
        sa.Column("wallet_id", INT64, nullable=False),
        sa.Column("seq", INT64, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["wallet_id"], ["wallets.wallet_id"], name=op.f("fk_notes_wallet_id")),
        sa.PrimaryKeyConstraint("wallet_id", "seq", name=op.f("pk_notes")),
        sqlite_strict=True,
    )
    op.create_table(
        "purchase_credits",
        sa.Column("wallet_id", INT64, nullable=False),
        sa.Column("number", INT64, nullable=False),
        sa.Column("purchase_id", sa.Text(), nullable=False),
        sa.Column("paid_lot", INT64, nullable=False),
        sa.Column("bonus_lot", INT64, nullable=False),
        sa.Column("stripe_micros", INT64, nullable=False),
        sa.Column("promotions_micros", INT64, nullable=False),
        sa.Column("disputes_micros", INT64, nullable=False),
        sa.Column("covered_paid_micros", INT64, nullable=False),
        sa.Column("covered_bonus_micros", INT64, nullable=False),
        sa.Column("elsewhere_micros", INT64, nullable=False),
        sa.CheckConstraint("elsewhere_micros >= 0", name=op.f("ck_purchase_credits_elsewhere")),
        sa.CheckConstraint(
            "covered_paid_micros >= 0 AND covered_bonus_micros >= 0", name=op.f("ck_purchase_credits_covered")
        ),
        sa.CheckConstraint(
            "stripe_micros >= 0 AND promotions_micros >= 0 AND disputes_micros >= 0",
            name=op.f("ck_purchase_credits_booked"),
        ),
        sa.ForeignKeyConstraint(
            ["wallet_id"], ["wallets.wallet_id"], name=op.f("fk_purchase_credits_wallet_id")
        ),
        sa.PrimaryKeyConstraint("wallet_id", "number", name=op.f("pk_purchase_credits")),
        sa.UniqueConstraint("wallet_id", "purchase_id", name="uq_purchase_credits_purchase_id"),
        sqlite_strict=True,
    )
    op.create_table(
        "purchases",
        sa.Column("wallet_id", INT64, nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("api_key_id", sa.Text(), nullable=False),
        sa.Column("idem_key", sa.Text(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("amount_micros", INT64, nullable=False),
        sa.Column("bonus_micros", INT64, nullable=False),
        sa.Column("lifetime", INT64, nullable=True),
        sa.Column("created_at", INT64, nullable=False),
        sa.Column("expires_at", INT64, nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("payment_intent", sa.Text(), nullable=False),
        sa.Column("charge", sa.Text(), nullable=False),
        sa.Column("receipt_url", sa.Text(), nullable=False),
        sa.Column("paid_micros", INT64, nullable=False),
        sa.Column("tax_micros", INT64, nullable=False),
        sa.Column("credit", INT64, nullable=False),
        sa.Column("credited_at", INT64, nullable=True),
        sa.Column("reversed_micros", INT64, nullable=False),
        sa.Column("revision", INT64, nullable=False),
        sa.CheckConstraint("(state = 4) = (credit > 0)", name=op.f("ck_purchases_credit")),
        sa.CheckConstraint(
            "amount_micros > 0 AND amount_micros % 10000 = 0", name=op.f("ck_purchases_amount")
        ),
        sa.CheckConstraint("bonus_micros >= 0", name=op.f("ck_purchases_bonus")),
        sa.CheckConstraint(
            "reversed_micros BETWEEN 0 AND amount_micros + bonus_micros", name=op.f("ck_purchases_reversed")
        ),
        sa.CheckConstraint("state BETWEEN 1 AND 6", name=op.f("ck_purchases_state")),
        sa.ForeignKeyConstraint(["wallet_id"], ["wallets.wallet_id"], name=op.f("fk_purchases_wallet_id")),
        sa.PrimaryKeyConstraint("wallet_id", "token", name=op.f("pk_purchases")),
        sa.UniqueConstraint("wallet_id", "idem_key", name="uq_purchases_idem_key"),
        sqlite_strict=True,
    )
    op.create_index("ix_purchases_charge", "purchases", ["charge"], unique=False)
    op.create_index("ix_purchases_payment_intent", "purchases", ["payment_intent"], unique=False)
    op.create_index("ix_purchases_session_id", "purchases", ["session_id"], unique=False)
    op.create_index(
        "ix_purchases_unpaid",
        "purchases",
        ["created_at"],
        unique=False,
        sqlite_where=sa.text("state <= 3"),
        postgresql_where=sa.text("state <= 3"),
    )
    op.create_table(
        "disputes",
        sa.Column("wallet_id", INT64, nullable=False),
        sa.Column("dispute_id", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("amount_micros", INT64, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("withdrawn", sa.Integer(), nullable=False),
        sa.Column("reinstated", sa.Integer(), nullable=False),
        sa.Column("first_seen_at", INT64, nullable=False),
        sa.CheckConstraint("amount_micros > 0", name=op.f("ck_disputes_amount")),
        sa.ForeignKeyConstraint(
            ["wallet_id", "token"],
            ["purchases.wallet_id", "purchases.token"],
            name=op.f("fk_disputes_wallet_id"),
        ),
        sa.PrimaryKeyConstraint("wallet_id", "dispute_id", name=op.f("pk_disputes")),
        sqlite_strict=True,
    )
    op.create_index("ix_disputes_token", "disputes", ["wallet_id", "token"], unique=False)
    op.create_table(
        "refund_requests",
        sa.Column("wallet_id", INT64, nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("caller", INT64, nullable=False),
        sa.Column("idem_key", sa.Text(), nullable=False),
        sa.Column("asked_micros", INT64, nullable=False),
        sa.Column("amount_micros", INT64, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", INT64, nullable=False),
        sa.Column("refund_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["wallet_id", "token"],
            ["purchases.wallet_id", "purchases.token"],
            name=op.f("fk_refund_requests_wallet_id"),
        ),
        sa.PrimaryKeyConstraint("wallet_id", "request_id", name=op.f("pk_refund_requests")),
        sa.UniqueConstraint("wallet_id", "caller", "idem_key", name="uq_refund_requests_idem_key"),
        sqlite_strict=True,
    )
    op.create_table(
        "refunds",
        sa.Column("wallet_id", INT64, nullable=False),
        sa.Column("refund_id", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("amount_micros", INT64, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("first_seen_at", INT64, nullable=False),
        sa.CheckConstraint("amount_micros > 0", name=op.f("ck_refunds_amount")),
        sa.ForeignKeyConstraint(
            ["wallet_id", "token"],
            ["purchases.wallet_id", "purchases.token"],
            name=op.f("fk_refunds_wallet_id"),
        ),
        sa.PrimaryKeyConstraint("wallet_id", "refund_id", name=op.f("pk_refunds")),
        sqlite_strict=True,
    )
    op.create_index("ix_refunds_token", "refunds", ["wallet_id", "token"], unique=False)
    op.create_index(
        "ix_reservations_uncollected",
        "reservations",
        ["ended_at"],
        unique=False,
        sqlite_where=sa.text("uncollected_micros > 0"),
        postgresql_where=sa.text("uncollected_micros > 0"),
    )
