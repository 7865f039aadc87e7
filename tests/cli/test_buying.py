"""Credits are bought in a browser: the page is told first, and every way out says how to look again."""

from __future__ import annotations

import json
import re
import signal
import time
from typing import TYPE_CHECKING

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest  # type: ignore[import-untyped]
from grpc import StatusCode

from openanimate.metering.v1.checkout_service_pb2 import (
    Checkout,
    CheckoutState,
    CreateCheckoutResponse,
    WatchCheckoutResponse,
)
from openanimate.metering.v1.pricing_service_pb2 import ListPricesResponse, PurchaseTerms
from openanimate.metering.v1.wallet_pb2 import Wallet
from tests.cli.running import PROGRAM, Cli, Ended, line_of
from tests.sdk.scripted import Refusal, ScriptedServer

if TYPE_CHECKING:
    from pathlib import Path

CREATE, WATCH, PRICES = (
    "CheckoutService/CreateCheckout",
    "CheckoutService/WatchCheckout",
    "PricingService/ListPrices",
)
URL = "https://pay.example/c/cs_1"
PAY = f"Pay $50.00 for $55.00, $5.00 of it a bonus, here: {URL}\n"
LOOK_AGAIN = (
    "What is paid is credited all the same. Look again: oanim billing, or oanim billing receipt a1-x. "
    "Wait again: oanim billing buy --amount 50 --key "
)
TERMS = ListPricesResponse(
    purchase_terms=PurchaseTerms(
        minimum_micros=5_000_000,
        maximum_micros=10_000_000_000,
        bonus_threshold_micros=50_000_000,
        bonus_percent=10,
    )
)


def checkout(state: str, url: str = "") -> Checkout:
    return Checkout(
        checkout_id="a1-x",
        state=CheckoutState.Value(f"CHECKOUT_STATE_{state}"),
        amount_micros=50_000_000,
        bonus_micros=5_000_000,
        credits_micros=55_000_000,
        url=url,
        created_at=Timestamp(seconds=1_795_000_000),
    )


def told(state: str) -> WatchCheckoutResponse:
    balance = 60_000_000 if state == "PAID" else 5_000_000
    wallet = Wallet(balance_micros=balance, available_micros=balance)
    return WatchCheckoutResponse(checkout=checkout(state), wallet=wallet)


@pytest.fixture
def shop(scripted: ScriptedServer) -> ScriptedServer:
    """A service that has begun a purchase, which is then paid."""
    scripted.script(CREATE, CreateCheckoutResponse(checkout=checkout("OPEN", URL)))
    scripted.script(WATCH, [told("OPEN"), told("PAID")])
    scripted.script(PRICES, TERMS)
    return scripted


def test_a_purchase_shows_its_page_then_the_credits_and_the_balance(cli: Cli, shop: ScriptedServer) -> None:
    assert cli.run("billing", "buy", "--amount", "50") == Ended(
        0,
        "Credited $55.00, $5.00 of it a bonus. The balance is $60.00.\nReceipt: oanim billing receipt a1-x\n",
        f"{PAY}waiting for the payment\n",
    )
    (request,) = shop.requests(CREATE)
    assert (request.amount_micros, len(request.idempotency_key)) == (50_000_000, 36)


def test_a_program_gets_the_page_before_it_is_paid_and_nothing_but_the_answer_as_json(
    cli: Cli, shop: ScriptedServer
) -> None:
    ended = cli.run("billing", "buy", "--amount", "50.00", "--json")
    answer = json.loads(ended.out)
    assert (ended.exit_code, ended.err) == (0, f"{PAY}waiting for the payment\n")
    assert (answer["checkout"]["state"], answer["checkout"]["credits_micros"]) == ("paid", 55_000_000)
    assert (answer["wallet"]["balance_micros"], answer["replayed"]) == (60_000_000, False)


def test_the_same_key_asks_for_the_same_purchase(cli: Cli, shop: ScriptedServer) -> None:
    shop.script(
        CREATE,
        CreateCheckoutResponse(checkout=checkout("OPEN", URL)),
        CreateCheckoutResponse(checkout=checkout("PAID"), replayed=True),
    )
    shop.script(WATCH, [told("PAID")])
    words = ("billing", "buy", "--amount", "50", "--key", "once")
    first, again = cli.run(*words), cli.run(*words)
    one, other = shop.requests(CREATE)
    assert one == other
    assert (again.exit_code, again.out) == (first.exit_code, first.out)
    # There is nothing to pay any more, and no page is shown.
    assert again.err == ""


def test_who_is_interrupted_is_told_how_to_look_again(cli: Cli, shop: ScriptedServer) -> None:
    shop.script(WATCH, [told("OPEN"), lambda: time.sleep(5), told("PAID")])
    with cli.start("billing", "buy", "--amount", "50") as process:
        line_of(process, "waiting for the payment")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err.startswith(f"oanim: interrupted. {LOOK_AGAIN}")
    (request,) = shop.requests(CREATE)
    assert err.endswith(f"--key {request.idempotency_key}\n")


def test_who_is_interrupted_before_there_is_a_page_gets_the_key_that_repeats_it(
    cli: Cli, shop: ScriptedServer
) -> None:
    shop.script(CREATE, [lambda: time.sleep(3), CreateCheckoutResponse(checkout=checkout("OPEN", URL))])
    with cli.start("billing", "buy", "--amount", "50") as process:
        shop.wait_for(CREATE, 1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    (request,) = shop.requests(CREATE)
    assert err.startswith("oanim: interrupted. Whether it was done is not known;")
    assert err.endswith(f"oanim billing buy --amount 50 --key {request.idempotency_key}\n")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("EXPIRED", "the time to pay ran out, and nothing was paid."),
        ("FAILED", "the payment failed, and nothing was credited."),
    ],
)
def test_a_purchase_that_is_not_paid_fails_and_says_what_to_do(
    cli: Cli, shop: ScriptedServer, state: str, said: str
) -> None:
    shop.script(WATCH, [told("OPEN"), told(state)])
    ended = cli.run("billing", "buy", "--amount", "50", "--json")
    assert (ended.exit_code, ended.out) == (1, "")
    assert ended.err.endswith(f"oanim: {said} Try again: oanim billing buy --amount 50.00\n")


def test_a_key_whose_purchase_has_failed_is_used_up(cli: Cli, shop: ScriptedServer) -> None:
    shop.script(WATCH, [told("FAILED")])
    ended = cli.run("billing", "buy", "--amount", "50", "--key", "k")
    assert ended.err.endswith("Try again, with a new --key: oanim billing buy --amount 50.00\n")


def test_a_slow_payment_is_waited_for(cli: Cli, shop: ScriptedServer) -> None:
    shop.script(WATCH, [told("OPEN"), told("PROCESSING"), told("PAID")])
    ended = cli.run("billing", "buy", "--amount", "50")
    assert ended.exit_code == 0
    assert "paid by a way that takes hours or days" in ended.err


def test_a_report_that_breaks_off_is_taken_up_again(cli: Cli, shop: ScriptedServer) -> None:
    draining = Refusal(StatusCode.UNAVAILABLE, "DRAINING", retry_after_s=0.01)
    shop.script(WATCH, [told("OPEN"), draining], [told("OPEN"), told("PAID")])
    assert cli.run("billing", "buy", "--amount", "50").exit_code == 0


def test_a_service_that_goes_away_meanwhile_is_asked_again_and_that_is_said(
    cli: Cli, shop: ScriptedServer
) -> None:
    away = Refusal(StatusCode.UNAVAILABLE)
    shop.script(WATCH, [told("OPEN"), away], away, [told("OPEN"), told("PAID")])
    ended = cli.run("billing", "buy", "--amount", "50")
    assert ended.exit_code == 0
    assert "the service does not answer; asking again" in ended.err.splitlines()


def test_a_report_that_is_lost_says_how_to_look_again(cli: Cli, shop: ScriptedServer) -> None:
    shop.script(WATCH, [told("OPEN"), Refusal(StatusCode.UNAUTHENTICATED, "KEY_INVALID")])
    ended = cli.run("billing", "buy", "--amount", "50")
    assert ended.exit_code == 4
    assert f"\n{LOOK_AGAIN}" in ended.err


def test_a_payment_provider_that_is_away_leaves_the_key_that_repeats_the_purchase(
    cli: Cli, shop: ScriptedServer
) -> None:
    shop.script(CREATE, Refusal(StatusCode.UNAVAILABLE, "PAYMENTS_AWAY", retry_after_s=2))
    ended = cli.run("billing", "buy", "--amount", "50")
    requests = shop.requests(CREATE)
    assert (ended.exit_code, ended.out, len(requests)) == (5, "", 4)
    assert "Try again in 2 s." in ended.err
    assert ended.err.endswith(f"oanim billing buy --amount 50 --key {requests[0].idempotency_key}\n")


def test_a_server_that_sells_nothing_says_so(cli: Cli, shop: ScriptedServer) -> None:
    shop.script(CREATE, Refusal(StatusCode.FAILED_PRECONDITION, "PURCHASES_NOT_CONFIGURED"))
    shop.script(PRICES, ListPricesResponse())
    bought, asked = cli.run("billing", "buy", "--amount", "50"), cli.run("billing", "buy")
    assert (bought.exit_code, asked.exit_code, bought.out, asked.out) == (1, 1, "", "")
    assert bought.err.endswith("With a key of your own: export ANIMATE_FAL_KEY=your-key\n")
    assert asked.err.startswith("oanim: this server sells no credits. ")


def test_without_an_amount_it_is_explained_what_can_be_bought(cli: Cli, shop: ScriptedServer) -> None:
    # Nobody needs a key to ask.
    del cli.variables["ANIMATE_API_KEY"]
    assert cli.run("billing", "buy") == Ended(
        0,
        "$1 buys $1 of credits.\n"
        "Minimum  $5.00\n"
        "Maximum  $10000.00 at once\n"
        "Bonus    10% of the whole amount, from $50.00 on: $50.00 buys $55.00\n"
        "Buy: oanim billing buy --amount 25\n",
        "",
    )
    assert json.loads(cli.run("billing", "buy", "--json").out) == {
        "purchase_terms": {
            "minimum_micros": 5_000_000,
            "maximum_micros": 10_000_000_000,
            "bonus_threshold_micros": 50_000_000,
            "bonus_percent": 10,
        }
    }
    assert shop.requests(CREATE) == []


@pytest.mark.parametrize(
    ("amount", "said", "bonus_micros"),
    [
        ("49.99", "$49.99 buys $49.99 of credits.", 0),
        ("50", "$50.00 buys $55.00 of credits, $5.00 of it a bonus.", 5_000_000),
        ("50.01", "$50.01 buys $55.011 of credits, $5.001 of it a bonus.", 5_001_000),
        ("100", "$100.00 buys $110.00 of credits, $10.00 of it a bonus.", 10_000_000),
    ],
)
def test_a_quote_says_what_would_be_credited_and_buys_nothing(
    cli: Cli, shop: ScriptedServer, amount: str, said: str, bonus_micros: int
) -> None:
    words = ("billing", "buy", "--amount", amount, "--quote")
    assert cli.run(*words) == Ended(0, f"{said}\n", "")
    assert json.loads(cli.run(*words, "--json").out)["bonus_micros"] == bonus_micros
    assert shop.requests(CREATE) == []


@pytest.mark.parametrize("more", [[], ["--quote"]], ids=["bought", "quoted"])
@pytest.mark.parametrize("amount", ["4.99", "10000.01"])
def test_an_amount_out_of_range_is_a_mistake_in_usage(
    cli: Cli, shop: ScriptedServer, amount: str, more: list[str]
) -> None:
    bad = BadRequest(field_violations=[BadRequest.FieldViolation(field="amount_micros", description="no")])
    shop.script(CREATE, Refusal(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", more=(bad,)))
    assert cli.run("billing", "buy", "--amount", amount, *more) == Ended(
        2, "", "oanim: --amount: a purchase is whole cents, from $5.00 to $10000.00.\n"
    )


@pytest.mark.parametrize("amount", ["25.001", "-5", "five", "1e2", "nan", ""])
def test_an_amount_that_is_none_is_a_mistake_in_usage(cli: Cli, amount: str) -> None:
    ended = cli.run("billing", "buy", f"--amount={amount}")
    assert (ended.exit_code, ended.out) == (2, "")
    assert re.fullmatch(
        r"oanim: Invalid value for '--amount': it must be [^\n]+ See: oanim billing buy --help\n", ended.err
    )


@pytest.fixture
def opened(cli: Cli, tmp_path: Path) -> Path:
    """What the user's browser was asked to open; it is a talkative browser."""
    seen, browser = tmp_path / "opened", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho chatter\necho "$1" >> "{seen}.part"\nmv "{seen}.part" "{seen}"\n')
    browser.chmod(0o755)
    cli.variables["BROWSER"] = f"{browser} %s"
    return seen


def wait_for(path: Path) -> str:
    until = time.monotonic() + 20
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.05)
    return path.read_text()


def test_on_a_terminal_the_page_is_opened_and_the_browser_keeps_quiet(
    cli: Cli, shop: ScriptedServer, opened: Path
) -> None:
    # A file of that name must not be taken for Python's own.
    (cli.folder / "webbrowser.py").write_text("raise SystemExit(1)")
    code, shown = cli.on_terminal([PROGRAM, "billing", "buy", "--amount", "50"])
    assert code == 0
    assert URL in shown
    assert "The balance is $60.00." in shown
    assert wait_for(opened) == f"{URL}\n"
    assert "chatter" not in shown


def test_a_page_that_is_no_web_page_is_printed_and_not_opened(
    cli: Cli, shop: ScriptedServer, opened: Path
) -> None:
    shop.script(CREATE, CreateCheckoutResponse(checkout=checkout("OPEN", "file:///etc/passwd")))
    code, shown = cli.on_terminal([PROGRAM, "billing", "buy", "--amount", "50"])
    assert (code, "file:///etc/passwd" in shown) == (0, True)
    time.sleep(1)
    assert not opened.exists()


def test_no_browser_is_opened_where_none_is_wanted_or_nobody_sits(
    cli: Cli, shop: ScriptedServer, opened: Path
) -> None:
    code, shown = cli.on_terminal([PROGRAM, "billing", "buy", "--amount", "50", "--no-browser"])
    assert (code, URL in shown) == (0, True)
    assert cli.run("billing", "buy", "--amount", "50").exit_code == 0
    time.sleep(1)
    assert not opened.exists()


def test_a_machine_without_a_browser_buys_all_the_same(cli: Cli, shop: ScriptedServer) -> None:
    cli.variables |= {"BROWSER": "/nowhere/browser", "PATH": "/nowhere"}
    code, shown = cli.on_terminal([PROGRAM, "billing", "buy", "--amount", "50"])
    assert (code, URL in shown) == (0, True)
