"""The job's row, in the database transaction of the hold that it is paid from.

What may refuse it is asked here, at the operation's turn: after the key was looked up, so that a replay is
refused for none of it, and under the wallet's lock, so that no limit is passed by two at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim_server.generation import rows, upload_rows
from oanim_server.generation.refusals import ProviderNotConfigured, TooManyGenerations
from oanim_server.generation.values import Job, Lease, State, Times

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from oanim_server.ledger.values import Line, Outcome

PROVIDER = "fal"


class Opening:
    """A companion of the Reserve that starts a generation; `job` is what it wrote."""

    def __init__(
        self,
        *,
        wallet_id: int,
        line: Line,
        endpoint: str,
        input_json: str,
        upload_ids: frozenset[str],
        owner: str,
        provider_configured: bool,
        limit: int,
        times: Times,
    ) -> None:
        self._wallet_id = wallet_id
        self._line = line
        self._endpoint = endpoint
        self._input_json = input_json
        self._upload_ids = upload_ids
        self._owner = owner
        self._provider_configured = provider_configured
        self._limit = limit
        self._times = times
        self._now = 0
        self.job: Job | None = None

    def load(self, connection: Connection, now: int) -> None:
        """See that it may start."""
        if self._line.provider != PROVIDER or not self._provider_configured:
            raise ProviderNotConfigured(provider=self._line.provider)
        if rows.running(connection, self._wallet_id) >= self._limit:
            raise TooManyGenerations(limit=self._limit)
        upload_rows.use(connection, now, account_id=self._wallet_id, upload_ids=self._upload_ids)
        self._now = now

    def write(self, connection: Connection, outcome: Outcome) -> None:
        """Write the row, leased to this replica."""
        number = number_of(outcome)
        job = Job(
            lease=Lease(self._wallet_id, number, self._owner, 1),
            state=State.QUEUED,
            endpoint=self._endpoint,
            input_json=self._input_json,
            quantity=self._line.quantity,
            attempts=0,
            not_before=0,
            deadline_at=self._now + self._times.deadline,
            request_id="",
            status_url="",
            response_url="",
        )
        rows.add(
            connection,
            wallet_id=self._wallet_id,
            number=number,
            model=self._line.model,
            provider=PROVIDER,
            endpoint=job.endpoint,
            input_json=job.input_json,
            quantity=job.quantity,
            owner=self._owner,
            leased_until=self._now + self._times.lease,
            deadline_at=job.deadline_at,
            created_at=self._now,
        )
        upload_rows.keep(connection, self._now, self._upload_ids)
        self.job = job


def number_of(outcome: Outcome) -> int:
    """The number of the reservation that a Reserve made."""
    if outcome.reservation is None:
        raise TypeError("a Reserve answers with its reservation")
    return outcome.reservation.number
