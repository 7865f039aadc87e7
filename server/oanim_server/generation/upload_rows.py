"""The statements on `uploads`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, delete, func, insert, select, update

from oanim_server.database.tables import accounts, uploads
from oanim_server.generation import rows
from oanim_server.generation.inputs import uploads_named
from oanim_server.generation.refusals import UploadsFull
from oanim_server.generation.values import Upload
from oanim_server.ledger.refusals import InvalidField
from oanim_server.ledger.values import DAY

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

_U = uploads.c
# What a job that names an upload may need it for: its deadlines before and after the submit.
_WHILE_RUNNING = 2 * DAY


def fits(connection: Connection, *, account_id: int, size_bytes: int, most: int) -> None:
    """See that an account may keep so many bytes more.

    :raises UploadsFull: when it may not.
    """
    total = select(func.coalesce(func.sum(_U.size_bytes), 0)).where(_U.account_id == account_id)
    if connection.execute(total).scalar_one() + size_bytes > most:
        raise UploadsFull(limit_bytes=most)


def add(connection: Connection, now: int, *, upload: Upload, lifetime: int, most: int) -> Upload:
    """Write an upload's row; the same again answers the one that is there.

    :raises UploadsFull: when the account may not keep so much.
    """
    # The lock that keeps two uploads of one account, taken by two replicas, under its limit together.
    connection.execute(
        select(accounts.c.account_id)
        .where(accounts.c.account_id == upload.account_id)
        .with_for_update(key_share=True)
    )
    found = connection.execute(select(uploads).where(_U.upload_id == upload.upload_id)).one_or_none()
    if found is not None:
        return Upload(*found)
    fits(connection, account_id=upload.account_id, size_bytes=upload.size_bytes, most=most)
    upload = upload._replace(created_at=now, expires_at=now + lifetime)
    connection.execute(insert(uploads).values(**upload._asdict()))
    return upload


def use(connection: Connection, now: int, *, account_id: int, upload_ids: Collection[str]) -> None:
    """Lock the uploads that an input names, to the end of the database transaction.

    :raises InvalidField: when one is not there, is another account's, or is past its time.
    """
    if not upload_ids:
        return
    query = (
        select(_U.upload_id)
        .where(_U.upload_id.in_(upload_ids), _U.account_id == account_id, _U.expires_at > now)
        .order_by(_U.upload_id)
        .with_for_update()
    )
    missing = sorted(set(upload_ids) - set(connection.execute(query).scalars()))
    if missing:
        description = f"there is no upload {missing[0]}: it was never made, was used up, or is over a day old"
        raise InvalidField(field="input_json", description=description)


def keep(connection: Connection, now: int, upload_ids: Collection[str]) -> None:
    """Have uploads last while the job that names them may run."""
    if upload_ids:
        connection.execute(
            update(uploads)
            .where(_U.upload_id.in_(upload_ids), _U.expires_at < now + _WHILE_RUNNING)
            .values(expires_at=now + _WHILE_RUNNING)
        )


def named(connection: Connection, upload_ids: Collection[str]) -> dict[str, Upload]:
    """Uploads by id."""
    query = select(uploads).where(_U.upload_id.in_(upload_ids))
    return {row.upload_id: Upload(*row) for row in connection.execute(query)}


def remove_used(connection: Connection, wallet_id: int, upload_ids: Collection[str]) -> list[str]:
    """Remove the rows of uploads whose job has ended, but those that another running job names."""
    unused = set(upload_ids)
    if unused:
        for input_json in rows.inputs_running(connection, wallet_id):
            unused -= {upload.upload_id for upload in uploads_named(input_json)}
        mine = and_(_U.upload_id.in_(unused), _U.account_id == wallet_id)
        connection.execute(delete(uploads).where(mine))
    return sorted(unused)


def remove_expired(connection: Connection, now: int) -> list[str]:
    """Remove the rows of uploads that are past their time; answers their ids, some hundred at a time."""
    query = select(_U.upload_id).where(_U.expires_at <= now).order_by(_U.expires_at).limit(200)
    expired = list(connection.execute(query.with_for_update()).scalars())
    if expired:
        connection.execute(delete(uploads).where(_U.upload_id.in_(expired)))
    return expired


def known(connection: Connection, *, upload_ids: Collection[str]) -> set[str]:
    """Which of these ids have a row."""
    found: set[str] = set()
    wanted = list(upload_ids)
    for start in range(0, len(wanted), 500):
        query = select(_U.upload_id).where(_U.upload_id.in_(wanted[start : start + 500]))
        found.update(connection.execute(query).scalars())
    return found
