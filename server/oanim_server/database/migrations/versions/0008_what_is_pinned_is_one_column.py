"""What is pinned to a reservation is one column, as it was sealed.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_WORDS = ("model", "category", "provider", "unit")
_NUMBERS = ("price_micros", "base_quantity", "quoted_quantity")
_FORMER = ("price_version", *_WORDS, *_NUMBERS, "scopes", "labels")
# A text as JSON, with nothing escaped that JSON does not require.
_QUOTED = {"sqlite": "json_quote({})", "postgresql": "to_json({})::text"}
_LABELS = {
    "sqlite": "(SELECT json_group_array(json_array(key, value))"
    " FROM (SELECT key, value FROM json_each(labels) ORDER BY key))",
    # JSON of PostgreSQL's has blanks. By code points, whatever its collation is.
    "postgresql": "(SELECT '[' || coalesce(string_agg('[' || to_json(key)::text || ','"
    """ || to_json(value)::text || ']', ',' ORDER BY key COLLATE "C"), '') || ']' """
    "FROM json_each_text(labels::json))",
}


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    op.execute("ALTER TABLE reservations ADD COLUMN pinned TEXT DEFAULT '[null,[],[]]' NOT NULL")
    values = ["price_version", *map(_QUOTED[dialect].format, _WORDS), *_NUMBERS]
    joined = " || ',' || ".join(values)
    line = f"CASE price_version WHEN 0 THEN 'null' ELSE '[' || {joined} || ']' END"
    op.execute(
        f"UPDATE reservations SET pinned = '[' || {line} || ',' || scopes || ',' || {_LABELS[dialect]} || ']'"
        " WHERE price_version <> 0 OR scopes <> '[]' OR labels <> '{}'"
    )
    for column in _FORMER:
        op.drop_column("reservations", column)
