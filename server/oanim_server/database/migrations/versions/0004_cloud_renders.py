"""Cloud renders: the queue, the leases of its workers, and what those hold.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "renders",
        sa.Column("wallet_id", INT64, nullable=False),
        sa.Column("number", INT64, nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("composition", sa.Text(), nullable=False),
        sa.Column("width", INT64, nullable=False),
        sa.Column("height", INT64, nullable=False),
        sa.Column("fps", INT64, nullable=False),
        sa.Column("frames", INT64, nullable=False),
        sa.Column("codec", sa.Integer(), nullable=False),
        sa.Column("props_json", sa.Text(), nullable=False),
        sa.Column("bundle_id", sa.Text(), nullable=False),
        sa.Column("bundle_bytes", INT64, nullable=False),
        sa.Column("bundle_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("time_limit", INT64, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("epoch", INT64, nullable=False),
        sa.Column("worker", INT64, nullable=False),
        sa.Column("leased_at", INT64, nullable=False),
        sa.Column("leased_until", INT64, nullable=False),
        sa.Column("deadline_at", INT64, nullable=False),
        sa.Column("frames_done", INT64, nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("failure_reason", sa.Text(), nullable=False),
        sa.Column("video_id", sa.Text(), nullable=False),
        sa.Column("video_bytes", INT64, nullable=False),
        sa.Column("video_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("video_expires_at", INT64, nullable=True),
        sa.Column("created_at", INT64, nullable=False),
        sa.Column("finished_at", INT64, nullable=True),
        sa.Column("revision", INT64, nullable=False),
        sa.CheckConstraint("(state <= 2) = (finished_at IS NULL)", name=op.f("ck_renders_finished")),
        sa.CheckConstraint("(state = 3) = (video_bytes > 0)", name=op.f("ck_renders_video")),
        sa.CheckConstraint("attempts BETWEEN 0 AND epoch", name=op.f("ck_renders_attempts")),
        sa.CheckConstraint("frames_done BETWEEN 0 AND frames", name=op.f("ck_renders_frames_done")),
        sa.CheckConstraint("state <> 2 OR worker <> 0", name=op.f("ck_renders_worker")),
        sa.CheckConstraint("state BETWEEN 1 AND 5", name=op.f("ck_renders_state")),
        sa.ForeignKeyConstraint(
            ["wallet_id", "number"],
            ["reservations.wallet_id", "reservations.number"],
            name=op.f("fk_renders_wallet_id"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("wallet_id", "number", name=op.f("pk_renders")),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_renders_bundle_id",
        "renders",
        ["bundle_id"],
        unique=False,
        sqlite_where=sa.text("bundle_id <> ''"),
        postgresql_where=sa.text("bundle_id <> ''"),
    )
    op.create_index(
        "ix_renders_bundles_of_wallet",
        "renders",
        ["wallet_id"],
        unique=False,
        sqlite_where=sa.text("bundle_id <> ''"),
        postgresql_where=sa.text("bundle_id <> ''"),
    )
    op.create_index(
        "ix_renders_deadline_at",
        "renders",
        ["deadline_at"],
        unique=False,
        sqlite_where=sa.text("state <= 2"),
        postgresql_where=sa.text("state <= 2"),
    )
    op.create_index(
        "ix_renders_leased",
        "renders",
        ["wallet_id"],
        unique=False,
        sqlite_where=sa.text("state = 2"),
        postgresql_where=sa.text("state = 2"),
    )
    op.create_index(
        "ix_renders_queued",
        "renders",
        ["created_at", "wallet_id", "number"],
        unique=False,
        sqlite_where=sa.text("state = 1"),
        postgresql_where=sa.text("state = 1"),
    )
    op.create_index(
        "ix_renders_video_expires_at",
        "renders",
        ["video_expires_at"],
        unique=False,
        sqlite_where=sa.text("video_id <> ''"),
        postgresql_where=sa.text("video_id <> ''"),
    )
    op.create_index(
        "ix_renders_video_id",
        "renders",
        ["video_id"],
        unique=False,
        sqlite_where=sa.text("video_id <> ''"),
        postgresql_where=sa.text("video_id <> ''"),
    )
    op.create_table(
        "render_holds",
        sa.Column("wallet_id", INT64, nullable=False),
        sa.Column("number", INT64, nullable=False),
        sa.Column("render", INT64, nullable=False),
        sa.Column("epoch", INT64, nullable=False),
        sa.Column("worker", INT64, nullable=False),
        sa.Column("open", sa.Integer(), nullable=False),
        sa.CheckConstraint("open IN (0, 1)", name=op.f("ck_render_holds_open")),
        sa.ForeignKeyConstraint(
            ["wallet_id", "number"],
            ["reservations.wallet_id", "reservations.number"],
            name=op.f("fk_render_holds_wallet_id"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.ForeignKeyConstraint(
            ["wallet_id", "render"], ["renders.wallet_id", "renders.number"], name="fk_render_holds_render"
        ),
        sa.PrimaryKeyConstraint("wallet_id", "number", name=op.f("pk_render_holds")),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_render_holds_open",
        "render_holds",
        ["wallet_id", "render"],
        unique=False,
        sqlite_where=sa.text("open = 1"),
        postgresql_where=sa.text("open = 1"),
    )
    op.create_table(
        "render_leases",
        sa.Column("api_key_id", sa.Text(), nullable=False),
        sa.Column("idem_key", sa.Text(), nullable=False),
        sa.Column("account_id", INT64, nullable=False),
        sa.Column("number", INT64, nullable=False),
        sa.Column("epoch", INT64, nullable=False),
        sa.Column("taken_at", INT64, nullable=False),
        sa.Column("given_up", sa.Integer(), nullable=False),
        sa.CheckConstraint("given_up IN (0, 1)", name=op.f("ck_render_leases_given_up")),
        sa.ForeignKeyConstraint(
            ["account_id", "number"],
            ["renders.wallet_id", "renders.number"],
            name=op.f("fk_render_leases_account_id"),
        ),
        sa.PrimaryKeyConstraint("idem_key", "api_key_id", name=op.f("pk_render_leases")),
        sa.UniqueConstraint("account_id", "number", "epoch", name="uq_render_leases_epoch"),
        sqlite_strict=True,
    )
