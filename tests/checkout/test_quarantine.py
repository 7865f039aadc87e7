"""What does not match what was sold credits nothing: it is kept, counted, and waits for the operator."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from oanim_server.checkout.payment import PaymentWords
from oanim_server.checkout.values import Standing, State
from oanim_server.database.engine import Database
from oanim_server.ledger.refusals import NotFound
from tests.checkout.house import USD, House, Rest, Shop, Till, event, reference
from tests.ledger.losing import never_sent, not_answered

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from oanim_server.checkout.values import Purchase, Quarantined
    from tests.checkout.conftest import OpenHouse
    from tests.ledger.losing import Proxy

COMPLETED = "checkout.session.completed"
NOTHING = Rest(0, 0, 0, [])
CREDITED = Rest(55 * USD, 0, 0, [])
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"amount_subtotal": 4_999, "amount_total": 4_999}, "amount in micro-USD is 49990000"),
    ({"amount_subtotal": 5_000, "amount_total": 500_000}, "amount with tax in micro-USD is 5000000000"),
    ({"currency": "eur"}, "currency is eur"),
    ({"mode": "subscription"}, "mode is subscription"),
    ({"livemode": True}, "livemode is True"),
    ({"id": "cs_test_other"}, "session is cs_test_other"),
    ({"amount_total": None}, "amount with tax in micro-USD is 0"),
    ({"amount_total": "5000"}, "it cannot be read: amount_total is no amount"),
    ({"total_details": 7}, "it cannot be read: total_details is no object"),
]


def listed(house: House, *, with_resolved: bool = False) -> list[Quarantined]:
    """What the operator sees."""
    return house.do(house.checkouts.quarantined(with_resolved=with_resolved, before=None, limit=10))


def resolved(house: House, event_id: str, *, look_again: bool) -> Quarantined:
    """What the operator does."""
    work = house.checkouts.resolve(event_id, actor="ann", reason="looked at it", look_again=look_again)
    return house.do(work)


def paid_in_secret(house: House, till: Till) -> tuple[int, Purchase, dict[str, Any]]:
    """An account with a purchase that is paid and of which nobody was told; and its session."""
    account = house.account()
    purchase = house.buy(account)
    till.deliver(paused=True)
    return account, purchase, till.pay(purchase)


@pytest.mark.parametrize(("wrong", "problem"), WRONG, ids=[problem.split()[0] for _, problem in WRONG])
def test_a_session_that_is_not_as_it_was_sold_is_kept_listed_and_counted(
    house: House, till: Till, caplog: pytest.LogCaptureFixture, wrong: dict[str, Any], problem: str
) -> None:
    account, purchase, session = paid_in_secret(house, till)
    assert house.receive(event(COMPLETED, session | wrong, "evt_1")) == [Standing.QUARANTINED]
    assert house.rest(account) == NOTHING
    assert house.now(purchase).state is State.OPEN
    [found] = listed(house)
    assert (found.event_id, found.type) == ("evt_1", COMPLETED)
    assert found.object_id == wrong.get("id", session["id"])
    assert found.problem.startswith(problem)
    assert house.shop.counts.quarantined == 1
    assert [record.levelno for record in caplog.records if "ALARM" in record.message] == [logging.ERROR]
    # The right word still credits it.
    till.deliver()
    house.delivered()
    assert house.rest(account) == CREDITED


def test_an_event_in_quarantine_is_not_looked_at_when_it_is_sent_again(house: House, till: Till) -> None:
    account, _, session = paid_in_secret(house, till)
    bad = event(COMPLETED, session | {"currency": "eur"}, "evt_1")
    assert house.receive(bad, bad) == [Standing.QUARANTINED, None]
    assert (house.rest(account), len(listed(house))) == (NOTHING, 1)


def test_the_operator_dismisses_an_event_and_says_why(house: House, till: Till) -> None:
    account, purchase, session = paid_in_secret(house, till)
    house.receive(event(COMPLETED, session | {"currency": "eur"}, "evt_1"))
    found = resolved(house, "evt_1", look_again=False)
    assert (found.resolved_by, found.resolution) == ("ann", "looked at it")
    assert found.resolved_at is not None
    assert found.purchase_id == reference(purchase)
    assert listed(house) == []
    assert listed(house, with_resolved=True) == [found]
    assert house.standings() == ["DISMISSED"]
    for look_again in (False, True):
        with pytest.raises(NotFound):
            resolved(house, "evt_1", look_again=look_again)
    assert house.rest(account) == NOTHING


def test_the_operator_mends_what_was_wrong_and_has_it_looked_at_again(house: House, till: Till) -> None:
    account, _, session = paid_in_secret(house, till)
    house.sql("UPDATE purchases SET session_id = 'cs_test_wrong'")
    house.receive(event(COMPLETED, session, "evt_1"))
    resolved(house, "evt_1", look_again=True)
    assert (house.standings(), house.rest(account)) == (["QUARANTINED"], NOTHING)
    house.sql("UPDATE purchases SET session_id = :session", session=session["id"])
    assert resolved(house, "evt_1", look_again=True).resolved_by == "ann"
    assert (house.standings(), house.rest(account)) == (["APPLIED"], CREDITED)
    assert listed(house) == []


def test_what_nobody_has_in_quarantine_cannot_be_resolved(house: House) -> None:
    house.bought(house.account())
    [(event_id,)] = house.inbox("event_id")
    for unknown in (event_id, "evt_unknown"):
        with pytest.raises(NotFound):
            resolved(house, unknown, look_again=True)


@pytest.mark.parametrize("wrong", [{"currency": "eur"}, {"amount": 0}, {"status": None}, {"amount": -5}])
def test_a_refund_or_a_dispute_that_cannot_be_takes_nothing(
    house: House, till: Till, wrong: dict[str, Any]
) -> None:
    account = house.account()
    purchase = house.bought(account)
    till.deliver(paused=True)
    refund = till.tell("refunds", of=purchase.session_id, amount=1_000)
    dispute = till.tell("disputes", of=purchase.session_id)
    bad = [
        event("refund.created", refund | wrong),
        event("charge.dispute.funds_withdrawn", dispute | wrong),
    ]
    assert house.receive(*bad) == [Standing.QUARANTINED] * 2
    assert (house.rest(account), house.now(purchase)) == (CREDITED, purchase)
    assert len(listed(house)) == house.shop.counts.quarantined == 2


def test_the_poller_credits_nothing_wrong_and_raises_no_alarm_each_minute(
    house: House, till: Till, caplog: pytest.LogCaptureFixture
) -> None:
    account, _, _ = paid_in_secret(house, till)
    house.sql("UPDATE purchases SET amount_micros = 60000000")
    house.poll()
    house.poll()
    assert house.rest(account) == NOTHING
    assert house.shop.counts.quarantined == 0
    assert "ALARM" not in caplog.text
    # The event itself is what the operator sees.
    assert house.reconcile() == 1
    assert [found.problem[:27] for found in listed(house)] == ["amount in micro-USD is 5000"]
    assert "ALARM" in caplog.text


def test_a_live_event_to_a_server_with_a_test_key_is_none_of_its_own(
    open_house: OpenHouse, till: Till
) -> None:
    house = open_house()
    account, _, session = paid_in_secret(house, till)
    bad = event(COMPLETED, session | {"livemode": True})
    assert house.receive(bad) == [Standing.QUARANTINED]
    assert house.rest(account) == NOTHING


def test_pages_of_the_quarantine_are_newest_first(house: House, till: Till) -> None:
    _, _, session = paid_in_secret(house, till)
    for number in range(5):
        house.receive(event(COMPLETED, session | {"currency": "eur"}, f"evt_{number}"))
    page = house.do(house.checkouts.quarantined(with_resolved=False, before=None, limit=2))
    rest = house.do(house.checkouts.quarantined(with_resolved=False, before=page[-1].number, limit=9))
    assert [found.event_id for found in [*page, *rest]] == [f"evt_{number}" for number in (4, 3, 2, 1, 0)]


# Commits that are lost ------------------------------------------------------------------------------


@pytest.fixture
def proxied(proxy: Proxy, till: Till) -> Iterator[House]:
    """A server whose commits can be lost on the way."""
    house = House(till, Shop(Database.open_postgresql(proxy.url, unsafe=True), till.url))
    yield house
    house.close()


@pytest.mark.parametrize("lose", [never_sent, not_answered])
def test_what_comes_into_quarantine_by_a_commit_that_is_lost_raises_the_alarm_once(
    proxied: House,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    lose: Callable[[bytes, socket.socket], None],
) -> None:
    house = proxied
    _, _, session = paid_in_secret(house, house.till)
    load = PaymentWords.load

    def loading(words: PaymentWords, connection: Connection, now: int) -> None:
        # From here on the next COMMIT is that of the quarantine.
        if not proxy.lost:
            proxy.at_commit = lose
        load(words, connection, now)

    monkeypatch.setattr(PaymentWords, "load", loading)
    bad = event(COMPLETED, session | {"currency": "eur"}, "evt_1")
    assert house.receive(bad, bad) == [Standing.QUARANTINED, None]
    assert (proxy.lost, house.standings(), house.shop.counts.quarantined) == (1, ["QUARANTINED"], 1)
    assert [record.levelno for record in caplog.records if "ALARM" in record.message] == [logging.ERROR]


@pytest.mark.parametrize("lose", [never_sent, not_answered])
def test_the_operator_whose_commit_is_lost_has_dismissed_it(
    proxied: House, proxy: Proxy, lose: Callable[[bytes, socket.socket], None]
) -> None:
    house = proxied
    _, _, session = paid_in_secret(house, house.till)
    house.receive(event(COMPLETED, session | {"currency": "eur"}, "evt_1"))
    proxy.at_commit = lose
    assert resolved(house, "evt_1", look_again=False).resolved_by == "ann"
    assert (proxy.lost, house.standings()) == (1, ["DISMISSED"])
