"""When the answer of a commit is lost, the committer may run a change again that was written."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from oanim_server.accounts.values import Role
from tests.accounts.house import LOOPBACK, House, count_accounts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@pytest.fixture
def twice(house: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """A server whose every change is run twice, and answers what the second run says."""

    def again(run: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
        async def run_twice(work: Any) -> Any:
            await run(work)
            return await run(work)

        return run_twice

    monkeypatch.setattr(house.ledger, "write", again(house.ledger.write))
    monkeypatch.setattr(house.ledger, "submit", again(house.ledger.submit))
    return house


def test_the_first_answers_are_given_whole(twice: House) -> None:
    """None of these is taken for a replay of its own."""
    signed_up = twice.do(twice.accounts.sign_up("ada@example.com", "k", LOOPBACK))
    made = twice.do(twice.accounts.create_key(signed_up.account_id, "ci", "k", asking_key_id="another"))
    service = twice.do(twice.accounts.create_role_account(Role.SERVICE, "farm", "k"))
    for answer in (signed_up, made, service):
        assert not answer.replayed
        assert answer.secret is not None
        caller = twice.do(twice.authenticator.authenticate(answer.secret))
        assert caller.key_id == answer.api_key.key_id
    keys = twice.do(twice.accounts.list_keys(signed_up.account_id, before=None, limit=9))
    assert [key.number for key in keys] == [2, 1]
    assert twice.do(twice.database.read(count_accounts)) == 2


def test_the_secret_that_is_shown_anew_works(twice: House) -> None:
    first = twice.do(twice.accounts.sign_up("ada@example.com", "k", LOOPBACK))
    again = twice.do(twice.accounts.sign_up("ada@example.com", "k", LOOPBACK))
    assert again == replace(first, secret=again.secret, replayed=True)
    assert again.secret is not None
    assert twice.do(twice.authenticator.authenticate(again.secret)).account_id == first.account_id


def test_a_revocation_is_one(twice: House) -> None:
    first = twice.do(twice.accounts.sign_up("ada@example.com", "k", LOOPBACK))
    revoked = twice.do(twice.accounts.revoke_key(first.account_id, first.api_key.key_id))
    assert revoked == replace(first.api_key, revoked_at=twice.clock.now)
