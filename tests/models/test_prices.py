from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oanim_models import catalogue
from oanim_models.quantities import InvalidInput, charge_micros, quantity_of

# The published table, model by model, in the words of the page: what one default operation costs.
PUBLISHED = {
    "image": {
        "fal-ai/flux/schnell": 3_000,
        "fal-ai/flux-2-flex": 50_000,
        "fal-ai/recraft/v4/text-to-image": 40_000,
        "fal-ai/recraft/v4/pro/text-to-image": 60_000,
        "fal-ai/ideogram/v3": 60_000,
        "fal-ai/nano-banana-2": 80_000,
    },
    "edit": {
        "fal-ai/flux-pro/kontext": 40_000,
        "fal-ai/nano-banana-2/edit": 80_000,
        "fal-ai/reve/edit": 40_000,
    },
    "background": {"fal-ai/birefnet": 5_000, "fal-ai/bria/background/remove": 18_000},
    "upscale": {"fal-ai/bria/upscale/creative": 30_000, "fal-ai/topaz/upscale/image": 80_000},
    "video": {
        "fal-ai/minimax/hailuo-02/standard/text-to-video": 270_000,
        "fal-ai/kling-video/v2.5-turbo/pro/text-to-video": 350_000,
        "fal-ai/kling-video/v3/pro/text-to-video": 1_120_000,
        "fal-ai/veo3.1": 1_000_000,
        "fal-ai/sora-2/text-to-video/pro": 1_500_000,
    },
    "audio": {
        "beatoven/music-generation": 50_000,
        "beatoven/sound-effect-generation": 50_000,
        "minimax/speech-02-hd": 50_000,
    },
    "other": {
        "fal-ai/flux/dev/controlnet": 30_000,
        "fal-ai/flux/dev/ip-adapter": 30_000,
        "fal-ai/lora": 20_000,
    },
    "render": {"oanim/cloud-render": 2},
}


def test_the_catalogue_is_the_published_table() -> None:
    found: dict[str, dict[str, int]] = {}
    for price in catalogue.load().prices:
        found.setdefault(price.category, {})[price.model] = price.amount_micros
    assert found == PUBLISHED


@pytest.mark.parametrize(
    ("model", "amount_micros"),
    [row for category, rows in PUBLISHED.items() if category != "render" for row in rows.items()],
)
def test_a_default_operation_costs_what_is_published(model: str, amount_micros: int) -> None:
    price = catalogue.load().price(model)
    assert price is not None
    quantity = quantity_of(price, {"prompt": "a fox"})
    assert charge_micros(price.amount_micros, price.base_quantity, quantity) == amount_micros


def test_the_bases_are_what_the_models_do_by_default() -> None:
    bases = {
        price.model: (price.unit, price.base_quantity, price.quantity_field)
        for price in catalogue.load().prices
        if price.unit not in ("image", "operation")
    }
    assert bases == {
        "fal-ai/minimax/hailuo-02/standard/text-to-video": ("second", 6, "duration"),
        "fal-ai/kling-video/v2.5-turbo/pro/text-to-video": ("second", 5, "duration"),
        "fal-ai/kling-video/v3/pro/text-to-video": ("second", 5, "duration,multi_prompt[].duration"),
        "fal-ai/veo3.1": ("second", 8, "duration"),
        "fal-ai/sora-2/text-to-video/pro": ("second", 4, "duration"),
        "beatoven/music-generation": ("second", 90, "duration"),
        "minimax/speech-02-hd": ("1000_characters", 1_000, "text"),
        "oanim/cloud-render": ("kilopixel_second", 1, ""),
    }


def test_a_minute_of_1080p_rendered_in_the_cloud_costs_what_the_contract_says() -> None:
    price = catalogue.load().price("oanim/cloud-render")
    assert price is not None
    assert price.provider == "oanim"
    assert charge_micros(price.amount_micros, price.base_quantity, 60 * 1920 * 1080 // 1000) == 248_832


def test_each_category_has_its_published_default() -> None:
    loaded = catalogue.load()
    defaults = {
        category: price.model for category in PUBLISHED if (price := loaded.default(category)) is not None
    }
    assert defaults == {
        "image": "fal-ai/flux-2-flex",
        "edit": "fal-ai/flux-pro/kontext",
        "background": "fal-ai/birefnet",
        "upscale": "fal-ai/bria/upscale/creative",
        "video": "fal-ai/kling-video/v2.5-turbo/pro/text-to-video",
        "audio": "beatoven/music-generation",
        "render": "oanim/cloud-render",
    }


def test_a_new_account_gets_five_dollars() -> None:
    assert catalogue.load().free_credits_micros == 5_000_000


def test_a_model_that_is_not_listed_costs_five_cents_an_operation() -> None:
    loaded = catalogue.load()
    assert loaded.price("fal-ai/unheard-of") is None
    price = loaded.fallback("fal-ai/unheard-of")
    assert price == catalogue.Price(
        model="fal-ai/unheard-of",
        category="other",
        provider="fal",
        endpoint="fal-ai/unheard-of",
        unit="operation",
        base_quantity=1,
        amount_micros=50_000,
    )
    assert quantity_of(price, {"num_images": 4}) == 1


def test_a_model_named_by_its_endpoint_has_the_published_price() -> None:
    loaded = catalogue.load()
    assert loaded.price("fal-ai/minimax/speech-02-hd") == loaded.price("minimax/speech-02-hd")
    assert loaded.canonical("fal-ai/minimax/speech-02-hd") == "minimax/speech-02-hd"
    assert loaded.canonical("fal-ai/unheard-of") == "fal-ai/unheard-of"


@pytest.mark.parametrize(
    "model",
    [
        "",
        "flux",
        "/fal-ai/flux",
        "fal-ai/flux/",
        "fal-ai//flux",
        "fal-ai/../flux",
        "fal-ai/./flux",
        "fal-ai/flux?fal_webhook=https://example.com",
        "fal-ai/flux#x",
        "fal-ai/flux%2fschnell",
        "FAL-AI/VEO3.1",
        "fal-ai/flux\n",
        "fal-ai/flux/requests/1",
        "fal-ai/flux/requests",
        "https://example.com/a",
        "fal-ai/" + "a" * 122,
        "fal-ai/naïve",
    ],
)
def test_a_name_that_is_no_path_of_a_model_is_refused(model: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        catalogue.load().fallback(model)
    assert refused.value.field == "model"


def test_a_margin_is_rounded_up_once_in_each_amount() -> None:
    loaded = catalogue.load().with_margin(Decimal("12.5"))
    amounts = {price.model: price.amount_micros for price in loaded.prices}
    assert amounts["fal-ai/flux/schnell"] == 3_375
    assert amounts["fal-ai/flux-2-flex"] == 56_250
    assert amounts["oanim/cloud-render"] == 3
    assert loaded.unlisted_amount_micros == 56_250
    assert loaded.free_credits_micros == 5_000_000
    assert loaded.margin_percent == Decimal("12.5")


@given(st.decimals(0, 1000, places=4))
def test_a_margin_never_loses_a_micro_dollar_and_adds_less_than_one(percent: Decimal) -> None:
    plain = catalogue.load()
    for before, after in zip(plain.prices, plain.with_margin(percent).prices, strict=True):
        exact = Decimal(before.amount_micros) * (100 + percent) / 100
        assert exact <= after.amount_micros < exact + 1
        assert replace(after, amount_micros=before.amount_micros) == before


@pytest.mark.parametrize("percent", ["-1", "1001", "NaN", "Infinity"])
def test_a_margin_that_makes_no_sense_is_refused(percent: str) -> None:
    with pytest.raises(ValueError, match="margin"):
        catalogue.load().with_margin(Decimal(percent))


def test_a_margin_is_added_once() -> None:
    with pytest.raises(ValueError, match="once"):
        catalogue.load().with_margin(Decimal(5)).with_margin(Decimal(5))


def test_the_hash_is_of_what_is_published_not_of_how_it_is_written() -> None:
    text = resources.files("oanim_models").joinpath("prices.toml").read_text()
    head, *rows = text.split("[[prices]]")
    again = catalogue.parse(head + "".join(f"[[prices]]\n{row}" for row in reversed(rows)))
    assert again.content_hash == catalogue.load().content_hash
    cheaper = catalogue.parse(text.replace("3_000", "2_999"))
    assert cheaper.content_hash != catalogue.load().content_hash


def test_the_hash_tells_margins_apart_by_value() -> None:
    plain = catalogue.load()
    hashes = {
        percent: plain.with_margin(Decimal(percent)).content_hash for percent in ("0", "10", "10.00", "11")
    }
    assert hashes["0"] == plain.content_hash
    assert hashes["10"] == hashes["10.00"]
    assert len(set(hashes.values())) == 3


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('model = "fal-ai/lora"', 'model = "fal-ai/veo3.1"', "listed twice"),
        ('category = "other"\namount_micros = 20_000', 'category = "odd"\namount_micros = 1', "category"),
        ("amount_micros = 20_000", "amount_micros = 0", "out of range"),
        ("amount_micros = 20_000", "amount_micros = 1\ncolour = 2", "colour"),
        ('quantity_field = "text"', "", "quantity_field"),
        ('quantity_field = "text"', 'quantity_field = "a[b]"', "readable"),
        ("free_credits_micros", "surprise = 1\nfree_credits_micros", "unknown settings"),
        ("free_credits_micros = 5_000_000", "free_credits_micros = -5", "free_credits_micros is -5"),
        ("free_credits_micros = 5_000_000", "free_credits_micros = 1.5", "free_credits_micros is 1.5"),
        ("free_credits_micros = 5_000_000", "free_credits_micros = 'x'", "free_credits_micros is 'x'"),
        ("free_credits_micros = 5_000_000", "free_credits_micros = true", "free_credits_micros is True"),
        ("free_credits_micros = 5_000_000", "free_credits_micros = 1_000_000_000_001", "from 0 to"),
        ("free_credits_micros = 5_000_000", "", "free_credits_micros is missing"),
        ("unlisted_amount_micros = 50_000", "unlisted_amount_micros = 0", "unlisted_amount_micros is 0"),
        ("unlisted_amount_micros = 50_000", "", "unlisted_amount_micros is missing"),
        ("amount_micros = 20_000", "amount_micros = 1.5", "fal-ai/lora: amount_micros is 1.5"),
        ("amount_micros = 20_000", "amount_micros = 'x'", "fal-ai/lora: amount_micros is 'x'"),
        ("amount_micros = 20_000", "amount_micros = true", "fal-ai/lora: amount_micros is True"),
        ("amount_micros = 20_000", "amount_micros = 1\ndefault = 1", "fal-ai/lora: default is 1"),
        ("amount_micros = 20_000", "", "fal-ai/lora: .*amount_micros"),
        ('model = "fal-ai/lora"', "model = 5", "model is 5"),
        ('model = "fal-ai/lora"', "", "a price: .*'model'"),
        ('model = "fal-ai/lora"', 'model = "fal-ai/../lora"', "model"),
        ('model = "fal-ai/lora"', 'model = "fal-ai/lora"\nendpoint = "a?b"', "model"),
    ],
)
def test_a_price_file_with_a_mistake_is_refused(old: str, new: str, problem: str) -> None:
    text = resources.files("oanim_models").joinpath("prices.toml").read_text()
    assert old in text
    with pytest.raises(ValueError, match=problem):
        catalogue.parse(text.replace(old, new))


@pytest.mark.parametrize("prices", ["5", "[1]", "{}", "'x'"])
def test_prices_that_are_no_list_of_tables_are_refused(prices: str) -> None:
    with pytest.raises(ValueError, match=r"prices is no list of \[\[prices\]\]"):
        catalogue.parse(f"prices = {prices}\nfree_credits_micros = 1\nunlisted_amount_micros = 1")


def test_a_price_file_without_prices_is_refused() -> None:
    with pytest.raises(ValueError, match="prices is missing"):
        catalogue.parse("free_credits_micros = 1\nunlisted_amount_micros = 1")


def test_a_margin_that_makes_an_amount_too_large_is_refused() -> None:
    most = replace(catalogue.load(), unlisted_amount_micros=10**12)
    with pytest.raises(ValueError, match="unlisted_amount_micros"):
        most.with_margin(Decimal(1))
