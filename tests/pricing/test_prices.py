from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from oanim_server.database.engine import Database
from oanim_server.ledger.operations import OpenWallet, Reserve
from oanim_server.ledger.refusals import InvalidField, NotFound
from oanim_server.ledger.values import SECOND
from oanim_server.pricing import rules, versions
from oanim_server.pricing.prices import Prices
from oanim_server.pricing.refusals import UnknownModel
from oanim_server.pricing.values import PriceTable, Version
from tests import migrated
from tests.ledger.driving import START, open_account
from tests.pricing.shop import IMAGE, PUBLISHED, UNLISTED, Shop, costing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oanim_models.catalogue import Price

DAY = 86_400 * SECOND


def publish(shop: Shop, amount_micros: int, effective_at: int | None = None) -> Version:
    work = shop.prices.publish(costing(amount_micros), effective_at=effective_at, published_by="12345678")
    return shop.do(work)


def price_of(shop: Shop, as_of: int | None = None) -> int:
    return shop.do(shop.prices.get_price(IMAGE.model, as_of=as_of)).price.amount_micros


def test_there_is_no_price_before_the_first_version(shop: Shop) -> None:
    with pytest.raises(NotFound) as refused:
        shop.do(shop.prices.list_prices())
    assert refused.value.facts() == {"what": "price version"}


def test_a_file_is_published_whole(shop: Shop) -> None:
    assert shop.do(shop.prices.publish_file(PUBLISHED)) == Version(START, 1)
    expected = rules.table(Version(START, 1), rules.of_catalogue(PUBLISHED))
    assert shop.do(shop.prices.list_prices()) == expected


def test_a_file_is_published_once_and_does_not_come_back_over_newer_prices(shop: Shop) -> None:
    first = shop.do(shop.prices.publish_file(PUBLISHED))
    shop.clock.forward(DAY)
    publish(shop, 9)
    shop.clock.forward(DAY)
    assert shop.do(shop.prices.publish_file(PUBLISHED)) == first
    assert price_of(shop) == 9


def test_a_file_with_another_margin_is_another_file_rounded_up_once(shop: Shop) -> None:
    shop.do(shop.prices.publish_file(PUBLISHED))
    dearer = PUBLISHED.with_margin(Decimal("12.3456"))
    assert shop.do(shop.prices.publish_file(dearer)).number == 2
    assert price_of(shop) == 3_371
    assert shop.do(shop.prices.publish_file(dearer)).number == 2


def test_a_file_that_is_not_in_force_is_said_to_be_so(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    first = shop.do(shop.prices.publish_file(PUBLISHED))
    shop.clock.forward(DAY)
    second = shop.do(shop.prices.publish_file(PUBLISHED.with_margin(Decimal(10))))
    assert caplog.records == []
    shop.clock.forward(DAY)
    # The margin is set back, and the file with it was published before: it stays what it was.
    assert shop.do(shop.prices.publish_file(PUBLISHED)) == first
    [record] = caplog.records
    assert (record.levelname, record.getMessage()) == (
        "ERROR",
        "the prices in force are not those of the price file and its margin: they were published after it",
    )
    assert vars(record) | {"in_force": second.number, "of_the_file": first.number} == vars(record)


def test_servers_that_start_together_publish_a_file_once(shops: tuple[Shop, Shop]) -> None:
    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(shop.do, shop.prices.publish_file(PUBLISHED)) for shop in shops]
        assert [future.result() for future in running] == [Version(START, 1)] * 2


def test_prices_published_at_once_are_numbered_one_by_one(shops: tuple[Shop, Shop]) -> None:
    async def each(shop: Shop, first: int) -> list[Version]:
        calls = (
            shop.prices.publish(costing(first + n), effective_at=None, published_by="12345678")
            for n in range(10)
        )
        return await asyncio.gather(*calls)

    with ThreadPoolExecutor(2) as threads:
        running = [
            threads.submit(shop.do, each(shop, first)) for shop, first in zip(shops, (1, 101), strict=True)
        ]
        numbers = [version.number for future in running for version in future.result()]
    assert sorted(numbers) == list(range(1, 21))


def test_prices_come_into_force_at_their_instant(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(shop, 1)
    later = publish(shop, 2, START + DAY)
    assert later == Version(START + DAY, 2)
    assert price_of(shop) == 1
    assert [price_of(shop, at) for at in (START, START + DAY - 1, START + DAY)] == [1, 1, 2]
    with pytest.raises(NotFound):
        price_of(shop, START - 1)
    shop.clock.forward(DAY)
    # Otherwise the database's clock, which has jumped, is asked once a second.
    monkeypatch.setattr(versions, "REFRESH_SECONDS", 0.0)
    assert price_of(shop) == 2


def test_prices_published_for_now_hold_at_once(shop: Shop) -> None:
    for amount in (1, 2, 3):
        publish(shop, amount)
        assert price_of(shop) == amount


def test_prices_do_not_start_in_the_past(shop: Shop) -> None:
    with pytest.raises(InvalidField) as refused:
        publish(shop, 1, START - 1)
    assert refused.value.field == "effective_at"
    assert publish(shop, 1, START).number == 1


def test_the_same_prices_with_the_same_time_answer_the_version_that_they_made(shop: Shop) -> None:
    scheduled = publish(shop, 1, START + DAY)
    shop.clock.forward(2 * DAY)
    publish(shop, 2)
    assert publish(shop, 1, START + DAY) == scheduled
    assert publish(shop, 1, START + 3 * DAY).number == 3


def test_the_prices_in_force_published_again_for_now_answer_their_version(shop: Shop) -> None:
    first = publish(shop, 1)
    shop.clock.forward(DAY)
    assert publish(shop, 1) == first
    publish(shop, 2)
    shop.clock.forward(DAY)
    assert publish(shop, 1) == Version(START + 2 * DAY, 3)


def test_a_clock_behind_the_last_publication_does_not_hide_the_next_one(shop: Shop) -> None:
    publish(shop, 1)
    shop.clock.forward(-DAY)
    assert publish(shop, 2) == Version(START, 2)
    assert price_of(shop, START) == 2


def test_a_table_that_cannot_be_changes_nothing(shop: Shop) -> None:
    publish(shop, 1)
    with pytest.raises(InvalidField):
        publish(shop, 0)
    assert price_of(shop) == 1


def test_a_version_of_another_server_is_seen_within_a_second(
    shops: tuple[Shop, Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = shops
    publish(here, 1)
    assert price_of(there) == 1
    publish(here, 2)
    monkeypatch.setattr(versions, "REFRESH_SECONDS", 0.0)
    assert price_of(there) == 2


def test_an_old_version_is_read_again_when_it_was_forgotten(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "REMEMBERED_TABLES", 1)
    publish(shop, 1)
    publish(shop, 2, START + DAY)
    assert [price_of(shop, at) for at in (START, START + DAY, START, START + DAY)] == [1, 2, 1, 2]


def test_callers_at_once_get_one_table(shop: Shop) -> None:
    publish(shop, 1)

    async def all_at_once() -> list[PriceTable]:
        return await asyncio.gather(*(shop.prices.list_prices() for _ in range(20)))

    assert len({id(table) for table in shop.do(all_at_once())}) == 1


@pytest.mark.parametrize("price", PUBLISHED.prices, ids=lambda price: price.model)
def test_an_input_that_says_nothing_costs_the_published_price(price: Price, published: Shop) -> None:
    if price.unit == "kilopixel_second":
        quote = published.do(published.prices.quote_quantity(price.model, 1))
    else:
        quote = published.do(published.prices.quote_input(price.model, "{}"))
    assert (quote.amount_micros, quote.price) == (price.amount_micros, price)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The published table, for tests that only ask."""
    path = tmp_path_factory.mktemp("published") / "ledger.db"
    one = Shop(Database.open_sqlite(migrated.sqlite(path)))
    one.do(one.prices.publish_file(PUBLISHED))
    yield one
    one.close()


def test_an_input_is_quoted_by_its_quantity(published: Shop) -> None:
    quote = published.do(published.prices.quote_input("fal-ai/flux-2-flex", '{"num_images": 3}'))
    assert (quote.amount_micros, quote.quantity, quote.price_version) == (150_000, 3, 1)
    assert quote == published.do(published.prices.quote_quantity("fal-ai/flux-2-flex", 3))


def test_a_model_that_is_not_listed_costs_the_default_or_is_refused(shop: Shop) -> None:
    publish(shop, 1)
    assert shop.do(shop.prices.quote_input("fal-ai/new", '{"num_images": 9}')).amount_micros == 50_000
    refusing = Prices(shop.database, shop.ledger, unlisted="refuse")
    with pytest.raises(UnknownModel):
        shop.do(refusing.quote_input("fal-ai/new", "{}"))
    with pytest.raises(UnknownModel):
        shop.do(refusing.get_price("fal-ai/new"))


def test_a_reservation_keeps_the_price_that_it_was_quoted_with(shop: Shop) -> None:
    publish(shop, 5)
    quote = shop.do(shop.prices.quote_quantity(IMAGE.model, 2))
    publish(shop, 7)
    shop.ledger.run_write(lambda connection, _now: open_account(connection, 1))
    shop.do(shop.ledger.submit(OpenWallet(wallet_id=1, caller=1, idempotency_key="o", grant_micros=100)))
    reserve = Reserve(
        wallet_id=1,
        caller=1,
        idempotency_key="r",
        amount_micros=quote.amount_micros,
        opener=1,
        api_key_id="12345678",
        line=quote.line,
    )
    reservation = shop.do(shop.ledger.submit(reserve)).reservation
    assert reservation is not None
    assert (reservation.reserved_micros, reservation.line) == (10, quote.line)
    assert quote.line.price_version == 1


def test_an_empty_table_prices_every_model_alike(shop: Shop) -> None:
    shop.do(shop.prices.publish([replace(UNLISTED, amount_micros=4)], effective_at=None, published_by="k"))
    assert price_of(shop) == 4
