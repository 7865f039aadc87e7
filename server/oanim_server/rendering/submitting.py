"""A render is asked for: what can be refused is refused first, then the bundle comes, then its quote is held.

The bundle is whole, verified and on disk before the hold, and the render's row is in the hold's database
transaction: so a hold has its render, and a render its bundle. A bundle whose hold was refused is removed;
what a crash leaves is a file that no row names, which the sweep removes.
"""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Any

from oanim_models.quantities import KILOPIXEL_SECOND, InvalidInput, parse_input
from oanim_remotion.bundle import BundleRefused, check
from oanim_server.ledger.operations import Ask, Refused, Reserve
from oanim_server.ledger.refusals import InvalidField, Refusal
from oanim_server.ledger.values import SERVER, Method
from oanim_server.pricing.refusals import UnknownModel
from oanim_server.rendering import rows, rules
from oanim_server.rendering.refusals import BundlesFull, TooManyRenders
from oanim_server.rendering.values import (
    MAX_ACCOUNT_BYTES,
    MAX_UNFINISHED,
    MODEL,
    Submission,
    Times,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sqlalchemy import Connection

    from oanim_server.ledger.tasks import Kept
    from oanim_server.ledger.values import Outcome
    from oanim_server.pricing.prices import Prices
    from oanim_server.pricing.values import Quote
    from oanim_server.rendering.shared import Shared

# Each unpacks up to a gigabyte, on one core.
CHECKS_AT_ONCE = 2
_PROPS = "submission.spec.props_json"


class Room:
    """A companion that sees whether an account may have one more render wait."""

    def __init__(self, asked: Submission) -> None:
        self._asked = asked

    def load(self, connection: Connection, now: int) -> None:  # noqa: ARG002 - a companion is told
        """Raises TooManyRenders, BundlesFull."""
        count, total = rows.unfinished(connection, self._asked.account_id, MAX_UNFINISHED)
        if count >= MAX_UNFINISHED:
            raise TooManyRenders(limit=MAX_UNFINISHED)
        if total + self._asked.bundle_bytes > MAX_ACCOUNT_BYTES:
            raise BundlesFull(limit_bytes=MAX_ACCOUNT_BYTES)

    def write(self, connection: Connection, outcome: Outcome) -> None:
        """Nothing: nothing has begun."""


class Opening(Room):
    """A companion of the Reserve that puts a render into the queue."""

    def __init__(self, asked: Submission, bundle_id: str, times: Times) -> None:
        super().__init__(asked)
        self._bundle_id = bundle_id
        self._times = times
        self._now = 0

    def load(self, connection: Connection, now: int) -> None:
        """See that there is room."""
        super().load(connection, now)
        self._now = now

    def write(self, connection: Connection, outcome: Outcome) -> None:
        """Write the row."""
        rows.add(
            connection,
            self._now,
            number_of(outcome),
            self._asked,
            bundle_id=self._bundle_id,
            times=self._times,
        )


class Submissions:
    """Takes bundles and holds what their renders cost."""

    def __init__(self, shared: Shared, prices: Prices, kept: Kept) -> None:
        self._shared = shared
        self._prices = prices
        self._kept = kept
        self._checks = asyncio.Semaphore(CHECKS_AT_ONCE)

    async def submit(self, asked: Submission, chunks: AsyncIterator[bytes]) -> Outcome:
        """Take a bundle, and hold what its render costs; of the same again the bundle is not looked at.

        :raises Refusal: what Reserve does, and InvalidField, BundlesFull, TooManyRenders, StoreFull.
        """
        hold = _hold(asked)
        try:
            quote = await self._quote(asked)
        except Refusal as refusal:
            # What cannot be priced is refused at its turn, after its key was looked up.
            return await self._shared.ledger.submit(Ask(**hold, amount_micros=1, companion=Refused(refusal)))
        hold |= {"amount_micros": quote.amount_micros, "line": quote.line}
        answered = await self._shared.ledger.submit(Ask(**hold, companion=Room(asked)))
        if answered.reservation is not None:
            return answered
        bundle_id = await self._shared.store.receive(
            chunks, size_bytes=asked.bundle_bytes, sha256=asked.bundle_sha256, check=self._verify
        )
        reserve = Reserve(**hold, companion=Opening(asked, bundle_id, self._shared.times))
        return await self._kept.do(self._open(reserve, bundle_id))

    async def _open(self, reserve: Reserve, bundle_id: str) -> Outcome:
        """Hold it; a bundle that no render needs is removed."""
        try:
            outcome = await self._shared.ledger.submit(reserve)
        except Refusal:
            await self._shared.store.remove([bundle_id])
            raise
        if not outcome.replayed:
            self._shared.counts.submitted += 1
            self._shared.offered()
            return outcome
        # The same call beside this one was first; or this one was, and its answer was lost.
        find = partial(rows.standing, key=(reserve.wallet_id, number_of(outcome)))
        found = await self._shared.database.read(find)
        if found is None or found.bundle_id != bundle_id:
            await self._shared.store.remove([bundle_id])
        return outcome

    async def _verify(self, path: Path) -> None:
        """Read a bundle through. Raises InvalidField naming the entry that may not be."""
        try:
            async with self._checks:
                await asyncio.to_thread(check, path)
        except BundleRefused as refused:
            raise InvalidField(field="chunk", description=f"the bundle is refused: {refused}") from refused

    async def _quote(self, asked: Submission) -> Quote:
        quantity = rules.quoted_quantity(asked.spec)
        try:
            quote = await self._prices.quote_quantity(MODEL, quantity)
        except InvalidField as refusal:
            # The caller has named no quantity, and this is too much of it.
            raise InvalidField(field=rules.FRAMES, description=refusal.description) from refusal
        if quote.price.unit != KILOPIXEL_SECOND:
            raise UnknownModel(MODEL)
        return quote


def number_of(outcome: Outcome) -> int:
    """The number of the reservation that a Reserve made."""
    if outcome.reservation is None:
        raise TypeError("a Reserve answers with its reservation")
    return outcome.reservation.number


def canonical(asked: Submission) -> str:
    """The request as JSON that is equal for equal requests, however they were written.

    :raises InvalidField: for props that are no JSON object.
    """
    spec = asked.spec
    try:
        props = parse_input(spec.props_json or "{}")
        fields = [*spec[:-1], props, asked.bundle_bytes, asked.bundle_sha256.hex()]
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))
    except InvalidInput as error:
        raise InvalidField(field=_PROPS, description=error.description) from error
    except RecursionError as error:
        raise InvalidField(field=_PROPS, description="it is nested too deep") from error


def _hold(asked: Submission) -> dict[str, Any]:
    """What the hold of a render is, but for its price."""
    return {
        "wallet_id": asked.account_id,
        "caller": asked.account_id,
        "idempotency_key": asked.idempotency_key,
        "asked": canonical(asked),
        "opener": SERVER,
        "api_key_id": asked.api_key_id,
        "ttl": None,
        "spend_scopes": asked.spend_scopes,
        "labels": asked.labels,
        "method": Method.SUBMIT_RENDER,
    }
