"""The rows of the price table, for both databases. They are written once: nothing changes or deletes one."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select

from oanim_models.catalogue import Price
from oanim_server.database import tables
from oanim_server.pricing.values import Version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

# Publishing is serialised over all replicas, so that versions are numbered in the order of their commits.
_PUBLISHING = 7_246_035_233

_COLUMNS = {field.name: field.name for field in fields(Price)} | {"default": "is_default"}


def lock_publishing(connection: Connection) -> None:
    """Wait for every other publication: what is read after this is not older than it."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_PUBLISHING)))


def versions_after(connection: Connection, number: int) -> list[Version]:
    """The versions above a number."""
    found = connection.execute(
        select(tables.price_versions.c.effective_at, tables.price_versions.c.version).where(
            tables.price_versions.c.version > number
        )
    )
    return [Version._make(row) for row in found]


def latest(connection: Connection) -> tuple[int, int]:
    """The number of the version that was published last, and when that was; zeros for none."""
    columns = tables.price_versions.c
    query = select(
        func.coalesce(func.max(columns.version), 0), func.coalesce(func.max(columns.published_at), 0)
    )
    number, published_at = connection.execute(query).one()
    return number, published_at


def version_with(connection: Connection, content_hash: bytes) -> Version | None:
    """The version that a publication made."""
    found = connection.execute(
        select(tables.price_versions.c.effective_at, tables.price_versions.c.version).where(
            tables.price_versions.c.content_hash == content_hash
        )
    ).one_or_none()
    return Version._make(found) if found is not None else None


def prices_of(connection: Connection, number: int) -> list[Price]:
    """The prices of a version."""
    query = select(*(tables.prices.c[column] for column in _COLUMNS.values()))
    found = connection.execute(query.where(tables.prices.c.version == number))
    return [
        Price(**{**dict(zip(_COLUMNS, row, strict=True)), "default": bool(row.is_default)}) for row in found
    ]


def add_version(
    connection: Connection,
    version: Version,
    prices: Sequence[Price],
    *,
    content_hash: bytes,
    published_at: int,
    published_by: str,
) -> None:
    connection.execute(
        insert(tables.price_versions).values(
            version=version.number,
            content_hash=content_hash,
            published_at=published_at,
            effective_at=version.effective_at,
            published_by=published_by,
        )
    )
    connection.execute(
        insert(tables.prices),
        [
            {"version": version.number, **{column: getattr(price, name) for name, column in _COLUMNS.items()}}
            | {"is_default": int(price.default)}
            for price in prices
        ],
    )
