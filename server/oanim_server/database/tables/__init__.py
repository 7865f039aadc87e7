"""Every table, once, for both databases.

Money is micro-USD and time is microseconds since 1970, both as 64-bit integers, so that a row reads the
same on SQLite and on PostgreSQL. There, every primary key and unique constraint of a ledger table contains
the wallet's id: the tables can be distributed by it. On SQLite a composite primary key is a unique index and
the row is kept by its rowid, so that rows append; the journal has no such index there (`database/places.py`).
"""

from __future__ import annotations

from oanim_server.database.tables.access import accounts, api_keys
from oanim_server.database.tables.checkout import disputes, inbox, purchases, refund_requests, refunds
from oanim_server.database.tables.generation import generations, uploads
from oanim_server.database.tables.ledger import (
    journal_runs,
    limits,
    lots,
    notes,
    purchase_credits,
    refusals,
    reservations,
    spend_counters,
    transactions,
    usage_days,
    usage_items,
    wallets,
)
from oanim_server.database.tables.pricing import price_versions, prices
from oanim_server.database.tables.rendering import render_holds, render_leases, renders
from oanim_server.database.tables.schema import marks, metadata

__all__ = [
    "accounts",
    "api_keys",
    "disputes",
    "generations",
    "inbox",
    "journal_runs",
    "limits",
    "lots",
    "marks",
    "metadata",
    "notes",
    "price_versions",
    "prices",
    "purchase_credits",
    "purchases",
    "refund_requests",
    "refunds",
    "refusals",
    "render_holds",
    "render_leases",
    "renders",
    "reservations",
    "spend_counters",
    "transactions",
    "uploads",
    "usage_days",
    "usage_items",
    "wallets",
]
