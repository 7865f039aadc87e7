from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests import loopback
from tests.sandbox.test_stripe_checkout import asked

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx
    import stripe

    from oanim_server.sandbox import StripeSandbox
    from tests.sandbox.conftest import Tell

NASTY = "<script>alert(1)</script>\"'&"


@pytest.fixture
def browser(sandbox: StripeSandbox) -> Iterator[httpx.Client]:
    with loopback.client(base_url=sandbox.url) as one:
        yield one


def press(browser: httpx.Client, session: stripe.checkout.Session, action: str) -> httpx.Response:
    return browser.post(f"/pay/{session.id}", data={"action": action, "email": "jo@example.com"})


def state(client: stripe.StripeClient, session: stripe.checkout.Session) -> tuple[str | None, str]:
    now = client.v1.checkout.sessions.retrieve(session.id)
    return now.status, now.payment_status


def test_the_page_says_what_is_paid_for_and_offers_every_way(
    browser: httpx.Client, session: stripe.checkout.Session
) -> None:
    page = browser.get(f"/pay/{session.id}")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<h1>Pay 50.00 USD</h1>" in page.text
    assert "1 x Credits" in page.text
    assert re.findall(r'name="action" value="(\w+)"', page.text) == ["pay", "decline", "later", "abandon"]
    assert "<script" not in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'")


def test_paying_leads_to_the_seller_with_the_session_s_id(
    browser: httpx.Client, client: stripe.StripeClient, session: stripe.checkout.Session
) -> None:
    answer = press(browser, session, "pay")
    assert answer.status_code == 303
    assert answer.headers["location"] == f"http://127.0.0.1:1/paid?session={session.id}"
    assert state(client, session) == ("complete", "paid")
    details = client.v1.checkout.sessions.retrieve(session.id).customer_details
    assert details
    assert details.email == "jo@example.com"


def test_paying_twice_pays_once(
    browser: httpx.Client, client: stripe.StripeClient, session: stripe.checkout.Session
) -> None:
    press(browser, session, "pay")
    again = press(browser, session, "pay")
    assert (again.status_code, again.headers["location"]) == (303, f"/pay/{session.id}")
    assert "You are all done here" in browser.get(f"/pay/{session.id}").text
    assert len(client.v1.charges.list().data) == 1


def test_a_declined_card_is_said_and_the_session_stays_open(
    browser: httpx.Client, client: stripe.StripeClient, session: stripe.checkout.Session
) -> None:
    answer = press(browser, session, "decline")
    assert answer.status_code == 402
    assert '<p role="alert">Your card was declined. Nothing was paid.</p>' in answer.text
    assert state(client, session) == ("open", "unpaid")


def test_paying_later_completes_the_session_without_a_payment(
    browser: httpx.Client, client: stripe.StripeClient, session: stripe.checkout.Session
) -> None:
    assert press(browser, session, "later").headers["location"].endswith(session.id)
    assert state(client, session) == ("complete", "unpaid")


def test_abandoning_leads_back(
    browser: httpx.Client, client: stripe.StripeClient, session: stripe.checkout.Session
) -> None:
    answer = press(browser, session, "abandon")
    assert (answer.status_code, answer.headers["location"]) == (303, "http://127.0.0.1:1/cancelled")
    assert state(client, session) == ("open", "unpaid")


def test_an_expired_or_unknown_session_is_said_so(
    browser: httpx.Client, client: stripe.StripeClient, session: stripe.checkout.Session
) -> None:
    client.v1.checkout.sessions.expire(session.id)
    assert "This session has expired" in browser.get(f"/pay/{session.id}").text
    assert press(browser, session, "pay").headers["location"] == f"/pay/{session.id}"
    assert state(client, session) == ("expired", "unpaid")
    assert browser.get("/pay/cs_test_other").status_code == 404
    assert browser.post("/pay/cs_test_other").status_code == 404
    assert press(browser, session, NASTY).status_code == 303


def test_nothing_on_the_page_is_taken_as_it_came(browser: httpx.Client, client: stripe.StripeClient) -> None:
    data = {"currency": "usd", "unit_amount": 500, "product_data": {"name": NASTY}}
    session = client.v1.checkout.sessions.create(
        asked(
            line_items=[{"price_data": data, "quantity": 1}],
            customer_email=NASTY,
            success_url="https://example.com/?<script>\"'",
            automatic_tax={"enabled": True},
        )
    )
    open_page = press(browser, session, NASTY)
    assert open_page.status_code == 400
    assert "&lt;script&gt;" in open_page.text
    assert "Pay 5.50 USD" in open_page.text
    assert "There is no way back" in press(browser, session, "abandon").text
    press(browser, session, "pay")
    done = browser.get(f"/pay/{session.id}")
    for page in (open_page, done):
        assert "<script" not in page.text


def test_a_receipt_says_what_was_paid_and_given_back(
    browser: httpx.Client, client: stripe.StripeClient, tell: Tell, session: stripe.checkout.Session
) -> None:
    tell(f"sessions/{session.id}/pay")
    tell("refunds", of=session.id, amount=1_234)
    [charge] = client.v1.charges.list().data
    page = browser.get(str(charge.receipt_url))
    assert re.findall(r"<td>(.*?)</td>", page.text) == ["50.00 USD", "12.34 USD"]
    assert browser.get("/receipts/ch_other").status_code == 404
