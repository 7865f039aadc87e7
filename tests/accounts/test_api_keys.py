from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from oanim_server.accounts.refusals import KeyInvalid, TooManyKeys
from oanim_server.accounts.values import ApiKey, Caller, Identity, KeyMade, Role
from oanim_server.ledger.refusals import IdempotencyKeyReused, NotFound
from oanim_server.ledger.values import SECOND, WalletFacts
from tests.accounts.house import LOOPBACK, House, count_accounts

if TYPE_CHECKING:
    from oanim_server.accounts.values import SignedUp


def sign_up(house: House, email: str = "ada@example.com") -> SignedUp:
    return house.do(house.accounts.sign_up(email, "k", LOOPBACK))


def create(house: House, account_id: int, name: str = "ci", key: str = "k") -> KeyMade:
    return house.do(house.accounts.create_key(account_id, name, key, asking_key_id="another"))


def listed(house: House, account_id: int) -> list[str]:
    keys = house.do(house.accounts.list_keys(account_id, before=None, limit=100))
    return [key.key_id for key in keys]


def test_another_key_is_its_accounts(house: House) -> None:
    account_id = sign_up(house).account_id
    house.clock.forward(SECOND)
    made = create(house, account_id)
    expected = ApiKey(made.api_key.key_id, 2, "ci", Role.USER, house.clock.now, None, used=False)
    assert made == KeyMade(account_id, expected, made.secret, replayed=False)
    assert made.secret is not None
    caller = house.do(house.authenticator.authenticate(made.secret))
    assert caller == Caller(account_id, made.api_key.key_id, Role.USER)


def test_a_repeated_call_answers_the_same_key_with_a_fresh_secret_until_it_is_used(house: House) -> None:
    account_id = sign_up(house).account_id
    first = create(house, account_id)
    second = create(house, account_id)
    assert second == replace(first, secret=second.secret, replayed=True)
    assert first.secret is not None
    assert second.secret is not None
    with pytest.raises(KeyInvalid):
        house.do(house.authenticator.authenticate(first.secret))
    house.do(house.authenticator.authenticate(second.secret))
    used = replace(first.api_key, used=True)
    assert create(house, account_id) == KeyMade(account_id, used, None, replayed=True)


def test_a_repeated_call_after_ten_minutes_shows_no_secret(house: House) -> None:
    account_id = sign_up(house).account_id
    first = create(house, account_id)
    house.clock.forward(600 * SECOND)
    assert create(house, account_id) == replace(first, secret=None, replayed=True)


def test_the_same_idempotency_key_with_another_name_is_refused(house: House) -> None:
    account_id = sign_up(house).account_id
    create(house, account_id)
    with pytest.raises(IdempotencyKeyReused):
        create(house, account_id, "laptop")


def test_an_idempotency_key_is_its_accounts_and_its_methods(house: House) -> None:
    ada, bob = sign_up(house), sign_up(house, "bob@example.com")
    assert not create(house, ada.account_id).replayed
    assert not create(house, bob.account_id).replayed


def test_an_account_has_ten_keys_that_work(house: House) -> None:
    account_id = sign_up(house).account_id
    made = [create(house, account_id, key=str(number)) for number in range(9)]
    with pytest.raises(TooManyKeys) as refused:
        create(house, account_id, key="9")
    assert refused.value.facts() == {"limit": 10}
    assert create(house, account_id, key="8").api_key == made[-1].api_key
    house.do(house.accounts.revoke_key(account_id, made[0].api_key.key_id))
    assert create(house, account_id, key="9").api_key.number == 11


def test_ten_keys_stay_ten_when_they_are_made_at_once(houses: tuple[House, House]) -> None:
    account_id = sign_up(houses[0]).account_id

    async def each(house: House, name: str) -> list[object]:
        calls = (
            house.accounts.create_key(account_id, "ci", f"{name}{n}", asking_key_id="another")
            for n in range(8)
        )
        return await asyncio.gather(*calls, return_exceptions=True)

    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(house.do, each(house, str(n))) for n, house in enumerate(houses)]
        answers = [answer for future in running for answer in future.result()]
    assert [type(answer) for answer in answers].count(KeyMade) == 9
    assert [type(answer) for answer in answers].count(TooManyKeys) == 7
    assert len(listed(houses[0], account_id)) == 10


def test_fifty_callers_with_one_key_make_one_key(house: House) -> None:
    account_id = sign_up(house).account_id

    async def all_at_once() -> list[KeyMade]:
        return await asyncio.gather(
            *(house.accounts.create_key(account_id, "ci", "k", asking_key_id="another") for _ in range(50))
        )

    answers = house.do(all_at_once())
    assert len({answer.api_key for answer in answers}) == 1
    assert len(listed(house, account_id)) == 2


def test_keys_are_listed_newest_first_in_pages(house: House) -> None:
    first = sign_up(house)
    account_id = first.account_id
    made = [create(house, account_id, key=str(number)).api_key for number in range(3)]
    sign_up(house, "bob@example.com")
    page = house.do(house.accounts.list_keys(account_id, before=None, limit=3))
    assert page == made[::-1]
    assert house.do(house.accounts.list_keys(account_id, before=2, limit=3)) == [first.api_key]


def test_a_revoked_key_is_refused_at_once_and_stays_listed(house: House) -> None:
    account_id = sign_up(house).account_id
    made = create(house, account_id)
    assert made.secret is not None
    house.do(house.authenticator.poll())
    house.do(house.authenticator.authenticate(made.secret))
    house.clock.forward(SECOND)
    revoked = house.do(house.accounts.revoke_key(account_id, made.api_key.key_id))
    assert revoked == replace(made.api_key, revoked_at=house.clock.now, used=True)
    with pytest.raises(KeyInvalid):
        house.do(house.authenticator.authenticate(made.secret))
    assert house.do(house.accounts.list_keys(account_id, before=None, limit=1)) == [revoked]


def test_revoking_again_changes_nothing(house: House) -> None:
    answer = sign_up(house)
    revoked = house.do(house.accounts.revoke_key(answer.account_id, answer.api_key.key_id))
    house.clock.forward(SECOND)
    assert house.do(house.accounts.revoke_key(answer.account_id, answer.api_key.key_id)) == revoked


def test_a_foreign_key_looks_like_none(house: House) -> None:
    ada, bob = sign_up(house), sign_up(house, "bob@example.com")
    for key_id in (bob.api_key.key_id, "00000000"):
        with pytest.raises(NotFound) as refused:
            house.do(house.accounts.revoke_key(ada.account_id, key_id))
        assert refused.value.facts() == {"what": "API key"}
    assert bob.secret is not None
    assert house.do(house.authenticator.authenticate(bob.secret)).account_id == bob.account_id


@pytest.mark.parametrize("role", list(Role))
def test_a_role_account_has_an_empty_wallet_and_one_key(house: House, role: Role) -> None:
    made = house.do(house.accounts.create_role_account(role, "farm", "k"))
    expected = ApiKey(made.api_key.key_id, 1, "farm", role, house.clock.now, None, used=False)
    assert made == KeyMade(made.account_id, expected, made.secret, replayed=False)
    assert house.do(house.ledger.wallet(made.account_id)) == WalletFacts(
        made.account_id, 0, 0, 0, 0, frozen=False
    )
    assert made.secret is not None
    caller = house.do(house.authenticator.authenticate(made.secret))
    assert caller == Caller(made.account_id, made.api_key.key_id, role)
    assert house.do(house.accounts.who_am_i(caller)) == Identity(
        made.account_id, "", replace(expected, used=True)
    )


def test_a_role_account_is_made_once_for_an_idempotency_key(house: House) -> None:
    made = house.do(house.accounts.create_role_account(Role.WORKER, "farm", "k"))
    again = house.do(house.accounts.create_role_account(Role.WORKER, "farm", "k"))
    assert again == replace(made, secret=again.secret, replayed=True)
    for role, name in ((Role.ADMIN, "farm"), (Role.WORKER, "other")):
        with pytest.raises(IdempotencyKeyReused):
            house.do(house.accounts.create_role_account(role, name, "k"))
    sign_up(house)
    house.do(house.accounts.create_role_account(Role.WORKER, "farm", "l"))
    assert house.do(house.database.read(count_accounts)) == 3
