"""Cloud renders, their leases, and what their workers hold."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

from oanim_server.database.tables.schema import Int64, metadata, partial_index

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
partial_index(
    "ix_renders_queued",
    renders.c.created_at,
    renders.c.wallet_id,
    renders.c.number,
    where="state = 1",
)
partial_index(
    "ix_renders_leased",
    renders.c.wallet_id,
    where="state = 2",
)
partial_index(
    "ix_renders_deadline_at",
    renders.c.deadline_at,
    where="state <= 2",
)
partial_index(
    "ix_renders_bundle_id",
    renders.c.bundle_id,
    where="bundle_id <> ''",
)
partial_index(
    "ix_renders_bundles_of_wallet",
    renders.c.wallet_id,
    where="bundle_id <> ''",
)
partial_index(
    "ix_renders_video_id",
    renders.c.video_id,
    where="video_id <> ''",
)
partial_index(
    "ix_renders_video_expires_at",
    renders.c.video_expires_at,
    where="video_id <> ''",
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
partial_index(
    "ix_render_holds_open",
    render_holds.c.wallet_id,
    render_holds.c.render,
    where="open = 1",
)
