"""The audit of jobs: work of the server's has its hold while it runs, and none once it has ended.

Both are written in one database transaction, so that no snapshot ever sees one without the other. It knows of
a job what its table says to everybody: whose it is, and whether it has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, case, literal_column, select

from oanim_server.database.tables import generations, renders, reservations
from oanim_server.ledger.ids import account_text
from oanim_server.ledger.values import SERVER, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import ColumnElement, Connection, Table

_R = reservations.c
_ACTIVE = _R.state == literal_column("1")
# How the hold of a render has ended, by the render's end; a cancelled one has been charged, or not.
_HOLD_OF_A_RENDER = {3: State.COMMITTED, 4: State.RELEASED}


def job_problems(connection: Connection) -> Iterator[str]:
    """What is off, each a sentence that begins with whose it is."""
    for table, what in ((generations, "generation"), (renders, "render")):
        for wallet_id, number, finished_at, opener, state in _unlike_their_holds(connection, table):
            where = f"{account_text(wallet_id)}: {what} {number}: "
            if opener != SERVER:
                yield f"{where}its hold is not the server's"
            elif finished_at is None:
                yield f"{where}it runs, and its hold is {State(state).name}"
            else:
                yield f"{where}it has ended, and its hold is ACTIVE"
    for wallet_id, number in _without_a_job(connection):
        yield f"{account_text(wallet_id)}: reservation {number}: the server holds it, and no job has it"
    for wallet_id, number, ended, state in _unlike_their_charges(connection):
        right = _HOLD_OF_A_RENDER[ended].name
        where = f"{account_text(wallet_id)}: render {number}: "
        yield f"{where}its hold is {State(state).name}, {right} is right"


def _hold_of(table: Table) -> ColumnElement[bool]:
    return and_(_R.wallet_id == table.c.wallet_id, _R.number == table.c.number)


def _unlike_their_holds(
    connection: Connection, table: Table
) -> Iterator[tuple[int, int, int | None, int, int]]:
    runs = case((table.c.finished_at.is_(None), 1), else_=0)
    held = case((_ACTIVE, 1), else_=0)
    query = (
        select(table.c.wallet_id, table.c.number, table.c.finished_at, _R.opener, _R.state)
        .join(reservations, _hold_of(table))
        .where((runs != held) | (_R.opener != SERVER))
    )
    for row in connection.execute(query):
        yield row[0], row[1], row[2], row[3], row[4]


def _without_a_job(connection: Connection) -> Iterator[tuple[int, int]]:
    query = select(_R.wallet_id, _R.number).where(_ACTIVE, _R.opener == SERVER)
    for table in (generations, renders):
        query = query.outerjoin(table, _hold_of(table)).where(table.c.number.is_(None))
    for row in connection.execute(query.select_from(reservations)):
        yield row[0], row[1]


def _unlike_their_charges(connection: Connection) -> Iterator[tuple[int, int, int, int]]:
    state = renders.c.state
    right = case(
        {ended: hold.value for ended, hold in _HOLD_OF_A_RENDER.items()}, value=state, else_=_R.state
    )
    query = (
        select(renders.c.wallet_id, renders.c.number, state, _R.state)
        .join(reservations, _hold_of(renders))
        .where(state.in_(_HOLD_OF_A_RENDER), _R.state != right, ~_ACTIVE)
    )
    for row in connection.execute(query):
        yield row[0], row[1], row[2], row[3]
