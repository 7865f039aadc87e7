from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from oanim_server.accounts.opening import SignUpLimits
from oanim_server.accounts.refusals import (
    EmailTaken,
    FreeCreditsGone,
    KeyInvalid,
    SignUpClosed,
    TooManySignUps,
)
from oanim_server.accounts.values import ApiKey, Caller, Identity, Role, SignedUp
from oanim_server.ledger.operations import Reserve
from oanim_server.ledger.refusals import InvalidField
from oanim_server.ledger.values import SECOND, WalletFacts
from tests.accounts.house import ANYWHERE, FREE, LIMITS, LOOPBACK, House, count_accounts

if TYPE_CHECKING:
    from oanim_server.accounts.accounts import Accounts

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE


def sign_up(
    house: House, email: str = "ada@example.com", key: str = "k", *, peer: str = LOOPBACK
) -> SignedUp:
    return house.do(house.accounts.sign_up(email, key, peer))


def secret_of(answer: SignedUp) -> str:
    assert answer.secret is not None
    return answer.secret


def test_a_sign_up_makes_an_account_a_wallet_the_free_credits_and_a_key(house: House) -> None:
    answer = sign_up(house, "Ada@Example.com")
    account_id, key_id = answer.account_id, answer.api_key.key_id
    expected = ApiKey(key_id, 1, "first key", Role.USER, house.clock.now, None, used=False)
    assert answer == SignedUp(
        account_id,
        expected,
        answer.secret,
        WalletFacts(account_id, FREE, 0, 0, 1, frozen=False),
        replayed=False,
    )
    assert house.do(house.ledger.wallet(account_id)) == answer.wallet
    caller = house.do(house.authenticator.authenticate(secret_of(answer)))
    assert caller == Caller(account_id, key_id, Role.USER)
    assert house.do(house.accounts.who_am_i(caller)) == Identity(
        account_id, "ada@example.com", replace(expected, used=True)
    )


def test_a_secret_is_in_no_representation(house: House) -> None:
    answer = sign_up(house)
    assert secret_of(answer)[14:] not in repr(answer)
    assert "secret" not in repr(answer)


def test_a_repeated_sign_up_answers_the_same_with_a_fresh_secret_and_the_former_one_dies(
    house: House,
) -> None:
    first = sign_up(house)
    house.clock.forward(10 * MINUTE - 1)
    second = sign_up(house, "ADA@example.com")
    assert second == replace(first, secret=second.secret, replayed=True)
    assert secret_of(second) != first.secret
    with pytest.raises(KeyInvalid):
        house.do(house.authenticator.authenticate(secret_of(first)))
    assert house.do(house.authenticator.authenticate(secret_of(second))).account_id == first.account_id


def test_after_ten_minutes_a_repeated_sign_up_shows_no_secret(house: House) -> None:
    first = sign_up(house)
    house.clock.forward(10 * MINUTE)
    assert sign_up(house) == replace(first, secret=None, replayed=True)
    assert house.do(house.authenticator.authenticate(secret_of(first))).key_id == first.api_key.key_id


def test_once_the_key_was_used_a_repeated_sign_up_shows_no_secret(house: House) -> None:
    first = sign_up(house)
    house.do(house.authenticator.authenticate(secret_of(first)))
    used = replace(first.api_key, used=True)
    assert sign_up(house) == replace(first, api_key=used, secret=None, replayed=True)
    assert house.do(house.authenticator.authenticate(secret_of(first))).key_id == first.api_key.key_id


def test_a_revoked_first_key_does_not_come_back(house: House) -> None:
    first = sign_up(house)
    revoked = house.do(house.accounts.revoke_key(first.account_id, first.api_key.key_id))
    assert sign_up(house) == replace(first, api_key=revoked, secret=None, replayed=True)


def test_a_repeated_sign_up_answers_the_wallet_as_it_stood_then(house: House) -> None:
    first = sign_up(house)
    spend = Reserve(
        wallet_id=first.account_id,
        caller=first.account_id,
        idempotency_key="r",
        amount_micros=1,
        opener=first.account_id,
        api_key_id=first.api_key.key_id,
    )
    house.do(house.ledger.submit(spend))
    assert sign_up(house).wallet == first.wallet


def test_an_address_has_one_account_whatever_its_case(house: House) -> None:
    sign_up(house)
    with pytest.raises(EmailTaken):
        sign_up(house, "ADA@EXAMPLE.COM", "another key")
    assert house.do(house.accounts.sign_up("bob@example.com", "k", LOOPBACK)).replayed is False


def test_a_bad_address_is_refused(house: House) -> None:
    with pytest.raises(InvalidField):
        sign_up(house, "ada")


def test_a_closed_server_answers_replays_alone(house: House) -> None:
    first = sign_up(house)
    closed = house.with_limits(None)
    with pytest.raises(SignUpClosed):
        house.do(closed.sign_up("bob@example.com", "k", LOOPBACK))
    assert house.do(closed.sign_up("ada@example.com", "k", LOOPBACK)).account_id == first.account_id


def test_the_sixth_sign_up_of_an_hour_from_one_address_is_refused(house: House) -> None:
    for number in range(5):
        sign_up(house, f"{number}@example.com", peer=ANYWHERE)
        house.clock.forward(MINUTE)
    with pytest.raises(TooManySignUps) as refused:
        sign_up(house, "5@example.com", peer=ANYWHERE)
    assert refused.value.facts() == {"limit": 5, "retry_after_seconds": 55 * 60}
    assert sign_up(house, "0@example.com", peer=ANYWHERE).replayed
    sign_up(house, "elsewhere@example.com", peer="203.0.113.8")
    house.clock.forward(55 * MINUTE - 1)
    with pytest.raises(TooManySignUps):
        sign_up(house, "5@example.com", peer=ANYWHERE)
    house.clock.forward(1)
    sign_up(house, "5@example.com", peer=ANYWHERE)


def test_ipv6_is_counted_by_its_network(house: House) -> None:
    for number in range(5):
        sign_up(house, f"{number}@example.com", peer=f"2001:db8::{number}")
    with pytest.raises(TooManySignUps):
        sign_up(house, "5@example.com", peer="2001:db8::ffff:0:0:1")
    sign_up(house, "5@example.com", peer="2001:db8:0:1::1")


def test_loopback_is_not_counted(house: House) -> None:
    for number in range(6):
        sign_up(house, f"{number}@example.com")
    assert house.do(house.database.read(count_accounts)) == 6


def test_the_free_credits_of_a_day_are_limited_over_all_addresses(house: House) -> None:
    house.clock.forward(22 * HOUR)
    accounts = house.with_limits(SignUpLimits(an_hour=5, free_micros_a_day=2 * FREE + 1))
    open_accounts(house, accounts, 2)
    with pytest.raises(FreeCreditsGone) as refused:
        house.do(accounts.sign_up("2@example.com", "k", LOOPBACK))
    assert refused.value.facts() == {"limit": 2 * FREE + 1, "retry_after_seconds": 2 * 3600}
    assert house.do(house.database.read(count_accounts)) == 2
    house.clock.forward(2 * HOUR)
    house.do(accounts.sign_up("2@example.com", "k", LOOPBACK))


def open_accounts(house: House, accounts: Accounts, number: int) -> None:
    for each in range(number):
        house.do(accounts.sign_up(f"{each}@example.com", "k", LOOPBACK))


def test_fifty_callers_with_one_key_make_one_account(house: House) -> None:
    async def all_at_once() -> list[SignedUp]:
        calls = (house.accounts.sign_up("ada@example.com", "k", ANYWHERE) for _ in range(50))
        return await asyncio.gather(*calls)

    answers = house.do(all_at_once())
    assert {(answer.account_id, answer.api_key, answer.wallet) for answer in answers} == {
        (answers[0].account_id, answers[0].api_key, answers[0].wallet)
    }
    assert [answer.replayed for answer in answers].count(False) == 1
    assert house.do(house.database.read(count_accounts)) == 1


def test_callers_at_once_do_not_pass_the_limits_together(house: House) -> None:
    limits = replace(LIMITS, free_micros_a_day=3 * FREE)
    accounts = house.with_limits(limits)

    async def all_at_once() -> list[object]:
        calls = (accounts.sign_up(f"{number}@example.com", "k", LOOPBACK) for number in range(10))
        return await asyncio.gather(*calls, return_exceptions=True)

    refusals = [type(answer) for answer in house.do(all_at_once()) if not isinstance(answer, SignedUp)]
    assert refusals == [FreeCreditsGone] * 7


@pytest.mark.parametrize("keys", [("k", "k"), ("k", "l")])
def test_two_servers_make_one_account_of_an_address(
    houses: tuple[House, House], keys: tuple[str, str]
) -> None:
    """Each server signs the same addresses up; who comes second gets the replay, or EmailTaken."""

    async def each(house: House, key: str) -> list[SignedUp | BaseException]:
        calls = (house.accounts.sign_up(f"{n}@example.com", key, LOOPBACK) for n in range(15))
        return await asyncio.gather(*calls, return_exceptions=True)

    with ThreadPoolExecutor(2) as threads:
        running = [
            threads.submit(house.do, each(house, key)) for house, key in zip(houses, keys, strict=True)
        ]
        answers = [future.result() for future in running]
    for pair in zip(*answers, strict=True):
        signed_up = [answer for answer in pair if isinstance(answer, SignedUp)]
        refused = [type(answer) for answer in pair if not isinstance(answer, SignedUp)]
        if keys[0] == keys[1]:
            assert sorted(answer.replayed for answer in signed_up) == [False, True]
            assert len({answer.account_id for answer in signed_up}) == 1
        else:
            assert [answer.replayed for answer in signed_up] == [False]
            assert refused == [EmailTaken]
    assert houses[0].do(houses[0].database.read(count_accounts)) == 15


def test_two_servers_do_not_pass_the_limits_together(houses: tuple[House, House]) -> None:
    limits = SignUpLimits(an_hour=20, free_micros_a_day=15 * FREE)

    async def each(house: House, name: str) -> list[object]:
        accounts = house.with_limits(limits)
        calls = (accounts.sign_up(f"{name}{n}@example.com", "k", ANYWHERE) for n in range(15))
        return await asyncio.gather(*calls, return_exceptions=True)

    with ThreadPoolExecutor(2) as threads:
        running = [
            threads.submit(house.do, each(house, name)) for house, name in zip(houses, "ab", strict=True)
        ]
        answers = [type(answer) for future in running for answer in future.result()]
    assert sorted(answers, key=str) == [FreeCreditsGone] * 15 + [SignedUp] * 15
