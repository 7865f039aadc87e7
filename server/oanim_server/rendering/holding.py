"""What a worker holds for the account of a render, while it has the render's lease.

A worker reserves, extends and commits under its lease alone. What is still held at the lease's end the server
releases: it is found by the rows of those holds, so that a crash between the two only delays it.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import and_, insert, literal_column, not_, select, update

from oanim_server.database.tables import render_holds, renders
from oanim_server.ledger.ids import reservation_text
from oanim_server.ledger.operations import Release
from oanim_server.ledger.refusals import NotFound, Refusal, ReservationEnded
from oanim_server.ledger.values import SERVER
from oanim_server.rendering import rows, rules
from oanim_server.rendering.rows import LEASED, R
from oanim_server.rendering.values import Claim

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from oanim_server.database.engine import Database
    from oanim_server.ledger.ledger import Ledger
    from oanim_server.ledger.values import Outcome
    from oanim_server.rendering.values import Key

log = logging.getLogger(__name__)

_H = render_holds.c
_PORTION = 200


class Held:
    """A companion of a worker's Reserve: only under the lease of the render that pays, and ended with it."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim

    def load(self, connection: Connection, now: int) -> None:  # noqa: ARG002 - a companion is told
        """See that the lease lives. Raises StaleLease, NotFound."""
        _check(connection, self._claim)

    def write(self, connection: Connection, outcome: Outcome) -> None:
        """Note whose hold it is."""
        if outcome.reservation is None:
            raise TypeError("a Reserve answers with its reservation")
        claim = self._claim
        connection.execute(
            insert(render_holds).values(
                wallet_id=claim.wallet_id,
                number=outcome.reservation.number,
                render=claim.number,
                epoch=claim.epoch,
                worker=claim.worker,
                open=1,
            )
        )


class UnderLease:
    """A companion of a worker's Commit or Extend: only while the lease lives that the hold belongs to."""

    def __init__(self, key: Key, worker: int) -> None:
        self._key = key
        self._worker = worker

    def load(self, connection: Connection, now: int) -> None:  # noqa: ARG002 - a companion is told
        """See that it does. Another's hold is left to the ledger to refuse. Raises StaleLease."""
        query = select(_H.render, _H.epoch).where(
            _H.wallet_id == self._key[0], _H.number == self._key[1], _H.worker == self._worker
        )
        held = connection.execute(query).one_or_none()
        if held is not None:
            _check(connection, Claim(self._key[0], held.render, held.epoch, self._worker))

    def write(self, connection: Connection, outcome: Outcome) -> None:
        """Nothing: it is the ledger's."""


class Released:
    """A companion of the release of a worker's hold: it is seen to."""

    def __init__(self, key: Key) -> None:
        self._key = key

    def load(self, connection: Connection, now: int) -> None:
        """Nothing."""

    def write(self, connection: Connection, outcome: Outcome) -> None:  # noqa: ARG002 - a companion is told
        """Do not look at it again."""
        _close(connection, 0, key=self._key)


async def release_left(database: Database, ledger: Ledger, render: Key | None = None) -> None:
    """Release what workers still hold under leases that have ended: of one render, or of all."""
    for hold, opener in await database.read(partial(_left, render=render)):
        release = Release(
            wallet_id=hold[0],
            caller=SERVER,
            idempotency_key=f"lease of {reservation_text(*hold)} ended",
            reservation=hold[1],
            opener=opener,
            companion=Released(hold),
        )
        try:
            await ledger.submit(release)
        except ReservationEnded:
            await ledger.write(partial(_close, key=hold))
        except Refusal as refusal:
            extra = {"reservation": reservation_text(*hold), "refusal": type(refusal).__name__}
            log.warning("a worker's hold could not be released and is tried again", extra=extra)


def _check(connection: Connection, claim: Claim) -> None:
    found = rows.standing(connection, claim.key, lock=True)
    if found is None:
        raise NotFound(what="render")
    rules.check_lease(found, claim)


def _left(connection: Connection, render: Key | None) -> list[tuple[Key, int]]:
    """Holds of leases that have ended, and whose each is."""
    lives = and_(LEASED, R.epoch == _H.epoch)
    query = (
        select(_H.wallet_id, _H.number, _H.worker)
        .join(renders, and_(R.wallet_id == _H.wallet_id, R.number == _H.render))
        .where(_H.open == literal_column("1"), not_(lives))
        .limit(_PORTION)
    )
    if render is not None:
        query = query.where(_H.wallet_id == render[0], _H.render == render[1])
    return [((row.wallet_id, row.number), row.worker) for row in connection.execute(query)]


def _close(connection: Connection, now: int, *, key: Key) -> None:  # noqa: ARG001 - as every change
    connection.execute(update(render_holds).where(_H.wallet_id == key[0], _H.number == key[1]).values(open=0))
