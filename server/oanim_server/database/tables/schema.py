"""What the tables have in common: one metadata, and the types that both databases know."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, Text, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateColumn
from sqlalchemy.types import UserDefinedType

# SQLite's STRICT tables know INTEGER alone, which is 64 bits there.
Int64 = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)


def partial_index(name: str, *columns: Column[Any], where: str, unique: bool = False) -> Index:
    """An index of the rows alone that are so, on both databases."""
    only = text(where)
    return Index(name, *columns, unique=unique, sqlite_where=only, postgresql_where=only)


# The info of what SQLite alone has.
SQLITE = {"sqlite": True}


class RowId(UserDefinedType[int]):
    """Where SQLite keeps a row, under a name: nothing moves it then."""

    cache_ok = True

    def get_col_spec(self, **_how: Any) -> str:
        return "INTEGER PRIMARY KEY"


def is_sqlites(element: Column[Any] | Table) -> bool:
    """Whether SQLite alone has a column or a table."""
    return "sqlite" in element.info


@compiles(CreateColumn, "postgresql")
def _create(created: Any, compiler: Any, **how: Any) -> str | None:
    if is_sqlites(created.element):
        return None
    made: str = compiler.visit_create_column(created, **how)
    return made


# One row a database: what made it, and whether `dev` has used it (serve then refuses it).
marks = Table(
    "marks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    sqlite_strict=True,
)
