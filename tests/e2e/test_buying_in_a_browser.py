"""A browser pays: from the address that a checkout is made with, back to our page, with the credits there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from oanim import Client
from oanim.keys import new_key
from openanimate.metering.v1.checkout_service_pb2 import (
    CHECKOUT_STATE_OPEN,
    CHECKOUT_STATE_PAID,
    CHECKOUT_STATE_PROCESSING,
    Checkout,
    CheckoutState,
)
from tests.e2e.conftest import BIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Dev

CHROMIUM = shutil.which("chromium")
# Kept for whoever wants to see the pages: the last run's.
PICTURES = Path(__file__).parents[2] / "build" / "screenshots"
FREE = 5_000_000
# With fifty dollars and their bonus.
SIXTY = 60_000_000

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH (on Debian: apt install chromium)"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield started
        started.close()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Page]:
    """A tab without a past. Its pages ask this machine alone, and the browser complains of nothing."""
    page = browser.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    page.close()
    assert [url for url in asked if not url.startswith("http://127.0.0.1:")] == []
    # A card that is declined is an answer of 402, which the browser notes.
    assert [text for text in complaints if "402" not in text] == []


class Customer(NamedTuple):
    """A new account with the free credits."""

    secret: str
    client: Client

    def begin(self) -> Checkout:
        return self.client.create_checkout(amount_micros=50_000_000).checkout

    def stands(self, checkout: Checkout) -> tuple[CheckoutState.ValueType, int]:
        """How a checkout stands, and the balance."""
        found = self.client.get_checkout(checkout_id=checkout.checkout_id)
        return found.checkout.state, found.wallet.balance_micros


@pytest.fixture
def customer(dev: Dev) -> Iterator[Customer]:
    with Client(api_key="", url=dev.url) as nobody:
        secret = nobody.sign_up(email=f"{new_key()}@example.com").secret
    with Client(api_key=secret, url=dev.url) as client:
        yield Customer(secret, client)


def press(tab: Page, button: str) -> None:
    tab.get_by_role("button", name=button).click()


def picture(tab: Page, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    tab.screenshot(path=PICTURES / f"{name}.png", full_page=True)
    assert (PICTURES / f"{name}.png").stat().st_size > 1_000


def pays(tab: Page, checkout_id: str) -> None:
    """Pay on the page that is open, and see that the credits are said to be there."""
    press(tab, "Pay 50.00 USD")
    tab.wait_for_url(re.compile(rf"/checkout/{checkout_id}$"))
    # It may have to look again by itself: there is no script on it.
    expect(tab.get_by_role("heading")).to_have_text("Paid", timeout=20_000)
    message = "$55.00 of credits are in your account. You can close this page."
    expect(tab.get_by_role("status")).to_have_text(message)
    expect(tab.get_by_text(re.compile(f"Purchase {checkout_id}"))).to_be_visible()


def test_billing_buy_s_address_leads_to_the_credits(dev: Dev, customer: Customer, tab: Page) -> None:
    with subprocess.Popen(
        [BIN / "oanim", "billing", "buy", "--amount", "50"],
        env={**dev.environment, "ANIMATE_API_KEY": customer.secret},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as buying:
        assert buying.stderr is not None
        told = next(line for line in buying.stderr if "here: http" in line)
        tab.goto(told.rpartition(" ")[2].strip())
        expect(tab.get_by_role("heading")).to_have_text("Pay 50.00 USD")
        picture(tab, "paying")
        pays(tab, ".*")
        picture(tab, "paid")
        out, err = buying.communicate(timeout=60)
    assert buying.returncode == 0, err
    assert out.startswith("Credited $55.00, $5.00 of it a bonus. The balance is $60.00.")
    assert customer.client.get_wallet().wallet.balance_micros == SIXTY


def test_a_checkout_that_is_paid_is_paid_once(customer: Customer, tab: Page) -> None:
    checkout = customer.begin()
    tab.goto(checkout.url)
    pays(tab, checkout.checkout_id)
    assert customer.stands(checkout) == (CHECKOUT_STATE_PAID, SIXTY)
    tab.goto(checkout.url)
    expect(tab.get_by_role("heading")).to_have_text("You are all done here")
    tab.get_by_role("link", name="Go back to the shop").click()
    expect(tab.get_by_role("heading")).to_have_text("Paid")
    assert customer.stands(checkout) == (CHECKOUT_STATE_PAID, SIXTY)


def test_a_card_that_is_declined_can_be_followed_by_one_that_is_not(customer: Customer, tab: Page) -> None:
    checkout = customer.begin()
    tab.goto(checkout.url)
    press(tab, "Pay with a card that is declined")
    expect(tab.get_by_role("alert")).to_have_text("Your card was declined. Nothing was paid.")
    picture(tab, "declined")
    assert customer.stands(checkout) == (CHECKOUT_STATE_OPEN, FREE)
    pays(tab, checkout.checkout_id)
    assert customer.stands(checkout) == (CHECKOUT_STATE_PAID, SIXTY)


def test_who_abandons_it_can_go_back_and_pay(customer: Customer, tab: Page) -> None:
    checkout = customer.begin()
    tab.goto(checkout.url)
    press(tab, "Abandon")
    expect(tab.get_by_role("heading")).to_have_text("Cancelled")
    expect(tab.get_by_role("status")).to_have_text("Nothing was charged.")
    picture(tab, "cancelled")
    assert customer.stands(checkout) == (CHECKOUT_STATE_OPEN, FREE)
    tab.get_by_role("link", name="Back to the payment page").click()
    pays(tab, checkout.checkout_id)
    assert customer.stands(checkout) == (CHECKOUT_STATE_PAID, SIXTY)


def test_who_pays_later_is_told_that_it_is_on_its_way(customer: Customer, tab: Page) -> None:
    checkout = customer.begin()
    tab.goto(checkout.url)
    press(tab, "Pay later")
    expect(tab.get_by_role("heading")).to_have_text("On its way", timeout=20_000)
    picture(tab, "on-its-way")
    assert customer.stands(checkout) == (CHECKOUT_STATE_PROCESSING, FREE)
