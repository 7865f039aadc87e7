"""Open lots move into the wallet's row; those that have closed stay where they are.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_AMOUNTS = "amount_micros, remaining_micros, held_micros"
_FIELDS = f"lot, origin, {_AMOUNTS}, priority, expires_at, created_at, lapsed_micros"
_ARRAY = {
    "sqlite": f"json_group_array(json_array({_FIELDS}))",
    # Nothing in it but numbers and nulls: every blank is between them.
    "postgresql": f"translate(json_agg(json_build_array({_FIELDS}))::text, E' \\n', '')",
}
# What the checks of lots ask, of each: held 4, remaining 3, amount 2, lapsed 8.
_CHECK = (
    "NOT jsonb_path_exists(CAST(open_lots AS jsonb), 'strict $[*] ? (@[4] < 0 || @[4] > @[3] || @[8] < 0"
    " || @[3] + @[8] > @[2] || @[2] < 1 || @[2] > 1000000000000)')"
)


def upgrade() -> None:
    op.execute("ALTER TABLE wallets ADD COLUMN open_lots TEXT DEFAULT '[]' NOT NULL")
    array = _ARRAY[op.get_bind().dialect.name]
    opened = "FROM lots WHERE lots.wallet_id = wallets.wallet_id AND closed = 0"
    # Wallet by wallet, by the key of lots: no step of it is larger than one wallet.
    op.execute(
        f"UPDATE wallets SET open_lots = (SELECT {array} FROM (SELECT * {opened} ORDER BY lot) AS found)"
        f" WHERE EXISTS (SELECT 1 {opened})"
    )
    op.execute("DELETE FROM lots WHERE closed = 0")
    op.drop_index("ix_lots_open", table_name="lots")
    # Its check goes with it.
    op.drop_column("lots", "closed")
    if op.get_bind().dialect.name == "postgresql":
        op.create_check_constraint("open_lots", "wallets", _CHECK)
