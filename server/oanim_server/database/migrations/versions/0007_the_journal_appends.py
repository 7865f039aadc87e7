"""SQLite's journal has no index by the wallet any more: wallets keep lists of where their rows are.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_RUN = 16
_INTEGER, _TEXT, _BLOB = "INTEGER NOT NULL", "TEXT NOT NULL", "BLOB NOT NULL"
_COLUMNS = {
    "wallet_id": _INTEGER,
    "seq": _INTEGER,
    "at": _INTEGER,
    "kind": _INTEGER,
    "caller": _INTEGER,
    "method": _INTEGER,
    "idem_key": "TEXT",
    "fingerprint": "BLOB",
    "reservation": _INTEGER,
    "state": _INTEGER,
    "reserved_micros": _INTEGER,
    "captured_micros": _INTEGER,
    "captures": _INTEGER,
    "captured_quantity": _INTEGER,
    "expires_at": "INTEGER",
    "charged_micros": _INTEGER,
    "quantity": _INTEGER,
    "uncollected_micros": _INTEGER,
    "balance_micros": _INTEGER,
    "held_micros": _INTEGER,
    "debt_micros": _INTEGER,
    "frozen": _INTEGER,
    "lots": _TEXT,
    "entries": _TEXT,
    "seal": "BLOB",
    "link": _BLOB,
}


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        return
    op.execute("ALTER TABLE wallets ADD COLUMN places TEXT DEFAULT '' NOT NULL")
    # By hand: the key of a table of SQLite's cannot be changed. Rows stay in the order they were written in.
    for index in ("ix_transactions_captures", "uq_transactions_idem_key"):
        op.drop_index(index, table_name="transactions")
    op.rename_table("transactions", "former_transactions")
    columns = ",\n\t".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
    op.execute(
        f"CREATE TABLE transactions (\n\t{columns},\n\tplace INTEGER PRIMARY KEY,\n\t"
        "CONSTRAINT ck_transactions_charged CHECK (charged_micros >= 0 AND uncollected_micros >= 0),\n\t"
        "CONSTRAINT fk_transactions_wallet_id FOREIGN KEY(wallet_id) REFERENCES wallets (wallet_id)\n)\n"
        " STRICT"
    )
    names = ", ".join(_COLUMNS)
    op.execute(
        f"INSERT INTO transactions ({names}, place)"
        f" SELECT {names}, rowid FROM former_transactions ORDER BY rowid"
    )
    op.create_table(
        "journal_runs",
        sa.Column("wallet_id", sa.Integer(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("places", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["wallet_id"], ["wallets.wallet_id"], name=op.f("fk_journal_runs_wallet_id")),
        sa.PrimaryKeyConstraint("wallet_id", "run", name=op.f("pk_journal_runs")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    # By the former table's index: no step of it is larger than one run.
    op.execute(
        f"INSERT INTO journal_runs SELECT l.wallet_id, l.seq / {_RUN} - 1,"
        " (SELECT json_group_array(place) FROM"
        " (SELECT f.rowid AS place FROM former_transactions AS f WHERE f.wallet_id = l.wallet_id"
        f" AND f.seq BETWEEN l.seq - {_RUN - 1} AND l.seq ORDER BY f.seq))"
        f" FROM former_transactions AS l WHERE l.seq % {_RUN} = 0"
    )
    op.execute(
        "UPDATE wallets SET places = coalesce((SELECT ',' || group_concat(place, ',') FROM"
        " (SELECT f.rowid AS place FROM former_transactions AS f WHERE f.wallet_id = wallets.wallet_id"
        f" AND f.seq > {_RUN} * (wallets.seq / {_RUN}) ORDER BY f.seq)), '')"
    )
    op.drop_table("former_transactions")
    keys, captures = ["idem_key", "wallet_id", "caller", "method"], ["wallet_id", "reservation", "captures"]
    op.create_index(
        "uq_transactions_idem_key",
        "transactions",
        keys,
        unique=True,
        sqlite_where=sa.text("idem_key IS NOT NULL"),
    )
    op.create_index(
        "ix_transactions_captures",
        "transactions",
        captures,
        sqlite_where=sa.text("kind = 4 AND (captures > 1 OR state = 1)"),
    )
