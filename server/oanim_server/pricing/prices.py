"""Publishes versions of the price table and says what work costs by the one in force.

A publication is known by its content: repeated, by a call or by the next start of a server, it answers the
version that it made. So a file does not come back over prices that were published after it.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from oanim_server.ledger.refusals import NotFound
from oanim_server.pricing import rows, rules
from oanim_server.pricing.values import Version
from oanim_server.pricing.versions import Versions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from oanim_models.catalogue import Catalogue, Price
    from oanim_server.database.engine import Database
    from oanim_server.ledger.ledger import Ledger
    from oanim_server.pricing.values import Listing, PriceTable, ProposedPrice, Quote, Unlisted

log = logging.getLogger(__name__)

# Who published the price file, beside the ids of API keys.
FILE = "file"


class Prices:
    """The price table of all time.

    :param unlisted: whether a model that is not in the table has the default price or is refused.
    """

    def __init__(self, database: Database, ledger: Ledger, *, unlisted: Unlisted = "default") -> None:
        self._ledger = ledger
        self._unlisted = unlisted
        self._versions = Versions(database)

    async def publish_file(self, catalogue: Catalogue) -> Version:
        """Publish a price file with its margin, once for ever; the version that it has or had made."""
        version = await self._publish(partial(_publish_file, catalogue=catalogue))
        await self._compare(version)
        return version

    async def publish(
        self, proposed: Sequence[ProposedPrice], *, effective_at: int | None, published_by: str
    ) -> Version:
        """Publish a table, from a time on or at once; the version that it makes or has made.

        :param published_by: the id of the API key.
        :raises InvalidField: for a table or a time that cannot be.
        """
        prices = rules.of_proposal(proposed)
        return await self._publish(
            partial(_publish, prices=prices, effective_at=effective_at, published_by=published_by)
        )

    async def list_prices(self, *, category: str = "", as_of: int | None = None) -> PriceTable:
        """The table, or a category of it, now or as of a time.

        :raises InvalidField: for what is no category.
        :raises NotFound: before there were prices.
        """
        return rules.of_category(await self._versions.at(as_of), category)

    async def get_price(self, model: str, *, as_of: int | None = None) -> Listing:
        """What one model costs, by its published name or its provider's name of it.

        :raises InvalidField: for what cannot be a model's name.
        :raises UnknownModel: for one that is not listed, where those are refused.
        """
        return rules.listing(await self._versions.at(as_of), model, self._unlisted)

    async def quote_input(self, model: str, input_json: str) -> Quote:
        """What a model costs for an input, now.

        :raises InvalidField: for an input whose quantity cannot be read; besides as `get_price`.
        """
        found = await self.get_price(model)
        return rules.quote(found, rules.quantity_in(found.price, input_json))

    async def quote_quantity(self, model: str, quantity: int) -> Quote:
        """What a quantity of a model's unit costs, now. Refuses as `get_price`."""
        return rules.quote(await self.get_price(model), quantity)

    async def _compare(self, of_the_file: Version) -> None:
        """Say it when a file is not in force: who set it or its margin back would think it is."""
        try:
            in_force = (await self._versions.at(None)).version
        except NotFound:  # none is, by a clock that is behind
            return
        if in_force != of_the_file.number:
            log.error(
                "the prices in force are not those of the price file and its margin: they were published "
                "after it",
                extra={"in_force": in_force, "of_the_file": of_the_file.number},
            )

    async def _publish(self, change: partial[Version]) -> Version:
        version = await self._ledger.write(change)
        await self._versions.learn()
        return version


# Changes: run on the committer's thread, in a group's database transaction ---------------------------


def _publish_file(connection: Connection, now: int, *, catalogue: Catalogue) -> Version:
    content_hash = rules.hash_of_file(catalogue.content_hash)
    number, now = _next(connection, now)
    known = rows.version_with(connection, content_hash)
    if known is not None:
        return known
    version = Version(now, number)
    prices = rules.of_catalogue(catalogue)
    rows.add_version(
        connection, version, prices, content_hash=content_hash, published_at=now, published_by=FILE
    )
    return version


def _publish(
    connection: Connection,
    now: int,
    *,
    prices: tuple[Price, ...],
    effective_at: int | None,
    published_by: str,
) -> Version:
    number, now = _next(connection, now)
    if effective_at is None:
        known = rules.in_force(sorted(rows.versions_after(connection, 0)), now)
        if known is not None and rules.in_order(rows.prices_of(connection, known.number)) != prices:
            known = None
    else:
        known = rows.version_with(connection, rules.hash_of(prices, effective_at))
    if known is not None:
        return known
    version = Version(rules.not_past(effective_at, now), number)
    content_hash = rules.hash_of(prices, version.effective_at)
    rows.add_version(
        connection, version, prices, content_hash=content_hash, published_at=now, published_by=published_by
    )
    return version


def _next(connection: Connection, now: int) -> tuple[int, int]:
    """The next version's number, and the time: never before the last publication, whoever's clock it was."""
    rows.lock_publishing(connection)
    number, published_at = rows.latest(connection)
    return number + 1, max(now, published_at)
