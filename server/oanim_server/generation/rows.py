"""The statements on `generations` and `uploads`.

Every change of a job's state is guarded by its lease (replica and epoch) and by the states it may come from,
and sets plain values: the same change again, after a commit whose answer was lost, finds itself done.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, case, func, insert, or_, select, update

from oanim_models.inputs import Output
from oanim_server.database.places import at_seq
from oanim_server.database.tables import generations, reservations, transactions
from oanim_server.generation.inputs import clean
from oanim_server.generation.values import Failure, Generation, Job, Lease, Reason, Standing, State
from oanim_server.ledger.values import WalletFacts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy import ColumnElement, Connection, Row

_G = generations.c
_OUTCOMES = {
    State.SUCCEEDED: Standing.SUCCEEDED,
    State.FAILED: Standing.FAILED,
    State.CANCELLED: Standing.CANCELLED,
}
# Not the input: up to 64 KB that nobody is shown, in every row of a page and at every look.
_COLUMNS: tuple[ColumnElement[Any], ...] = (
    _G.wallet_id,
    _G.number,
    _G.model,
    _G.state,
    _G.request_id,
    _G.queue_position,
    _G.progress,
    _G.outputs,
    _G.failure_reason,
    _G.failure_message,
    _G.sandbox,
    _G.cancel_requested,
    _G.created_at,
    _G.finished_at,
    _G.revision,
    reservations.c.reserved_micros,
    reservations.c.captured_micros,
    transactions.c.balance_micros,
    transactions.c.held_micros,
    transactions.c.debt_micros,
    transactions.c.seq,
    transactions.c.frozen,
)
_SHOWN = (
    select(*_COLUMNS)
    .select_from(generations)
    .join(
        reservations,
        and_(reservations.c.wallet_id == _G.wallet_id, reservations.c.number == _G.number),
    )
    .join(
        transactions,
        at_seq(_G.wallet_id, reservations.c.last_seq),
    )
)


# Reading --------------------------------------------------------------------------------------------


def generation(connection: Connection, wallet_id: int, number: int) -> Generation | None:
    """One generation as it stands."""
    row = connection.execute(_SHOWN.where(_is(wallet_id, number))).one_or_none()
    return None if row is None else _generation_of(row)


def page(connection: Connection, wallet_id: int, before: int | None, limit: int) -> list[Generation]:
    """A wallet's generations below a number, newest first."""
    query = _SHOWN.where(_G.wallet_id == wallet_id).order_by(_G.number.desc()).limit(limit)
    if before is not None:
        query = query.where(_G.number < before)
    return [_generation_of(row) for row in connection.execute(query)]


def running(connection: Connection, wallet_id: int) -> int:
    """How many generations of a wallet have not ended."""
    query = select(func.count()).where(_G.wallet_id == wallet_id, _G.finished_at.is_(None))
    return connection.execute(query).scalar_one()


def inputs_running(connection: Connection, wallet_id: int) -> list[str]:
    """The inputs of a wallet's generations that have not ended."""
    query = select(_G.input_json).where(_G.wallet_id == wallet_id, _G.finished_at.is_(None))
    return list(connection.execute(query).scalars())


def revisions(connection: Connection, keys: Collection[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(wallet, number, revision) of each."""
    # Two lists and not one of pairs: SQLite would scan the whole index for those.
    query = select(_G.wallet_id, _G.number, _G.revision).where(
        _G.wallet_id.in_({wallet_id for wallet_id, _ in keys}),
        _G.number.in_({number for _, number in keys}),
    )
    return [(row[0], row[1], row[2]) for row in connection.execute(query) if (row[0], row[1]) in keys]


def claimable(connection: Connection, now: int, *, anyones: bool, workable: bool) -> list[tuple[int, int]]:
    """Jobs whose lease has lapsed (with `anyones`: all), oldest first.

    Without a provider nothing is `workable` but what needs none to end.
    """
    query = select(_G.wallet_id, _G.number).where(_G.finished_at.is_(None)).order_by(_G.leased_until)
    if not anyones:
        query = query.where(_G.leased_until <= now)
    if not workable:
        query = query.where(or_(stands(State.SUBMITTING, *_OUTCOMES), _G.deadline_at <= now))
    return [(row[0], row[1]) for row in connection.execute(query.limit(200))]


# Writing --------------------------------------------------------------------------------------------


def add(connection: Connection, **values: Any) -> None:
    """A new job."""
    blank = {
        "state": State.QUEUED,
        "attempts": 0,
        "epoch": 1,
        "not_before": 0,
        "request_id": "",
        "status_url": "",
        "response_url": "",
        "cancel_url": "",
        "progress": "",
        "outputs": "[]",
        "failure_reason": "",
        "failure_message": "",
        "sandbox": 0,
        "cancel_requested": 0,
        "revision": 1,
    }
    connection.execute(insert(generations).values(**{**blank, **values}))


def change(connection: Connection, lease: Lease, come_from: ColumnElement[bool], **values: Any) -> bool:
    """Change a job under its lease; False when the lease is lost, or it does not stand where it must."""
    changed = connection.execute(
        update(generations).where(_held(lease), come_from).values(revision=_G.revision + 1, **values)
    )
    return changed.rowcount == 1


def put_back(connection: Connection, lease: Lease, not_before: int) -> State | None:
    """Have a job wait for its next attempt, or, where its cancellation was asked for meanwhile, cancel it.

    The state it has now; None when the lease is lost, or it does not stand where it must.
    """
    waits = case((_G.cancel_requested == 1, int(State.CANCELLED)), else_=int(State.QUEUED))
    changed = connection.execute(
        update(generations)
        .where(_held(lease), stands(State.SUBMITTING, State.QUEUED, State.CANCELLED))
        .values(revision=_G.revision + 1, state=waits, not_before=not_before)
        .returning(_G.state)
    )
    state = changed.scalar_one_or_none()
    return None if state is None else State(state)


def stands(*states: State) -> ColumnElement[bool]:
    """That a job is in one of these states."""
    return _G.state.in_([int(state) for state in states])


def about_to_submit(attempt: int) -> ColumnElement[bool]:
    """That a job waits for this attempt, or that this attempt's own write is there already."""
    return or_(
        and_(stands(State.QUEUED), _G.attempts == attempt - 1, _G.cancel_requested == 0),
        and_(stands(State.SUBMITTING), _G.attempts == attempt),
    )


def claim(
    connection: Connection,
    now: int,
    *,
    owner: str,
    lease: int,
    keys: Iterable[tuple[int, int]],
    anyones: bool,
) -> list[Job]:
    """Take over jobs whose lease has lapsed (with `anyones`: whoever has it); each gets the next epoch."""
    taken = []
    for wallet_id, number in keys:
        open_job = and_(_is(wallet_id, number), _G.finished_at.is_(None))
        connection.execute(
            update(generations)
            .where(open_job if anyones else and_(open_job, _G.leased_until <= now))
            .values(owner=owner, epoch=_G.epoch + 1, leased_until=now + lease)
        )
        # Not by the number of rows: when this is run again they are taken already.
        query = select(generations).where(open_job, _G.owner == owner, _G.leased_until > now)
        taken += [job_of(row) for row in connection.execute(query)]
    return taken


def renew(connection: Connection, now: int, leases: Iterable[Lease], length: int) -> set[Lease]:
    """Prolong leases; answers those that were lost."""
    lost = set()
    for lease in leases:
        changed = connection.execute(
            update(generations).where(_held(lease)).values(leased_until=now + length)
        )
        if changed.rowcount != 1:
            lost.add(lease)
    return lost


def hand_back(connection: Connection, lease: Lease, leased_until: int) -> None:
    """Give a lease up, to be taken by anyone from then on."""
    connection.execute(update(generations).where(_held(lease)).values(owner="", leased_until=leased_until))


def hand_all_back(connection: Connection, now: int, *, owner: str) -> None:
    """Give up every lease of a replica that stops: another one may take them at once."""
    connection.execute(
        update(generations)
        .where(_G.finished_at.is_(None), _G.owner == owner)
        .values(owner="", leased_until=now)
    )


def cancel(
    connection: Connection, now: int, *, owner: str, lease: int, wallet_id: int, number: int
) -> Job | None:
    """Cancel a job that waits, and own it; otherwise note the wish. The job where it is to be settled here.

    One guarded update decides against the SUBMITTING of whoever works on it, and against its being put back:
    with two, another replica could put it back between them, and it would be submitted after all.
    """
    open_job = and_(_is(wallet_id, number), _G.finished_at.is_(None))
    waits = stands(State.QUEUED)
    taken = {
        "state": int(State.CANCELLED),
        "owner": owner,
        "epoch": _G.epoch + 1,
        "leased_until": now + lease,
    }
    connection.execute(
        update(generations)
        .where(open_job, or_(waits, _G.cancel_requested == 0))
        .values(
            cancel_requested=1,
            revision=_G.revision + 1,
            **{name: case((waits, value), else_=_G[name]) for name, value in taken.items()},
        )
    )
    mine = select(generations).where(open_job, stands(State.CANCELLED), _G.owner == owner)
    row = connection.execute(mine).one_or_none()
    return None if row is None else job_of(row)


def finish(connection: Connection, wallet_id: int, number: int, now: int) -> None:
    """Note that a job is settled."""
    connection.execute(
        update(generations)
        .where(_is(wallet_id, number), _G.finished_at.is_(None))
        .values(finished_at=now, revision=_G.revision + 1)
    )


# Rows as values -------------------------------------------------------------------------------------


def outputs_text(outputs: Iterable[Output]) -> str:
    """Outputs as a row keeps them."""
    return json.dumps(
        [
            {
                "url": clean(output.url, len(output.url)),
                "content_type": clean(output.content_type),
                "file_name": clean(output.file_name),
            }
            for output in outputs
        ]
    )


def job_of(row: Row[Any]) -> Job:
    """A row of `generations`, for whoever works on it."""
    return Job(
        lease=Lease(row.wallet_id, row.number, row.owner, row.epoch),
        state=State(row.state),
        endpoint=row.endpoint,
        input_json=row.input_json,
        quantity=row.quantity,
        attempts=row.attempts,
        not_before=row.not_before,
        deadline_at=row.deadline_at,
        request_id=row.request_id,
        status_url=row.status_url,
        response_url=row.response_url,
    )


def _generation_of(row: Row[Any]) -> Generation:
    ended = row.finished_at is not None
    state = State(row.state)
    waiting = Standing.QUEUED if state is State.QUEUED else Standing.RUNNING
    outputs = json.loads(row.outputs) if ended else ()
    failed = ended and state is State.FAILED
    return Generation(
        wallet_id=row.wallet_id,
        number=row.number,
        model=row.model,
        standing=_OUTCOMES[state] if ended else waiting,
        quoted_micros=row.reserved_micros,
        charged_micros=row.captured_micros,
        outputs=tuple(Output(**output) for output in outputs),
        failure=Failure(Reason(row.failure_reason), row.failure_message) if failed else None,
        created_at=row.created_at,
        finished_at=row.finished_at,
        sandbox=bool(row.sandbox),
        cancel_requested=bool(row.cancel_requested),
        submitted=bool(row.request_id),
        queue_position=row.queue_position,
        progress=row.progress,
        revision=row.revision,
        wallet=WalletFacts(
            row.wallet_id, row.balance_micros, row.held_micros, row.debt_micros, row.seq, bool(row.frozen)
        ),
    )


def _is(wallet_id: int, number: int) -> ColumnElement[bool]:
    return and_(_G.wallet_id == wallet_id, _G.number == number)


def _held(lease: Lease) -> ColumnElement[bool]:
    return and_(
        _is(lease.wallet_id, lease.number),
        _G.owner == lease.owner,
        _G.epoch == lease.epoch,
        _G.finished_at.is_(None),
    )
