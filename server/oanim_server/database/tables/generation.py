"""Generations, and the pictures that they work on."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
)

from oanim_server.database.tables.schema import Int64, metadata, partial_index

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
partial_index(
    "ix_generations_open",
    generations.c.leased_until,
    where="finished_at IS NULL",
)
partial_index(
    "ix_generations_open_by_wallet",
    generations.c.wallet_id,
    where="finished_at IS NULL",
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
