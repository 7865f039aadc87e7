"""Published prices: a version is never edited."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
)

from oanim_server.database.tables.schema import Int64, metadata

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
