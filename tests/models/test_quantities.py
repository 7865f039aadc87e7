from __future__ import annotations

import contextlib
import json
import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oanim_models import catalogue
from oanim_models.quantities import MAX_QUANTITY, InvalidInput, charge_micros, parse_input, quantity_of

AMOUNTS = st.integers(1, 10**12)
QUANTITIES = st.integers(1, MAX_QUANTITY)

IMAGE = "fal-ai/flux/schnell"
FILM = "fal-ai/kling-video/v2.5-turbo/pro/text-to-video"
SHOTS = "fal-ai/kling-video/v3/pro/text-to-video"
SPEECH = "minimax/speech-02-hd"


def quantity(model: str, model_input: dict[str, Any]) -> int:
    price = catalogue.load().price(model)
    assert price is not None
    return quantity_of(price, model_input)


def cost(model: str, model_input: dict[str, Any]) -> int:
    price = catalogue.load().price(model)
    assert price is not None
    return charge_micros(price.amount_micros, price.base_quantity, quantity_of(price, model_input))


@given(AMOUNTS, QUANTITIES, QUANTITIES)
def test_a_charge_is_the_exact_price_rounded_up_and_never_below_the_published_one(
    amount: int, base: int, asked: int
) -> None:
    exact = Fraction(amount * max(asked, base), base)
    charged = charge_micros(amount, base, asked)
    assert charged == math.ceil(exact)
    assert charged >= amount


@given(AMOUNTS, QUANTITIES, QUANTITIES, QUANTITIES)
def test_more_never_costs_less(amount: int, base: int, one: int, other: int) -> None:
    less, more = sorted((one, other))
    assert charge_micros(amount, base, less) <= charge_micros(amount, base, more)


@given(AMOUNTS, QUANTITIES)
def test_nothing_costs_nothing(amount: int, base: int) -> None:
    assert charge_micros(amount, base, 0) == 0


@pytest.mark.parametrize(
    ("amount", "base", "asked"),
    [(-1, 1, 1), (1, 0, 1), (1, -1, -1), (1, 1, -1), (10**12 + 1, 1, 1), (1, 1, 10**9 + 1), (-1, 1, -1)],
)
def test_each_number_of_a_charge_is_checked_on_its_own(amount: int, base: int, asked: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        charge_micros(amount, base, asked)


@pytest.mark.parametrize(
    ("model", "model_input", "expected"),
    [
        (IMAGE, {"num_images": 2}, 6_000),
        (FILM, {"duration": "10"}, 700_000),
        (FILM, {"duration": "3"}, 350_000),
        ("fal-ai/minimax/hailuo-02/standard/text-to-video", {"duration": "10"}, 450_000),
        ("fal-ai/veo3.1", {"duration": "4s"}, 1_000_000),
        ("fal-ai/sora-2/text-to-video/pro", {"duration": 12}, 4_500_000),
        ("beatoven/music-generation", {"duration": 91}, 50_556),
        ("beatoven/sound-effect-generation", {"duration": 30}, 50_000),
        (SPEECH, {"text": "a" * 1001}, 50_050),
        (SPEECH, {"text": "a"}, 50_000),
        ("fal-ai/flux-pro/kontext", {"num_images": 3}, 120_000),
    ],
)
def test_more_than_the_default_costs_in_proportion(
    model: str, model_input: dict[str, Any], expected: int
) -> None:
    assert cost(model, model_input) == expected


@pytest.mark.parametrize("asked", [4, 4.0, "4", "04"])
def test_a_number_of_images_is_understood_as_a_model_would(asked: object) -> None:
    assert quantity(IMAGE, {"num_images": asked}) == 4


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [(6, 6), ("6", 6), ("8s", 8), (6.0, 6), (6.01, 7), ("6.01", 7), ("6.000000001s", 7), (1e-300, 1)],
)
def test_a_duration_is_understood_and_rounded_up_to_the_next_second(asked: object, seconds: int) -> None:
    assert quantity(FILM, {"duration": asked}) == seconds


@pytest.mark.parametrize("model_input", [{}, {"num_images": None}])
def test_a_field_that_is_absent_or_null_asks_for_the_base(model_input: dict[str, Any]) -> None:
    assert quantity(IMAGE, model_input) == 1


def test_characters_are_counted_not_bytes() -> None:
    assert quantity(SPEECH, {"text": "ü€🦊"}) == 3


@pytest.mark.parametrize(
    ("model_input", "seconds"),
    [
        ({"duration": "15"}, 15),
        ({"multi_prompt": None}, 5),
        ({"multi_prompt": []}, 5),
        ({"multi_prompt": [{"prompt": "a"}, {"prompt": "b"}]}, 10),
        ({"multi_prompt": [{"duration": "3.5"}, {"duration": 9}, {}]}, 18),
        ({"duration": "10", "multi_prompt": [{"duration": "3"}, {"duration": "3"}]}, 10),
    ],
)
def test_the_shots_of_a_film_count_together(model_input: dict[str, Any], seconds: int) -> None:
    assert quantity(SHOTS, model_input) == seconds


@pytest.mark.parametrize(
    ("model", "model_input", "field"),
    [
        (IMAGE, {"num_images": True}, "num_images"),
        (IMAGE, {"num_images": 0}, "num_images"),
        (IMAGE, {"num_images": -4}, "num_images"),
        (IMAGE, {"num_images": 2.5}, "num_images"),
        (IMAGE, {"num_images": "4.0"}, "num_images"),
        (IMAGE, {"num_images": " 4"}, "num_images"),
        (IMAGE, {"num_images": "\u0664"}, "num_images"),
        (IMAGE, {"num_images": "1_000"}, "num_images"),
        (IMAGE, {"num_images": [4]}, "num_images"),
        (IMAGE, {"num_images": {"n": 4}}, "num_images"),
        (IMAGE, {"num_images": 10**9 + 1}, "num_images"),
        (IMAGE, {"num_images": 1e300}, "num_images"),
        (IMAGE, {"num_images": float("inf")}, "num_images"),
        (FILM, {"duration": True}, "duration"),
        (FILM, {"duration": "0"}, "duration"),
        (FILM, {"duration": "-5"}, "duration"),
        (FILM, {"duration": "5 s"}, "duration"),
        (FILM, {"duration": "5s\n"}, "duration"),
        (FILM, {"duration": "1e3"}, "duration"),
        (FILM, {"duration": "auto"}, "duration"),
        (FILM, {"duration": ""}, "duration"),
        (FILM, {"duration": float("nan")}, "duration"),
        (FILM, {"duration": float("inf")}, "duration"),
        (FILM, {"duration": ["5"]}, "duration"),
        (FILM, {"duration": "9999999999"}, "duration"),
        (SHOTS, {"multi_prompt": "two shots"}, "multi_prompt"),
        (SHOTS, {"multi_prompt": [{}, 3]}, "multi_prompt[1]"),
        (SHOTS, {"multi_prompt": [{"duration": -3}]}, "multi_prompt[0].duration"),
        (SPEECH, {"text": ""}, "text"),
        (SPEECH, {"text": 3}, "text"),
        (SPEECH, {"text": ["a", "b"]}, "text"),
        ("oanim/cloud-render", {}, "model"),
    ],
)
def test_what_cannot_be_priced_is_refused_by_its_field(
    model: str, model_input: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        quantity(model, model_input)
    assert refused.value.field == field


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from([IMAGE, FILM, SHOTS, SPEECH]), JSON, JSON)
def test_whatever_is_asked_is_priced_at_the_published_price_or_more_or_refused(
    model: str, asked: object, shots: object
) -> None:
    price = catalogue.load().price(model)
    assert price is not None
    fields = {field.partition("[")[0]: asked for field in price.quantity_field.split(",")}
    with contextlib.suppress(InvalidInput):
        found = quantity_of(price, {**fields, "multi_prompt": shots})
        assert charge_micros(price.amount_micros, price.base_quantity, found) >= price.amount_micros


def test_an_input_is_read_as_it_was_written() -> None:
    written = {"prompt": "ü", "seed": 2**60 + 1, "num_images": 2, "nested": {"a": [1, None, True]}}
    assert parse_input(json.dumps(written)) == written


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "{",
        '{"a": 1} x',
        '{"num_images": 4, "num_images": 1}',
        '{"a": {"duration": 1, "duration": 2}}',
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": ' + "9" * 5000 + "}",
        '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
)
def test_an_input_that_is_not_one_plain_object_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_input(text)
    assert refused.value.field == "input_json"
