"""The statements on `renders`: reading, and what begins and ends one.

Whoever ends a render has its wallet's lock and then the row's; a heartbeat has the row's alone. So an ending
counts every frame whose report was answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, func, insert, literal_column, or_, select, update

from oanim_server.database.places import at_seq
from oanim_server.database.tables import renders, reservations, transactions
from oanim_server.ledger.rows import pinned_of
from oanim_server.ledger.values import WalletFacts
from oanim_server.rendering.values import (
    Codec,
    Failure,
    Key,
    Reason,
    Render,
    Spec,
    Standing,
    State,
    Video,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import ColumnElement, Connection, Row, Select

    from oanim_server.rendering.values import End, Submission, Times

R = renders.c
# Literals, as in the indexes' conditions: of a parameter's value the planner need not know.
QUEUED = R.state == literal_column("1")
LEASED = R.state == literal_column("2")
IS_OPEN = R.state <= literal_column("2")
_HAS_BUNDLE = R.bundle_id != literal_column("''")
_HAS_VIDEO = R.video_id != literal_column("''")
# As they are taken.
ORDER = (R.created_at, R.wallet_id, R.number)
_SPEC = (R.composition, R.width, R.height, R.fps, R.frames, R.codec, R.props_json)
# Not the props, unless they are asked for: up to 64 KB in every row of a page, and at every look.
_NO_PROPS: ColumnElement[str] = literal_column("''").label("props_json")
_COLUMNS = (
    *(column for column in renders.columns if column.name != "props_json"),
    reservations.c.reserved_micros,
    reservations.c.captured_micros,
    reservations.c.pinned,
    transactions.c.balance_micros,
    transactions.c.held_micros,
    transactions.c.debt_micros,
    transactions.c.seq,
    transactions.c.frozen,
)
_STANDING = select(
    *_SPEC,
    R.wallet_id,
    R.number,
    R.state,
    R.epoch,
    R.attempts,
    R.worker,
    R.leased_until,
    R.time_limit,
    R.deadline_at,
    R.frames_done,
    R.message,
    R.bundle_id,
    R.bundle_bytes,
    R.video_id,
)


# Reading --------------------------------------------------------------------------------------------


def render(connection: Connection, key: Key, *, props: bool = True) -> Render | None:
    """One render as it stands, with or without its props."""
    row = connection.execute(_shown(props=props).where(of(key))).one_or_none()
    if row is None:
        return None
    found = _render_of(row)
    if found.state is not State.QUEUED:
        return found
    return found._replace(queue_position=_position(connection, row))


def page(connection: Connection, wallet_id: int, before: int | None, limit: int) -> list[Render]:
    """A wallet's renders below a number, newest first, without their props."""
    query = _shown(props=False).where(R.wallet_id == wallet_id).order_by(R.number.desc()).limit(limit)
    if before is not None:
        query = query.where(R.number < before)
    found = [_render_of(row) for row in connection.execute(query)]
    if not any(one.state is State.QUEUED for one in found):
        return found
    places = _places(connection, wallet_id)
    return [one._replace(queue_position=places.get(one.number, 0)) for one in found]


def _shown(*, props: bool) -> Select[Any]:
    return (
        select(*_COLUMNS, R.props_json if props else _NO_PROPS)
        .select_from(renders)
        .join(
            reservations,
            and_(reservations.c.wallet_id == R.wallet_id, reservations.c.number == R.number),
        )
        .join(
            transactions,
            at_seq(R.wallet_id, reservations.c.last_seq),
        )
    )


def _position(connection: Connection, row: Row[Any]) -> int:
    """How many wait before one."""
    before = or_(
        R.created_at < row.created_at,
        and_(
            R.created_at == row.created_at,
            or_(R.wallet_id < row.wallet_id, and_(R.wallet_id == row.wallet_id, R.number < row.number)),
        ),
    )
    query = select(func.count()).where(QUEUED, R.created_at <= row.created_at, before)
    return connection.execute(query).scalar_one()


def _places(connection: Connection, wallet_id: int) -> dict[int, int]:
    """How many wait before each of a wallet's renders: the whole queue is counted once, not once for each."""
    queue = (
        select(R.wallet_id, R.number, func.row_number().over(order_by=ORDER).label("place"))
        .where(QUEUED)
        .subquery()
    )
    query = select(queue.c.number, queue.c.place).where(queue.c.wallet_id == wallet_id)
    return {row.number: row.place - 1 for row in connection.execute(query)}


def standing(connection: Connection, key: Key, *, lock: bool = False) -> Standing | None:
    """How a render stands; with a lock nobody else changes it until the database transaction ends."""
    query = _STANDING.where(of(key))
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else standing_of(row)


def revisions(connection: Connection, keys: Collection[Key]) -> list[tuple[Key, int]]:
    """The revision of each."""
    # Two lists and not one of pairs: SQLite would scan the whole index for those.
    query = select(R.wallet_id, R.number, R.revision).where(
        R.wallet_id.in_({wallet_id for wallet_id, _ in keys}),
        R.number.in_({number for _, number in keys}),
    )
    return [((row[0], row[1]), row[2]) for row in connection.execute(query) if (row[0], row[1]) in keys]


def counts(connection: Connection) -> tuple[int, int]:
    """How many wait, and how many are leased."""
    query = select(R.state, func.count()).where(IS_OPEN).group_by(R.state)
    found = {row[0]: row[1] for row in connection.execute(query)}
    return found.get(State.QUEUED, 0), found.get(State.RENDERING, 0)


def queue_state(connection: Connection) -> int:
    """A number that is another one when a render came into the queue, or one of an account's leases ended."""
    latest = select(func.coalesce(func.max(R.created_at), 0)).where(QUEUED)
    waiting, leased = counts(connection)
    return (int(connection.execute(latest).scalar_one()) << 64) + (waiting << 32) + leased


def unfinished(connection: Connection, wallet_id: int, most: int) -> tuple[int, int]:
    """How many of a wallet's renders have not ended, so many at the most, and what their bundles come to."""
    found = select(R.bundle_bytes).where(R.wallet_id == wallet_id, _HAS_BUNDLE).limit(most).subquery()
    query = select(func.count(), func.coalesce(func.sum(found.c.bundle_bytes), 0))
    count, total = connection.execute(query.select_from(found)).one()
    return count, int(total)


def named(connection: Connection, object_ids: Sequence[str]) -> set[str]:
    """Which of these files of the store have a row."""
    found: set[str] = set()
    for column, there in ((R.bundle_id, _HAS_BUNDLE), (R.video_id, _HAS_VIDEO)):
        query = select(column).where(column.in_(object_ids), there)
        found.update(connection.execute(query).scalars())
    return found


# Writing --------------------------------------------------------------------------------------------


def add(
    connection: Connection, now: int, number: int, asked: Submission, *, bundle_id: str, times: Times
) -> None:
    """A new render, in the queue."""
    spec = asked.spec
    connection.execute(
        insert(renders).values(
            wallet_id=asked.account_id,
            number=number,
            state=int(State.QUEUED),
            **{**spec._asdict(), "codec": int(spec.codec)},
            bundle_id=bundle_id,
            bundle_bytes=asked.bundle_bytes,
            bundle_sha256=asked.bundle_sha256,
            time_limit=times.attempt,
            attempts=0,
            epoch=0,
            worker=0,
            leased_at=0,
            leased_until=0,
            deadline_at=now + times.queue,
            frames_done=0,
            message="",
            failure_reason="",
            video_id="",
            video_bytes=0,
            created_at=now,
            revision=1,
        )
    )


def finish(
    connection: Connection, now: int, found: Standing, end: End, *, video: Video | None, kept_until: int
) -> None:
    """End a render, which is locked; its bundle is needed no more."""
    changes: dict[str, Any] = {
        "state": int(end.state),
        "frames_done": max(found.frames_done, end.frames),
        "bundle_id": "",
        "finished_at": now,
    }
    if end.failure is not None:
        changes |= {"failure_reason": end.failure.reason.value, "message": end.failure.message}
    if video is not None:
        changes |= {
            "video_id": video.object_id,
            "video_bytes": video.size_bytes,
            "video_sha256": video.sha256,
            "video_expires_at": kept_until,
        }
    changed = connection.execute(
        update(renders)
        .where(of(found.key), IS_OPEN, R.epoch == found.epoch)
        .values(revision=R.revision + 1, **changes)
    )
    if changed.rowcount != 1:
        raise RuntimeError("a render changed while it was locked")


def forget_videos(connection: Connection, now: int) -> list[str]:
    """Take note that videos are kept no longer; answers their files, some hundred at a time."""
    query = (
        select(R.wallet_id, R.number, R.video_id)
        .where(_HAS_VIDEO, R.video_expires_at <= now)
        .order_by(R.video_expires_at)
        .limit(200)
    )
    expired = connection.execute(query.with_for_update()).all()
    for row in expired:
        connection.execute(
            update(renders)
            .where(of((row.wallet_id, row.number)))
            .values(video_id="", revision=R.revision + 1)
        )
    return [row.video_id for row in expired]


# Rows as values -------------------------------------------------------------------------------------


def spec_of(row: Row[*tuple[Any, ...]]) -> Spec:
    """The spec of a row of `renders`."""
    return Spec(row.composition, row.width, row.height, row.fps, row.frames, Codec(row.codec), row.props_json)


def standing_of(row: Row[*tuple[Any, ...]]) -> Standing:
    """A row of `renders`, for whoever decides about it."""
    return Standing(
        wallet_id=row.wallet_id,
        number=row.number,
        state=State(row.state),
        spec=spec_of(row),
        epoch=row.epoch,
        attempts=row.attempts,
        worker=row.worker,
        leased_until=row.leased_until,
        time_limit=row.time_limit,
        deadline_at=row.deadline_at,
        frames_done=row.frames_done,
        message=row.message,
        bundle_id=row.bundle_id,
        bundle_bytes=row.bundle_bytes,
        video_id=row.video_id,
    )


def _render_of(row: Row[Any]) -> Render:
    state = State(row.state)
    failed = state is State.FAILED
    made = state is State.SUCCEEDED
    return Render(
        wallet_id=row.wallet_id,
        number=row.number,
        spec=spec_of(row),
        state=state,
        quoted_micros=row.reserved_micros,
        charged_micros=row.captured_micros,
        frames_done=row.frames_done,
        attempts=row.attempts,
        epoch=row.epoch,
        failure=Failure(Reason(row.failure_reason), row.message) if failed else None,
        created_at=row.created_at,
        finished_at=row.finished_at,
        bundle_id=row.bundle_id,
        video=Video(row.video_id, row.video_bytes, bytes(row.video_sha256)) if made else None,
        video_expires_at=row.video_expires_at,
        labels=pinned_of(row.pinned).labels,
        revision=row.revision,
        wallet=WalletFacts(
            row.wallet_id, row.balance_micros, row.held_micros, row.debt_micros, row.seq, bool(row.frozen)
        ),
    )


def of(key: Key) -> ColumnElement[bool]:
    return and_(R.wallet_id == key[0], R.number == key[1])
