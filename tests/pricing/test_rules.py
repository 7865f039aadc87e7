from __future__ import annotations

import json
from dataclasses import replace

import pytest

from oanim_models.catalogue import Price
from oanim_server.ledger.refusals import InvalidField
from oanim_server.ledger.values import Line
from oanim_server.pricing import rules
from oanim_server.pricing.refusals import UnknownModel
from oanim_server.pricing.values import Listing, ProposedPrice, Quote, Unlisted, Version
from tests.pricing.shop import IMAGE, PUBLISHED, UNLISTED, proposed

TABLE = rules.table(Version(7, 3), rules.of_catalogue(PUBLISHED))


def refused_field(*rows: ProposedPrice) -> str:
    with pytest.raises(InvalidField) as refused:
        rules.of_proposal(rows)
    return refused.value.field


def test_the_published_table_can_be_proposed_and_stays_the_same() -> None:
    published = rules.of_catalogue(PUBLISHED)
    assert rules.of_proposal([proposed(price) for price in reversed(published)]) == published


def test_work_of_our_own_has_an_empty_provider() -> None:
    render = replace(IMAGE, model="oanim/cloud-render", category="render", unit="kilopixel_second")
    [price, _] = rules.of_proposal([replace(render, provider="", quantity_field=""), UNLISTED])
    assert (price.provider, price.endpoint) == ("oanim", "oanim/cloud-render")


@pytest.mark.parametrize(
    ("field", "row"),
    [
        ("model", replace(IMAGE, model="Fal-AI/Flux")),
        ("model", replace(IMAGE, model="fal-ai/" + "x" * 122)),
        ("model", replace(IMAGE, model="fal-ai/flux/requests/1")),
        ("category", replace(IMAGE, category="")),
        ("amount_micros", replace(IMAGE, amount_micros=0)),
        ("amount_micros", replace(IMAGE, amount_micros=-1)),
        ("amount_micros", replace(IMAGE, amount_micros=10**12 + 1)),
        ("unit", replace(IMAGE, unit="pixel")),
        ("unit", replace(IMAGE, unit="kilopixel_second", quantity_field="")),
        ("unit", replace(IMAGE, category="render")),
        ("base_quantity", replace(IMAGE, base_quantity=0)),
        ("base_quantity", replace(IMAGE, base_quantity=10**9 + 1)),
        ("quantity_field", replace(IMAGE, quantity_field="")),
        ("quantity_field", replace(IMAGE, quantity_field="a b")),
        ("quantity_field", replace(IMAGE, unit="operation")),
        ("provider", replace(IMAGE, provider="replicate")),
        ("endpoint", replace(IMAGE, endpoint="https://fal.run")),
        ("unit", replace(UNLISTED, unit="image", quantity_field="num_images")),
        ("unit", replace(UNLISTED, base_quantity=2)),
        ("provider", replace(UNLISTED, provider="")),
        ("endpoint", replace(UNLISTED, endpoint="fal-ai/flux")),
        ("is_default", replace(UNLISTED, is_default=True)),
    ],
)
def test_a_price_that_cannot_be_is_refused_by_its_field(field: str, row: ProposedPrice) -> None:
    other = replace(IMAGE, model="fal-ai/other")
    assert refused_field(other, row, UNLISTED) == f"prices[1].{field}"


def test_a_model_is_priced_once() -> None:
    assert refused_field(IMAGE, UNLISTED, IMAGE) == "prices[2].model"
    assert refused_field(UNLISTED, UNLISTED) == "prices[1].model"
    other = replace(IMAGE, model="fal-ai/other")
    assert refused_field(IMAGE, UNLISTED, replace(other, endpoint=IMAGE.model)) == "prices[2].model"


def test_a_category_has_one_default() -> None:
    first, second = replace(IMAGE, is_default=True), replace(IMAGE, is_default=True, model="fal-ai/other")
    assert refused_field(first, second, UNLISTED) == "prices[1].is_default"


def test_a_table_has_a_price_for_models_that_are_not_listed() -> None:
    assert refused_field() == "prices"
    assert refused_field(IMAGE) == "prices"


def test_a_table_has_an_end() -> None:
    rows = [replace(IMAGE, model=f"fal-ai/{number}") for number in range(1_000)]
    assert refused_field(*rows, UNLISTED) == "prices"


def test_a_time_is_now_or_to_come() -> None:
    assert [rules.not_past(None, 5), rules.not_past(5, 5), rules.not_past(6, 5)] == [5, 5, 6]
    with pytest.raises(InvalidField) as refused:
        rules.not_past(4, 5)
    assert refused.value.field == "effective_at"


def test_the_version_in_force_came_last_and_is_the_highest_of_those() -> None:
    versions = sorted([Version(10, 1), Version(30, 2), Version(20, 3), Version(20, 4), Version(15, 5)])
    found = [rules.in_force(versions, at) for at in (9, 10, 19, 20, 29, 30, 99)]
    numbers = [version.number if version else None for version in found]
    assert numbers == [None, 1, 5, 4, 4, 2, 2]


def test_prices_are_in_the_order_of_categories_and_names() -> None:
    prices = TABLE.prices
    assert [price.model for price in prices[:2]] == ["fal-ai/flux-2-flex", "fal-ai/flux/schnell"]
    assert [price.category for price in prices[-2:]] == ["render", "other"]
    assert prices[-1].model == ""


def test_a_category_is_a_part_of_the_table() -> None:
    background = rules.of_category(TABLE, "background")
    assert [price.model for price in background.prices] == [
        "fal-ai/birefnet",
        "fal-ai/bria/background/remove",
    ]
    assert rules.of_category(TABLE, "") == TABLE
    assert [price.model for price in rules.of_category(TABLE, "other").prices][-1] == ""
    with pytest.raises(InvalidField) as refused:
        rules.of_category(TABLE, "music")
    assert refused.value.field == "category"


def test_a_model_has_one_price_under_both_its_names() -> None:
    by_name = rules.listing(TABLE, "minimax/speech-02-hd", "refuse")
    assert by_name == rules.listing(TABLE, "fal-ai/minimax/speech-02-hd", "refuse")
    assert by_name == Listing(3, by_name.price, listed=True)
    assert by_name.price.model == "minimax/speech-02-hd"


def test_a_model_that_is_not_listed_has_the_default_price_under_its_name() -> None:
    expected = Price(
        model="fal-ai/new",
        category="other",
        provider="fal",
        endpoint="fal-ai/new",
        unit="operation",
        base_quantity=1,
        amount_micros=50_000,
    )
    assert rules.listing(TABLE, "fal-ai/new", "default") == Listing(3, expected, listed=False)


@pytest.mark.parametrize(("model", "unlisted"), [("fal-ai/new", "refuse"), ("oanim/another", "default")])
def test_a_model_that_is_not_listed_can_be_refused_and_one_of_our_own_always_is(
    model: str, unlisted: Unlisted
) -> None:
    with pytest.raises(UnknownModel) as refused:
        rules.listing(TABLE, model, unlisted)
    assert refused.value.facts() == {"model": model}


@pytest.mark.parametrize("model", ["", "flux", "fal-ai/../x", "fal-ai/Flux", "fal-ai/flux ", "fal-ai/flux\0"])
@pytest.mark.parametrize("unlisted", ["default", "refuse"])
def test_what_is_no_name_of_a_model_is_refused_as_one(model: str, unlisted: Unlisted) -> None:
    with pytest.raises(InvalidField) as refused:
        rules.listing(TABLE, model, unlisted)
    assert refused.value.field == "model"


def test_a_quote_pins_the_price() -> None:
    found = rules.listing(TABLE, "fal-ai/kling-video/v2.5-turbo/pro/text-to-video", "refuse")
    price = found.price
    line = Line(3, price.model, "video", "fal", "second", 350_000, 5, 7)
    assert rules.quote(found, 7) == Quote(490_000, 7, 3, price, line)


def test_less_than_the_base_costs_the_published_price_and_nothing_costs_nothing() -> None:
    found = rules.listing(TABLE, "fal-ai/kling-video/v2.5-turbo/pro/text-to-video", "refuse")
    amounts = [rules.quote(found, quantity).amount_micros for quantity in (0, 1, 5, 6, 10)]
    assert amounts == [0, 350_000, 350_000, 420_000, 700_000]


def test_a_fraction_of_a_micro_dollar_is_rounded_up_once() -> None:
    price = replace(TABLE.prices[0], amount_micros=10, base_quantity=3)
    assert [rules.quote(Listing(1, price, listed=True), q).amount_micros for q in (3, 4, 5, 6)] == [
        10,
        14,
        17,
        20,
    ]


@pytest.mark.parametrize("quantity", [-1, 10**9 + 1, 2**63 - 1])
def test_a_quantity_out_of_range_is_refused(quantity: int) -> None:
    with pytest.raises(InvalidField) as refused:
        rules.quote(rules.listing(TABLE, "fal-ai/lora", "refuse"), quantity)
    assert refused.value.field == "quantity"


def test_more_than_one_amount_can_be_is_refused() -> None:
    found = rules.listing(TABLE, "fal-ai/lora", "refuse")
    assert rules.quote(found, 50_000_000).amount_micros == 10**12
    with pytest.raises(InvalidField) as refused:
        rules.quote(found, 50_000_001)
    assert refused.value.field == "quantity"


@pytest.mark.parametrize(
    ("input_json", "field"),
    [
        ("", "input_json"),
        ("{", "input_json"),
        ("[]", "input_json"),
        ("null", "input_json"),
        ('{"num_images": 1, "num_images": 9}', "input_json"),
        ('{"seed": NaN}', "input_json"),
        ('{"a":' * 20_000, "input_json"),
        (json.dumps({"prompt": "x" * 65_536}), "input_json"),
        (json.dumps({"prompt": "é" * 32_768}, ensure_ascii=False), "input_json"),
        ('{"num_images": 0}', "input_json.num_images"),
        ('{"num_images": -1}', "input_json.num_images"),
        ('{"num_images": 1.5}', "input_json.num_images"),
        ('{"num_images": true}', "input_json.num_images"),
        ('{"num_images": [2]}', "input_json.num_images"),
        ('{"num_images": 1000000001}', "input_json.num_images"),
    ],
)
def test_an_input_whose_quantity_cannot_be_read_is_refused_by_its_field(input_json: str, field: str) -> None:
    price = rules.listing(TABLE, "fal-ai/flux-2-flex", "refuse").price
    with pytest.raises(InvalidField) as refused:
        rules.quantity_in(price, input_json)
    assert refused.value.field == field


def test_a_render_is_not_quoted_by_an_input() -> None:
    with pytest.raises(InvalidField) as refused:
        rules.quantity_in(rules.listing(TABLE, "oanim/cloud-render", "refuse").price, "{}")
    assert refused.value.field == "model"


def test_a_minute_of_full_hd_costs_what_is_published() -> None:
    found = rules.listing(TABLE, "oanim/cloud-render", "refuse")
    assert rules.quote(found, 1_800 * 1_920 * 1_080 // (30 * 1_000)).amount_micros == 248_832
