"""What `serve` and `dev` say and do about selling."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import grpc
import pytest

from openanimate.metering.v1 import checkout_service_pb2 as checkout
from openanimate.metering.v1 import pricing_service_pb2 as pricing
from tests.commands.test_commands import command, said
from tests.rpc.asking import not_found, reused
from tests.selling import FIFTY, Shop, environment_of, session_of, stripe_of_its_own
from tests.server import SECONDS, Calls, Refused, new_key, spawned

if TYPE_CHECKING:
    from pathlib import Path

NOT_CONFIGURED = Refused(grpc.StatusCode.FAILED_PRECONDITION, "PURCHASES_NOT_CONFIGURED")


@pytest.mark.parametrize("key", [None, "", "  "])
def test_serve_without_a_stripe_key_sells_nothing_and_says_so(tmp_path: Path, key: str | None) -> None:
    environment = {"OANIM_DATA": str(tmp_path)}
    if key is not None:
        # An empty secret is absence, not a key.
        environment |= {"OANIM_STRIPE_KEY": key, "OANIM_STRIPE_WEBHOOK_SECRETS": "whsec_1"}
    with spawned(environment, tmp_path / "log") as server:
        calls = Calls(server.channel, server.sign_up())
        listed = calls.pricing.ListPrices(pricing.ListPricesRequest(category="image"), timeout=SECONDS)
        assert not listed.HasField("purchase_terms")
        for amount in (FIFTY, 1):
            request = checkout.CreateCheckoutRequest(amount_micros=amount, idempotency_key=new_key())
            assert calls.refused(calls.checkout.CreateCheckout, request) == NOT_CONFIGURED
        purchases = calls(calls.checkout.ListPurchases, checkout.ListPurchasesRequest())
        assert purchases == checkout.ListPurchasesResponse()
        get = checkout.GetCheckoutRequest(checkout_id=f"{calls.user.account_id}-abcdefghijklmnopqrstuvwx")
        assert calls.refused(calls.checkout.GetCheckout, get) == not_found("checkout")
        assert server.terminate() == 0
    assert {entry["level"] for entry in server.entries()} == {"info"}


def test_what_was_sold_stays_to_be_seen_where_nothing_is_sold_any_more(tmp_path: Path) -> None:
    data = {"OANIM_DATA": str(tmp_path / "data")}
    request = checkout.CreateCheckoutRequest(amount_micros=FIFTY, idempotency_key="once")
    with stripe_of_its_own() as stripe:
        with spawned({**environment_of(stripe.sandbox), **data}, tmp_path / "log") as server:
            shop = Shop(server, stripe)
            shop.listen()
            calls = Calls(server.channel, server.sign_up())
            bought = shop.buy(calls)
            begun = calls(calls.checkout.CreateCheckout, request).checkout
            assert session_of(begun).startswith("cs_test_")
        with spawned(data, tmp_path / "log2") as server:
            calls = Calls(server.channel, calls.user)
            purchases = calls(calls.checkout.ListPurchases, checkout.ListPurchasesRequest())
            assert list(purchases.purchases) == [bought]
            receipt = checkout.GetReceiptRequest(checkout_id=bought.checkout_id)
            assert calls(calls.checkout.GetReceipt, receipt).receipt.paid_micros == FIFTY
            # A key that is known is answered before it is asked what may be sold.
            again = calls(calls.checkout.CreateCheckout, request)
            assert (again.checkout, again.replayed) == (begun, True)
            other = checkout.CreateCheckoutRequest(amount_micros=2 * FIFTY, idempotency_key="once")
            assert calls.refused(calls.checkout.CreateCheckout, other) == reused("once")


def test_serve_that_sells_without_a_webhook_s_secret_warns_once(tmp_path: Path) -> None:
    with stripe_of_its_own() as stripe:
        environment = {**environment_of(stripe.sandbox), "OANIM_DATA": str(tmp_path)}
        environment["OANIM_STRIPE_WEBHOOK_SECRETS"] = ""
        with spawned(environment, tmp_path / "log") as server:
            calls = Calls(server.channel, server.sign_up())
            assert Shop.begin(calls).url
            server.terminate()
    warnings = [entry["message"] for entry in server.entries() if entry["level"] == "warning"]
    assert warnings == ["OANIM_STRIPE_WEBHOOK_SECRETS is not set: purchases are credited by polling alone"]
    assert "sk_test_sandbox" not in server.log.read_text()


def test_dev_says_how_to_buy_and_what_it_sold_is_never_served(tmp_path: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OANIM_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "oanim_server", "dev", "--data", str(tmp_path), "--port", "0"],
        env=inherited,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        told: list[str] = []
        while not told or "Ctrl-C" not in told[-1]:
            told.append(process.stdout.readline().rstrip())
            assert told[-1] or len(told) < 30
        assert "oanim billing buy --amount 50" in told
        [export] = [line for line in told if line.startswith("export ANIMATE_API_URL=http://127.0.0.1:")]
        assert " ANIMATE_API_KEY=anim_" in export
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
        process.stdout.close()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    refused = command("serve", OANIM_DATA=str(tmp_path), OANIM_PORT="0", OANIM_HTTP_PORT="0")
    sentence = "oanim-server: this database was used by `oanim-server dev`: what it holds is made up\n"
    assert said(refused) == (1, "", sentence)
    # Its operator's commands work all the same.
    listed = command("admin", "accounts", OANIM_DATA=str(tmp_path))
    assert (listed.returncode, len(listed.stdout.splitlines())) == (0, 4)
