from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, event

from oanim_server.accounts import authenticator as module
from oanim_server.accounts.keys import Key
from oanim_server.accounts.refusals import KeyInvalid
from oanim_server.accounts.values import Caller, Role
from tests.accounts.house import LOOPBACK, House

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oanim_server.accounts.values import KeyMade


@pytest.fixture
def made(house: House) -> KeyMade:
    """A key that nobody has used, of a server that knows what was revoked."""
    answer = house.do(house.accounts.sign_up("ada@example.com", "k", LOOPBACK))
    key = house.do(house.accounts.create_key(answer.account_id, "ci", "k", asking_key_id="another"))
    house.do(house.authenticator.poll())
    return key


@pytest.fixture
def looked_up() -> Iterator[list[str]]:
    """The statements about keys that the readers' threads have run so far."""
    seen: list[str] = []

    def see(*args: object) -> None:
        if threading.current_thread().name.startswith("reader") and "FROM api_keys" in str(args[2]):
            seen.append(str(args[2]))

    event.listen(Engine, "before_cursor_execute", see)
    yield seen
    event.remove(Engine, "before_cursor_execute", see)


def authenticate(house: House, token: str) -> Caller:
    return house.do(house.authenticator.authenticate(token))


def secret_of(made: KeyMade) -> str:
    assert made.secret is not None
    return made.secret


def test_keys_are_looked_up_while_every_other_reader_is_busy(house: House, made: KeyMade) -> None:
    done = threading.Event()

    async def ask() -> Caller:
        long = [asyncio.create_task(house.database.read(lambda _: done.wait(30))) for _ in range(20)]
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(10):
                await house.authenticator.poll()
                return await house.authenticator.authenticate(secret_of(made))
        finally:
            done.set()
            await asyncio.gather(*long)

    assert house.do(ask()) == Caller(made.account_id, made.api_key.key_id, Role.USER)


def test_a_key_is_looked_up_once_and_then_remembered(
    house: House, made: KeyMade, looked_up: list[str]
) -> None:
    token = secret_of(made)
    expected = Caller(made.account_id, made.api_key.key_id, Role.USER)
    assert house.authenticator.peek(token) is None
    assert authenticate(house, token) == expected
    looked_up.clear()
    assert house.authenticator.peek(token) == expected
    assert authenticate(house, token) == expected
    assert looked_up == []


def test_the_first_use_is_durable_before_the_call_proceeds(house: House, made: KeyMade) -> None:
    authenticate(house, secret_of(made))
    [key, _] = house.do(house.accounts.list_keys(made.account_id, before=None, limit=2))
    assert key.used


def test_callers_at_once_share_one_look_up(house: House, made: KeyMade, looked_up: list[str]) -> None:
    async def all_at_once() -> list[Caller]:
        return await asyncio.gather(*(house.authenticator.authenticate(secret_of(made)) for _ in range(50)))

    assert len(set(house.do(all_at_once()))) == 1
    assert len(looked_up) == 1


def test_a_caller_that_goes_away_takes_no_answer_from_another(house: House, made: KeyMade) -> None:
    async def two() -> Caller:
        leaving = asyncio.create_task(house.authenticator.authenticate(secret_of(made)))
        staying = asyncio.create_task(house.authenticator.authenticate(secret_of(made)))
        await asyncio.sleep(0)
        leaving.cancel()
        return await staying

    assert house.do(two()).key_id == made.api_key.key_id


@pytest.mark.parametrize(
    "bad", ["", "anim_", "anim_12345678_" + "x" * 23, "sk-1", "anim_12345678_" + "é" * 24]
)
def test_what_is_no_key_is_refused_without_asking(house: House, looked_up: list[str], bad: str) -> None:
    with pytest.raises(KeyInvalid):
        authenticate(house, bad)
    assert looked_up == []


def test_a_bad_key_is_asked_about_once_in_a_while(house: House, made: KeyMade, looked_up: list[str]) -> None:
    for bad in (Key().token, Key(made.api_key.key_id).token):
        looked_up.clear()
        for _ in range(3):
            with pytest.raises(KeyInvalid):
                authenticate(house, bad)
        assert len(looked_up) == 1
    assert authenticate(house, secret_of(made)).key_id == made.api_key.key_id


def test_what_is_remembered_is_bounded(house: House, made: KeyMade, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED_KEYS", 2)
    monkeypatch.setattr(module, "REMEMBERED_BAD_KEYS", 2)
    keys = [
        house.do(house.accounts.create_key(made.account_id, "ci", str(n), asking_key_id="another"))
        for n in range(3)
    ]
    tokens = [secret_of(key) for key in keys]
    authenticate(house, tokens[0])
    authenticate(house, tokens[1])
    authenticate(house, tokens[0])
    authenticate(house, tokens[2])
    remembered = [house.authenticator.peek(token) is not None for token in tokens]
    assert remembered == [True, False, True]


def test_bad_keys_that_are_remembered_are_bounded(
    house: House, looked_up: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMEMBERED_BAD_KEYS", 2)
    bad = [Key().token for _ in range(3)]
    for token in [*bad, *reversed(bad)]:
        with pytest.raises(KeyInvalid):
            authenticate(house, token)
    assert len(looked_up) == 4


def test_nothing_remembered_is_believed_when_revocations_were_not_read_for_five_seconds(
    house: House, made: KeyMade, looked_up: list[str]
) -> None:
    token = secret_of(made)
    authenticate(house, token)
    house.seconds += 4.9
    assert house.authenticator.peek(token) is not None
    house.seconds += 0.1
    assert house.authenticator.peek(token) is None
    looked_up.clear()
    assert authenticate(house, token).key_id == made.api_key.key_id
    assert len(looked_up) == 1
    house.do(house.authenticator.poll())
    assert house.authenticator.peek(token) is not None


def test_a_key_that_another_server_revoked_is_refused_after_a_poll(houses: tuple[House, House]) -> None:
    here, there = houses
    answer = here.do(here.accounts.sign_up("ada@example.com", "k", LOOPBACK))
    token = answer.secret or ""
    for house in houses:
        house.do(house.authenticator.poll())
        authenticate(house, token)
    here.do(here.accounts.revoke_key(answer.account_id, answer.api_key.key_id))
    with pytest.raises(KeyInvalid):
        authenticate(here, token)
    there.do(there.authenticator.poll())
    with pytest.raises(KeyInvalid):
        authenticate(there, token)


def test_a_revocation_that_shows_late_is_not_missed(houses: tuple[House, House]) -> None:
    """A newer revocation is seen first; the older one has an earlier time, and was committed after it."""
    here, there = houses
    account_id = here.do(here.accounts.sign_up("ada@example.com", "k", LOOPBACK)).account_id
    older, newer = (
        here.do(here.accounts.create_key(account_id, "ci", key, asking_key_id="another"))
        for key in ("o", "n")
    )
    there.do(there.authenticator.poll())
    authenticate(there, secret_of(older))
    here.clock.forward(1_000_000)
    here.do(here.accounts.revoke_key(account_id, newer.api_key.key_id))
    there.do(there.authenticator.poll())
    here.clock.forward(-1_000_000)
    here.do(here.accounts.revoke_key(account_id, older.api_key.key_id))
    there.do(there.authenticator.poll())
    with pytest.raises(KeyInvalid):
        authenticate(there, secret_of(older))


def test_a_key_is_not_remembered_when_revocations_were_learnt_while_it_was_looked_up(
    house: House, made: KeyMade
) -> None:
    async def meanwhile() -> None:
        looking = asyncio.create_task(house.authenticator.authenticate(secret_of(made)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        house.authenticator.forget(made.api_key.key_id)
        await looking

    house.do(meanwhile())
    assert house.authenticator.peek(secret_of(made)) is None


def test_the_poller_runs_until_it_is_stopped(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.0)
    polled = asyncio.Event()
    real = house.authenticator.poll
    times = 0

    async def poll() -> None:
        nonlocal times
        times += 1
        if times == 1:
            raise OSError
        await real()
        polled.set()

    monkeypatch.setattr(house.authenticator, "poll", poll)

    async def run() -> None:
        house.authenticator.start()
        await polled.wait()
        await house.authenticator.stop()

    house.do(run())
    assert times >= 2
