"""The statements on leases: one is taken, renewed, given up or lost.

All of them move no money. Each is guarded by the epoch, and by the state that a render must be in; the same
again, after a commit whose answer was lost, finds itself done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import and_, case, func, insert, literal_column, or_, select, update

from oanim_server.database.tables import render_leases, renders
from oanim_server.rendering import rows, rules
from oanim_server.rendering.rows import IS_OPEN, LEASED, ORDER, QUEUED, R, of
from oanim_server.rendering.values import ATTEMPTS, Beat, Claim, Lease, Standing, State

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Row

    from oanim_server.rendering.values import Worker

_L = render_leases.c
# Leases are taken one after the other over all replicas, so that an account's are never more than may be.
_LEASING = 7_246_035_235
# How many lapsed leases a sweep ends in one database transaction.
_PORTION = 200


class Lapsed(NamedTuple):
    """What a sweep found: renders that are offered again, and those that are to be ended."""

    offered: list[Claim]
    lost: list[Claim]
    out_of_time: list[Standing]


# Taking ---------------------------------------------------------------------------------------------


def take(
    connection: Connection,
    now: int,
    *,
    worker: Worker,
    idem_key: str,
    lease: int,
    limit: int,
    wanted: object = True,
) -> Lease | None:
    """Lease the oldest render that waits, of an account that has not as many leased as may be.

    :param wanted: false once nobody waits for it any more.
    :raises StaleLease: when the key made a lease that has ended.
    """
    known = _known(connection, worker, idem_key)
    if known is not None:
        return known
    if not wanted:
        return None
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LEASING)))
    row = _oldest(connection, now, limit)
    if row is None:
        return None
    found = rows.standing_of(row)
    epoch = found.epoch + 1
    leased_until = now + min(lease, found.time_limit)
    connection.execute(
        insert(render_leases).values(
            api_key_id=worker.api_key_id,
            idem_key=idem_key,
            account_id=found.wallet_id,
            number=found.number,
            epoch=epoch,
            taken_at=now,
            given_up=0,
        )
    )
    changes = {
        "state": int(State.RENDERING),
        "epoch": epoch,
        "attempts": found.attempts + 1,
        "worker": worker.account_id,
        "leased_at": now,
        "leased_until": leased_until,
        "deadline_at": rules.deadline(found),
    }
    connection.execute(update(renders).where(of(found.key)).values(revision=R.revision + 1, **changes))
    return _lease_of(
        Claim(*found.key, epoch, worker.account_id),
        row,
        attempt=found.attempts + 1,
        expires_at=leased_until,
        replayed=False,
    )


def _known(connection: Connection, worker: Worker, idem_key: str) -> Lease | None:
    """The lease that a key made."""
    query = select(_L.account_id, _L.number, _L.epoch).where(
        _L.idem_key == idem_key, _L.api_key_id == worker.api_key_id
    )
    made = connection.execute(query).one_or_none()
    if made is None:
        return None
    claim = Claim(*made, worker.account_id)
    row = connection.execute(select(renders).where(of(claim.key))).one()
    rules.check_lease(rows.standing_of(row), claim)
    return _lease_of(claim, row, attempt=row.attempts, expires_at=row.leased_until, replayed=True)


def _oldest(connection: Connection, now: int, limit: int) -> Row[Any] | None:
    """The render to lease, locked; those that another database transaction has in hand are passed over."""
    other = renders.alias()
    busy = (
        select(other.c.wallet_id)
        .where(other.c.state == literal_column("2"))
        .group_by(other.c.wallet_id)
        .having(func.count() >= limit)
    )
    query = (
        select(renders)
        .where(QUEUED, R.deadline_at > now, R.wallet_id.not_in(busy))
        .order_by(*ORDER)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return connection.execute(query).one_or_none()


def _lease_of(claim: Claim, row: Row[Any], *, attempt: int, expires_at: int, replayed: bool) -> Lease:
    return Lease(
        claim=claim,
        spec=rows.spec_of(row),
        bundle_bytes=row.bundle_bytes,
        bundle_sha256=bytes(row.bundle_sha256),
        expires_at=expires_at,
        time_limit=row.time_limit,
        attempt=attempt,
        replayed=replayed,
    )


# Keeping --------------------------------------------------------------------------------------------


def renew(connection: Connection, now: int, *, claim: Claim, frames: int, lease: int) -> Beat | None:
    """Keep a lease and what was reported under it; None when it is not the render's, or the count cannot be.

    The greatest count stays. No lease is renewed beyond its attempt's time: what it has, it keeps.
    """
    until = _least(R.leased_at + R.time_limit, now + lease)
    changed = connection.execute(
        update(renders)
        .where(_leased(claim), R.frames >= frames)
        .values(
            frames_done=_greatest(R.frames_done, frames),
            leased_until=_greatest(R.leased_until, until),
            revision=R.revision + case((R.frames_done < frames, 1), else_=0),
        )
        .returning(R.leased_until)
    )
    leased_until = changed.scalar_one_or_none()
    return None if leased_until is None else Beat(leased_until, stop=leased_until <= now)


def give_up(
    connection: Connection,
    now: int,  # noqa: ARG001 - as every change
    *,
    claim: Claim,
    message: str,
    handed_back: bool,
) -> bool:
    """Put a render back into the queue; False when the lease is not the render's, or was its last attempt."""
    put_back: dict[str, Any] = {"state": int(State.QUEUED), "revision": R.revision + 1}
    query = update(renders).where(_leased(claim))
    if handed_back:
        query = query.values(attempts=R.attempts - 1, **put_back)
    else:
        query = query.where(R.attempts < ATTEMPTS).values(message=message, **put_back)
    if connection.execute(query).rowcount != 1:
        return False
    note_given_up(connection, claim)
    return True


def note_given_up(connection: Connection, claim: Claim) -> None:
    """Remember that a lease was ended by its worker."""
    connection.execute(update(render_leases).where(_of_lease(claim)).values(given_up=1))


def was_given_up(connection: Connection, claim: Claim) -> bool:
    """Whether a lease was ended by its worker, without a video."""
    query = select(_L.given_up).where(_of_lease(claim))
    return connection.execute(query).scalar_one_or_none() == 1


# Losing ---------------------------------------------------------------------------------------------


def sweep(connection: Connection, now: int, *, lease: int, away: bool) -> Lapsed:
    """End the leases whose workers were not heard of in time.

    :param away: nobody could be heard of until now: each worker is given its time anew, and each deadline.
    """
    later = now + lease
    if away:
        connection.execute(
            update(renders)
            .where(LEASED, or_(R.leased_until < later, R.deadline_at < later))
            .values(
                leased_until=_greatest(R.leased_until, later), deadline_at=_greatest(R.deadline_at, later)
            )
        )
    # A clock that was set back must not keep a dead worker's lease alive for as long.
    connection.execute(update(renders).where(LEASED, R.leased_until > later).values(leased_until=later))
    late = [
        rows.standing_of(row)
        for row in connection.execute(
            select(renders).where(IS_OPEN, R.deadline_at <= now).order_by(R.deadline_at).limit(_PORTION)
        )
    ]
    query = select(renders).where(LEASED, R.leased_until <= now, R.deadline_at > now).limit(_PORTION)
    lapsed = [rows.standing_of(row) for row in connection.execute(query.with_for_update(skip_locked=True))]
    offered = [found for found in lapsed if not rules.is_last(found)]
    for found in offered:
        connection.execute(
            update(renders)
            .where(of(found.key))
            .values(state=int(State.QUEUED), message=rules.LOST, revision=R.revision + 1)
        )
    return Lapsed(
        [found.claim for found in offered], [found.claim for found in lapsed if rules.is_last(found)], late
    )


def _leased(claim: Claim) -> ColumnElement[bool]:
    return and_(of(claim.key), LEASED, R.epoch == claim.epoch, R.worker == claim.worker)


def _of_lease(claim: Claim) -> ColumnElement[bool]:
    return and_(_L.account_id == claim.wallet_id, _L.number == claim.number, _L.epoch == claim.epoch)


def _greatest(one: ColumnElement[int], other: int | ColumnElement[int]) -> ColumnElement[int]:
    return case((one < other, other), else_=one)


def _least(one: ColumnElement[int], other: int) -> ColumnElement[int]:
    return case((one > other, other), else_=one)
