"""Asking for work: what a repeated call gets, what is refused before anything is held, and hanging up."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from oanim_server.generation.refusals import ProviderNotConfigured, TooManyGenerations
from oanim_server.generation.values import Ended, Standing
from oanim_server.ledger.ids import new_account_id
from oanim_server.ledger.operations import Release
from oanim_server.ledger.refusals import (
    IdempotencyKeyReused,
    InsufficientCredits,
    InvalidField,
    NotFound,
    NotYourHold,
    SpendLimitExceeded,
)
from oanim_server.ledger.values import Scope
from tests.generation.house import GRANT, PRICE, House, Rest, asked
from tests.ledger.counting import statements_of_new_connections
from tests.pricing.shop import costing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oanim_server.database.engine import Database
    from oanim_server.pricing.values import ProposedPrice
    from tests.generation.house import Fal

CHARGED = Rest(GRANT - PRICE, 0, [])
NOTHING = Rest(GRANT, 0, [])


def test_the_same_key_attaches_to_the_same_generation(house: House, fal: Fal, prompt: str) -> None:
    account = house.account()
    first = house.generate(account, prompt, "k1")
    again = house.generate(account, prompt, "k1")
    assert (again.replayed, again.wallet, again.generation.number) == (
        True,
        first.wallet,
        first.generation.number,
    )
    ended = house.ended(again.generation)
    assert house.made(account, prompt, "k1") == ended
    assert house.at_rest(account) == CHARGED
    assert [job["submits"] for job in fal.jobs(prompt)] == [1]


def test_fifty_callers_with_one_key_start_one_generation(house: House, fal: Fal, prompt: str) -> None:
    account = house.account()

    async def all_at_once() -> list[bool]:
        calls = (house.generations.generate(asked(account, prompt, "k1")) for _ in range(50))
        return [accepted.replayed for accepted in await asyncio.gather(*calls)]

    assert sorted(house.do(all_at_once())) == [False] + [True] * 49
    assert house.at_rest(account) == CHARGED
    assert [job["submits"] for job in fal.jobs(prompt)] == [1]


def test_the_same_input_written_otherwise_is_the_same_request(house: House, prompt: str) -> None:
    account = house.account()
    first = house.generate(account, "", "k1", input_json=f'{{"prompt": "{prompt}", "seed": 7}}')
    again = house.generate(
        account, "", "k1", input_json=f'{{"seed":7,"prompt":"\\u{ord(prompt[0]):04x}{prompt[1:]}"}}'
    )
    assert (again.replayed, again.generation.number) == (True, first.generation.number)


@pytest.mark.parametrize(
    "other",
    [{"seed": 8}, {"model": "fal-ai/flux-2-flex"}, {"labels": {"project": "x"}}, {"num_images": 2}],
)
def test_another_request_under_the_key_is_refused(
    house: House, prompt: str, other: dict[str, object]
) -> None:
    account = house.account()
    house.made(account, prompt, "k1", seed=7)
    refusal = house.refused(account, prompt, "k1", **{"seed": 7, **other})
    assert isinstance(refusal, IdempotencyKeyReused)
    assert house.at_rest(account) == CHARGED


def test_a_replay_outlives_price_changes_limits_and_the_provider_s_key(
    open_database: Callable[[], Database], fal: Fal, tmp_path: Path, prompt: str
) -> None:
    house = House(open_database(), tmp_path, fal.url)
    account = house.account(PRICE)
    made = house.made(account, prompt, "k1")
    house.close()
    house = House(open_database(), tmp_path, None, limit=0)
    house.do(house.prices.publish(costing(4_000_000), effective_at=None, published_by="k"))
    again = house.generate(account, prompt, "k1")
    assert (again.replayed, again.generation) == (True, made)
    assert house.refused(account, prompt, "k2").facts() == {"provider": "fal"}
    assert house.at_rest(account) == Rest(0, 0, [])
    house.close()


def test_a_refusal_for_want_of_credits_is_remembered(house: House, fal: Fal, prompt: str) -> None:
    account = house.account(PRICE - 1)
    before = fal.posts()
    first = house.refused(account, prompt, "k1")
    assert isinstance(first, InsufficientCredits)
    assert house.refused(account, prompt, "k1").facts() == first.facts()
    assert house.at_rest(account) == Rest(PRICE - 1, 0, [])
    assert fal.posts() == before


def by_the_second(amount_micros: int) -> list[ProposedPrice]:
    """A table in which the picture's model is priced by the length that its input names."""
    [image, unlisted] = costing(amount_micros)
    return [replace(image, category="video", unit="second", quantity_field="length"), unlisted]


@pytest.mark.parametrize("prices", [by_the_second(5), costing(10**12)], ids=["no quantity", "too much"])
def test_what_cannot_be_priced_any_more_is_answered_by_its_key_and_refused_without(
    house: House, prompt: str, prices: list[ProposedPrice]
) -> None:
    two = {"num_images": 2, "length": "long"}
    account, poor = house.account(), house.account(PRICE - 1)
    made = house.made(account, prompt, "k1", **two)
    first = house.refused(poor, prompt, "k1", **two)
    house.do(house.prices.publish(prices, effective_at=None, published_by="k"))
    again = house.generate(account, prompt, "k1", **two)
    assert (again.replayed, again.generation) == (True, made)
    remembered = house.refused(poor, prompt, "k1", **two)
    assert (type(remembered), remembered.facts(), remembered.replayed) == (
        InsufficientCredits,
        first.facts(),
        True,
    )
    assert isinstance(house.refused(account, prompt, "k1", **{**two, "num_images": 3}), IdempotencyKeyReused)
    assert isinstance(house.refused(account, prompt, "k2", **two), InvalidField)
    assert house.at_rest(account) == Rest(GRANT - 2 * PRICE, 0, [])


def test_a_refusal_that_is_remembered_outlives_another_unit_of_the_price(house: House, prompt: str) -> None:
    account = house.account(PRICE - 1)
    first = house.refused(account, prompt, "k1", length=4)
    house.do(house.prices.publish(by_the_second(1), effective_at=None, published_by="k"))
    again = house.refused(account, prompt, "k1", length=4)
    assert (type(again), again.facts(), again.replayed) == (InsufficientCredits, first.facts(), True)


def test_a_spend_scope_counts_what_is_generated(house: House, prompt: str) -> None:
    account = house.account()
    scope = (Scope("session", 2 * PRICE),)
    for _ in range(2):
        house.made(account, prompt, spend_scopes=scope)
    assert isinstance(house.refused(account, prompt, spend_scopes=scope), SpendLimitExceeded)
    assert house.at_rest(account) == Rest(GRANT - 2 * PRICE, 0, [])


def test_without_a_provider_s_key_nothing_is_held(
    open_database: Callable[[], Database], tmp_path: Path, prompt: str
) -> None:
    house = House(open_database(), tmp_path, None)
    account = house.account()
    refusal = house.refused(account, prompt)
    assert isinstance(refusal, ProviderNotConfigured)
    assert (refusal.provider, house.wallet(account).seq) == ("fal", 1)
    house.close()


def test_no_more_run_than_may_and_the_refusal_is_not_remembered(
    open_database: Callable[[], Database], fal: Fal, tmp_path: Path, prompt: str
) -> None:
    house = House(open_database(), tmp_path, fal.url, limit=3)
    fal.told(prompt, "submit", "queue", times=3, seconds=None)
    account = house.account()

    async def five() -> list[BaseException | object]:
        calls = (house.generations.generate(asked(account, prompt, key)) for key in keys)
        return await asyncio.gather(*calls, return_exceptions=True)

    keys = ["k1", "k2", "k3", "k4", "k5"]
    answers = dict(zip(keys, house.do(five()), strict=True))
    refused = {key: one for key, one in answers.items() if isinstance(one, TooManyGenerations)}
    assert [refusal.limit for refusal in refused.values()] == [3, 3]
    assert house.wallet(account).held_micros == 3 * PRICE
    assert all(house.generate(account, prompt, key).replayed for key in answers.keys() - refused)
    fal.forgive()
    assert house.at_rest(account) == Rest(GRANT - 3 * PRICE, 0, [])
    assert [house.made(account, prompt, key).standing for key in refused] == [Standing.SUCCEEDED] * 2
    house.close()


@pytest.mark.parametrize(
    "input_json",
    ["", "{", "[]", "1", '{"a": 1, "a": 2}', '{"a": NaN}', "[" * 50_000, '{"a":' * 9_000 + "1" + "}" * 9_000],
)
def test_an_input_that_is_no_object_is_refused(house: House, input_json: str) -> None:
    account = house.account()
    refusal = house.refused(account, "", input_json=input_json or " ")
    assert isinstance(refusal, InvalidField)
    assert (refusal.field, house.wallet(account).seq) == ("input_json", 1)


@pytest.mark.parametrize("asked_for", [True, 1, "true", "yes"])
def test_an_input_that_asks_for_the_files_in_the_answer_is_refused(
    house: House, prompt: str, asked_for: object
) -> None:
    account = house.account()
    refusal = house.refused(account, prompt, sync_mode=asked_for)
    assert isinstance(refusal, InvalidField)
    assert (refusal.field, refusal.description) == (
        "input_json",
        "sync_mode would put the files themselves into the answer: leave it out, DownloadOutput gives them",
    )
    assert house.wallet(account).seq == 1


@pytest.mark.parametrize("asked_for", [False, None])
def test_an_input_that_does_not_ask_for_them_in_words_is_taken(
    house: House, prompt: str, asked_for: object
) -> None:
    assert house.made(house.account(), prompt, sync_mode=asked_for).standing is Standing.SUCCEEDED


def test_what_is_listed_and_watched_is_read_without_the_input(
    open_database: Callable[[], Database], fal: Fal, tmp_path: Path, prompt: str
) -> None:
    house = House(open_database(), tmp_path, fal.url)
    account = house.account()
    house.made(account, prompt)
    house.close()
    with statements_of_new_connections() as sent:
        house = House(open_database(), tmp_path, fal.url)
        [made] = house.do(house.generations.page(account, before=None, limit=2))
        house.followed(made)
        looks = [one for one in sent if "generations.progress" in one and "SELECT" in one]
        house.close()
    assert len(looks) == 2
    assert not any("input_json" in look for look in looks)


def test_an_input_is_passed_on_as_it_was_written(house: House, fal: Fal, prompt: str) -> None:
    account = house.account()
    seed = 2**63 + 12345678901234567890
    written = f'{{ "prompt" :"{prompt}","seed":{seed}, "ratio":1.0, "x":"\\u00e9" }}'
    house.made(account, "", input_json=written)
    [job] = fal.jobs(prompt)
    assert job["input"] == {"prompt": prompt, "seed": seed, "ratio": 1.0, "x": "é"}


def test_a_caller_that_hangs_up_changes_nothing(house: House, fal: Fal, prompt: str) -> None:
    account = house.account()

    async def hang_up() -> None:
        call = asyncio.ensure_future(house.generations.generate(asked(account, prompt, "k1")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        call.cancel()
        with suppress(asyncio.CancelledError):
            await call
        accepted = await house.generations.generate(asked(account, prompt, "k1"))
        async with aclosing(house.generations.follow(accepted.generation)) as events:
            async for _ in events:
                break

    house.do(hang_up())
    assert house.at_rest(account) == CHARGED
    assert [job["submits"] for job in fal.jobs(prompt)] == [1]
    [event] = house.followed(house.generate(account, prompt, "k1").generation)
    assert isinstance(event, Ended)


def test_nobody_frees_the_hold_of_their_own_running_work(house: House, fal: Fal, prompt: str) -> None:
    fal.told(prompt, "submit", "queue", seconds=None)
    account = house.account()
    generation = house.generate(account, prompt).generation
    release = Release(wallet_id=account, caller=account, idempotency_key="k", reservation=generation.number)
    with pytest.raises(NotYourHold):
        house.do(house.ledger.submit(release))
    fal.forgive()
    assert house.at_rest(account) == CHARGED


def test_generations_are_listed_newest_first_and_found_one_by_one(house: House, prompt: str) -> None:
    account = house.account()
    made = [house.made(account, prompt) for _ in range(3)]
    newest = house.do(house.generations.page(account, before=None, limit=2))
    rest = house.do(house.generations.page(account, before=newest[-1].number, limit=2))
    assert [*newest, *rest] == made[::-1]
    assert house.do(house.generations.page(house.account(), before=None, limit=2)) == []
    with pytest.raises(NotFound):
        house.do(house.generations.get(new_account_id(), 2))
