"""Lots close: the index of the open ones is not written when one is drawn from.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # By hand: on SQLite alembic would copy the whole table for the sake of the check.
    op.execute(
        "ALTER TABLE lots ADD COLUMN closed INTEGER DEFAULT 0 NOT NULL"
        " CONSTRAINT ck_lots_closed CHECK (closed = 0 OR (closed = 1 AND remaining_micros = 0))"
    )
    op.execute("UPDATE lots SET closed = 1 WHERE remaining_micros = 0")
    op.drop_index("ix_lots_open", table_name="lots")
    op.create_index(
        "ix_lots_open",
        "lots",
        ["wallet_id"],
        unique=False,
        sqlite_where=sa.text("closed = 0"),
        postgresql_where=sa.text("closed = 0"),
    )
