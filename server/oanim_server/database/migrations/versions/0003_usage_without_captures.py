"""Usage of services: counters of reservations, and items without a hold.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    # By hand: on SQLite alembic would copy the whole table for the sake of the check.
    integer = "INTEGER" if op.get_bind().dialect.name == "sqlite" else "BIGINT"
    op.execute(
        f"ALTER TABLE reservations ADD COLUMN reported_quantity {integer} DEFAULT 0 NOT NULL"
        " CONSTRAINT ck_reservations_reported CHECK (reported_quantity >= 0)"
    )
    op.create_table(
        "usage_items",
        sa.Column("wallet_id", INT64, nullable=False),
        sa.Column("number", INT64, nullable=False),
        sa.Column("at", INT64, nullable=False),
        sa.Column("api_key_id", sa.Text(), nullable=False),
        sa.Column("price_version", INT64, nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("price_micros", INT64, nullable=False),
        sa.Column("base_quantity", INT64, nullable=False),
        sa.Column("quantity", INT64, nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("charged_micros", INT64, nullable=False),
        sa.Column("uncollected_micros", INT64, nullable=False),
        sa.CheckConstraint(
            "charged_micros >= 0 AND uncollected_micros >= 0", name=op.f("ck_usage_items_charged")
        ),
        sa.CheckConstraint("quantity >= 1", name=op.f("ck_usage_items_quantity")),
        sa.ForeignKeyConstraint(["wallet_id"], ["wallets.wallet_id"], name=op.f("fk_usage_items_wallet_id")),
        sa.PrimaryKeyConstraint("wallet_id", "number", name=op.f("pk_usage_items")),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_usage_items_uncollected",
        "usage_items",
        ["at"],
        unique=False,
        sqlite_where=sa.text("uncollected_micros > 0"),
        postgresql_where=sa.text("uncollected_micros > 0"),
    )
