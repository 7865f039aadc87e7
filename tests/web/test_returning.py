"""The page that customers come back to: what it says in every state, and what it never shows."""

from __future__ import annotations

import asyncio
import re
from html import unescape
from typing import TYPE_CHECKING, NamedTuple

import grpc
import httpx
import pytest
from starlette.applications import Starlette

from oanim_server.checkout.rows import purchase_of_key, reference
from oanim_server.checkout.values import Purchase, State
from oanim_server.ledger import ids
from oanim_server.web.returning import returning
from openanimate.metering.v1 import checkout_service_pb2 as checkout
from tests import loopback, migrated
from tests.postgresql import Cluster
from tests.selling import FIFTY, now, selling, session_of
from tests.server import Calls, new_key

if TYPE_CHECKING:
    from pathlib import Path

    from tests.selling import RunningShop

NASTY = "<script>alert(1)</script>\"'&"
TOKEN = "abcdefghijklmnopqrstuvwx"


class Page(NamedTuple):
    """What a customer reads, and whether the page looks again by itself."""

    status: int
    title: str
    message: str
    next_step: str = ""
    link: str = ""
    looks_again: bool = False


def read(answer: httpx.Response) -> Page:
    def found(pattern: str) -> str:
        match = re.search(pattern, answer.text)
        return unescape(match[1]) if match else ""

    return Page(
        answer.status_code,
        found("<h1>(.*?)</h1>"),
        found('<p role="status">(.*?)</p>'),
        found("<code>(.*?)</code>"),
        found('<a href="(.*?)">'),
        bool(found('(http-equiv="refresh")')),
    )


def page_of(shop: RunningShop, begun: checkout.Checkout, query: str = "") -> Page:
    return read(shop.page(f"/checkout/{begun.checkout_id}{query}"))


# Every state -----------------------------------------------------------------------------------------

WAITING = Page(
    200,
    "Still waiting",
    "We wait for the word that the payment went through. This page looks again by itself.",
    looks_again=True,
)


def test_an_open_checkout_is_waited_for(shop: RunningShop, calls: Calls) -> None:
    assert page_of(shop, shop.begin(calls)) == WAITING


def test_a_cancelled_one_leads_back_to_the_payment(shop: RunningShop, calls: Calls) -> None:
    begun = shop.begin(calls)
    for query in ("?cancelled=1", "?cancelled", "?x=y&cancelled=0"):
        assert page_of(shop, begun, query) == Page(200, "Cancelled", "Nothing was charged.", link=begun.url)
    assert begun.url.startswith(f"{shop.stripe.sandbox.url}/pay/cs_test_")


@pytest.mark.parametrize(
    ("micros", "usd"), [(FIFTY, "$55.00"), (49_990_000, "$49.99"), (2_000_000_000, "$2,200.00")]
)
def test_a_paid_one_says_what_came_in_whatever_the_address_claims(
    shop: RunningShop, calls: Calls, micros: int, usd: str
) -> None:
    bought = shop.buy(calls, micros)
    message = f"{usd} of credits are in your account. You can close this page."
    for query in ("", "?cancelled=1"):
        assert page_of(shop, bought, query) == Page(200, "Paid", message, next_step="oanim billing")


def test_one_that_went_back_says_so(shop: RunningShop, calls: Calls) -> None:
    begun = shop.begin(calls)
    shop.stripe.told(f"sessions/{session_of(begun)}/pay")
    for back, usd in ((1_000, "$11.00"), (4_000, "$55.00")):
        shop.stripe.told("refunds", of=session_of(begun), amount=back)
        message = f"$55.00 of credits came in, and {usd} of them went back with a refund or a dispute."
        assert page_of(shop, begun) == Page(200, "Paid", message, next_step="oanim billing")


def test_one_that_is_paid_by_a_slow_bank_is_on_its_way_and_then_paid(shop: RunningShop, calls: Calls) -> None:
    begun = shop.begin(calls)
    shop.stripe.told(f"sessions/{session_of(begun)}/pay-later")
    message = "Your bank takes its time. The credits come when the money does."
    for query in ("", "?cancelled=1"):
        assert page_of(shop, begun, query) == Page(200, "On its way", message, next_step="oanim billing")
    shop.stripe.told(f"payments/{session_of(begun)}/settle", paid=True)
    assert page_of(shop, begun).title == "Paid"


@pytest.mark.parametrize(("micros", "amount"), [(FIFTY, "50"), (49_990_000, "49.99"), (5_050_000, "5.05")])
def test_one_that_failed_or_expired_says_how_to_begin_anew(
    shop: RunningShop, calls: Calls, micros: int, amount: str
) -> None:
    failed, expired = shop.begin(calls, micros), shop.begin(calls, micros)
    shop.stripe.told(f"sessions/{session_of(failed)}/pay-later")
    shop.stripe.told(f"payments/{session_of(failed)}/settle", paid=False)
    with loopback.client(base_url=shop.stripe.sandbox.url) as http:
        path = f"/v1/checkout/sessions/{session_of(expired)}/expire"
        http.post(path, headers={"authorization": "Bearer sk_test_sandbox"}).raise_for_status()
    shop.stripe.told("delivering")
    again = f"oanim billing buy --amount {amount}"
    for begun, why in ((failed, "did not go through"), (expired, "took too long")):
        for query in ("", "?cancelled=1"):
            message = f"The payment {why}. Nothing was charged."
            assert page_of(shop, begun, query) == Page(200, "Not paid", message, next_step=again)


def test_one_whose_page_was_never_made_has_no_way_back(shop: RunningShop, calls: Calls) -> None:
    key = new_key()
    shop.stripe.tell("faults", at="api", do="500", times=None, match="POST /v1/checkout")
    request = checkout.CreateCheckoutRequest(amount_micros=FIFTY, idempotency_key=key)
    refused = calls.refused(calls.checkout.CreateCheckout, request)
    shop.stripe.forget_faults()
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "PAYMENTS_AWAY")
    wallet_id = ids.account_id(calls.user.account_id)
    database = shop.server.app._database  # noqa: SLF001 - nobody was told the id
    made = shop.server.on_loop(
        database.read(lambda connection: purchase_of_key(connection, wallet_id=wallet_id, idem_key=key))
    )
    assert made is not None
    named = checkout.Checkout(checkout_id=reference(wallet_id, made.token))
    assert page_of(shop, named) == WAITING
    assert page_of(shop, named, "?cancelled=1") == Page(200, "Cancelled", "Nothing was charged.")
    # The same call goes on where it stopped.
    assert calls(calls.checkout.CreateCheckout, request).checkout.checkout_id == named.checkout_id


def test_while_the_database_is_away_the_page_says_that_nothing_is_lost(tmp_path: Path) -> None:
    with Cluster({}) as cluster:
        url = migrated.postgresql(cluster)
        with selling({"OANIM_DATA": str(tmp_path), "OANIM_DATABASE_URL": url}) as shop:
            calls = Calls(shop.server.channel, shop.server.sign_up())
            begun = shop.begin(calls)
            cluster.stop("immediate")
            message = (
                "We cannot look at the moment. What was paid is not lost: this page looks again by itself."
            )
            assert page_of(shop, begun) == Page(503, "Not now", message, looks_again=True)
            cluster.start()
            assert page_of(shop, begun) == WAITING


# What it never does ----------------------------------------------------------------------------------

NOBODY = Page(404, "No such purchase", "Look at the address again.")


def test_an_id_that_is_unknown_or_none_is_not_found(shop: RunningShop, calls: Calls) -> None:
    begun = shop.begin(calls)
    account, _, token = begun.checkout_id.partition("-")
    for named in (
        f"{account}-{TOKEN}",
        f"{account}-{token[::-1]}",
        f"{account}-{token[:-1]}",
        f"{account}-{token}x",
        f"{account}{token}",
        f"{account}-",
        account,
        token,
        f"000000000000-{token}",
        f"0-{token}",
        f"{begun.checkout_id}%00",
        f"{begun.checkout_id}%0d%0aset-cookie:%20a=b",
        f"{account}-%D9%A0{token[1:]}",
        f"{account}%e2%80%90{token}",
        f"{account}-{'x' * 5_000}",
        "%3Cscript%3E",
        "..%5c..",
        "null",
    ):
        answer = shop.page(f"/checkout/{named}")
        assert read(answer) == NOBODY, named
        assert token not in answer.text


def test_nothing_of_the_request_comes_back_and_it_leads_nowhere_else(shop: RunningShop, calls: Calls) -> None:
    begun = shop.begin(calls)
    path = f"/checkout/{begun.checkout_id}"
    plain, cancelled = shop.page(path), shop.page(f"{path}?cancelled=1")
    elsewhere = {"next": "https://evil.example", "url": "//evil.example", "return_to": NASTY}
    for query, expected in (({}, plain), ({"cancelled": NASTY}, cancelled)):
        answer = loopback.get(
            f"{shop.server.http_url}{path}",
            params={**elsewhere, **query, NASTY: NASTY, "session_id": "cs_other"},
            headers={
                "host": "evil.example",
                "x-forwarded-host": "evil.example",
                "x-forwarded-proto": "javascript",
                "referer": "https://evil.example",
                "cookie": "a=evil.example",
                "user-agent": NASTY,
                "accept-language": NASTY,
            },
        )
        assert (answer.status_code, answer.text) == (200, expected.text)
        assert "evil" not in str(answer.headers)


@pytest.mark.parametrize("path", ["{id}/", "/{id}", "../checkout/{id}/", "{id}//evil.example", "{id}/%2f"])
def test_no_address_is_redirected(shop: RunningShop, calls: Calls, path: str) -> None:
    named = path.format(id=shop.begin(calls).checkout_id)
    answer = loopback.get(f"{shop.server.http_url}/checkout/{named}", headers={"host": "evil.example"})
    assert (answer.status_code, answer.headers.get("location")) == (404, None)


def test_every_answer_has_the_headers_that_keep_it_to_itself(shop: RunningShop, calls: Calls) -> None:
    begun = shop.begin(calls)
    for path in (begun.checkout_id, f"{begun.checkout_id}?cancelled=1", "nobody"):
        headers = shop.page(f"/checkout/{path}").headers
        assert headers["cache-control"] == "no-store"
        assert headers["content-type"] == "text/html; charset=utf-8"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        policy = set(headers["content-security-policy"].split("; "))
        assert policy >= {"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"}
        assert not {"set-cookie", "server", "location"} & set(headers)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_it_is_only_read(shop: RunningShop, calls: Calls, method: str) -> None:
    begun = shop.begin(calls)
    url = f"{shop.server.http_url}/checkout/{begun.checkout_id}"
    assert loopback.request(method, url).status_code == 405
    assert loopback.request("HEAD", url).status_code == 200
    assert now(calls, begun) == begun


@pytest.mark.parametrize("state", State)
def test_what_stripe_answered_is_escaped(state: State) -> None:
    """The page's address is Stripe's word, and the only text on the page that is not ours."""

    async def get(wallet_id: int, token: str) -> Purchase:
        return Purchase(
            wallet_id=wallet_id,
            token=token,
            api_key_id=NASTY,
            idem_key=NASTY,
            state=state,
            amount_micros=FIFTY,
            bonus_micros=0,
            lifetime=None,
            created_at=0,
            expires_at=0,
            session_id=NASTY,
            url=f"https://checkout.example/{NASTY}",
            receipt_url=NASTY,
        )

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=Starlette(routes=[returning(get)]))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.get(f"/checkout/{ids.account_text(7)}-{TOKEN}?cancelled=1")

    answer = asyncio.run(asked())
    assert answer.status_code == 200
    assert "<script" not in answer.text
    assert f"Purchase {ids.account_text(7)}-{TOKEN}" in answer.text
    shown = state in (State.CREATING, State.OPEN)
    assert (f'href="https://checkout.example/{_escaped(NASTY)}"' in answer.text) == shown


def _escaped(text: str) -> str:
    for character, escape in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;")):
        text = text.replace(character, escape)
    return text
