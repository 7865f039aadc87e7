from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import stripe

from oanim_server.sandbox.stripe_forms import BadParameter, decode
from tests import loopback

if TYPE_CHECKING:
    import httpx

    from oanim_server.sandbox import StripeSandbox
    from tests.sandbox.conftest import Tell


def key(value: str) -> stripe.RequestOptions:
    return {"idempotency_key": value}


def patient(sandbox: StripeSandbox) -> stripe.StripeClient:
    """An SDK that tries again."""
    return stripe.StripeClient("sk_test_sandbox", base_addresses={"api": sandbox.url}, max_network_retries=2)


def names(client: stripe.StripeClient) -> list[str | None]:
    return [customer.name for customer in client.v1.customers.list().data]


@pytest.mark.parametrize("secret", ["sk_live_secret", "pk_test_secret", "secret"])
def test_a_wrong_key_is_refused(sandbox: StripeSandbox, secret: str) -> None:
    client = stripe.StripeClient(secret, base_addresses={"api": sandbox.url})
    with pytest.raises(stripe.AuthenticationError) as refused:
        client.v1.customers.list()
    assert secret not in str(refused.value)


def test_no_key_is_refused_and_one_in_basic_authentication_is_not(sandbox: StripeSandbox) -> None:
    def status(auth: tuple[str, str] | None) -> int:
        return loopback.get(f"{sandbox.url}/v1/customers", auth=auth).status_code

    assert (status(None), status(("", "")), status(("sk_test_sandbox", ""))) == (401, 401, 200)


def test_what_is_not_there_is_said_in_stripe_s_words(client: stripe.StripeClient, http: httpx.Client) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.payment_intents.retrieve("pi_other")
    assert (refused.value.http_status, refused.value.code, refused.value.param) == (
        404,
        "resource_missing",
        "id",
    )
    assert str(refused.value.user_message) == "No such payment_intent: 'pi_other'"
    answer = http.get("/v1/nothing")
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "invalid_request_error")
    with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
        client.v1.customers.create({"expand": ["nothing"]})


def test_a_key_does_its_work_once(client: stripe.StripeClient) -> None:
    first = client.v1.customers.create({"name": "Jo"}, key("k"))
    again = client.v1.customers.create({"name": "Jo"}, key("k"))
    assert (first.id, names(client)) == (again.id, ["Jo"])
    assert again.last_response
    assert again.last_response.headers["idempotent-replayed"] == "true"
    [event] = client.v1.events.list({"type": "customer.created"}).data
    assert event.request
    assert event.request.idempotency_key == "k"


def test_a_key_remembers_an_error_of_the_call_but_not_one_of_its_parameters(
    client: stripe.StripeClient,
) -> None:
    asked: Any = {
        "amount": 100,
        "currency": "usd",
        "payment_method": "pm_card_chargeDeclined",
        "confirm": True,
    }
    headers = []
    for _ in range(2):
        with pytest.raises(stripe.CardError) as refused:
            client.v1.payment_intents.create(asked, key("k"))
        headers.append((refused.value.headers or {}).get("idempotent-replayed"))
    assert headers == [None, "true"]
    assert len(client.v1.payment_intents.list().data) == 1
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.payment_intents.create({"amount": -1, "currency": "usd"}, key("other"))
    client.v1.payment_intents.create({"amount": 100, "currency": "usd"}, key("other"))


def test_a_key_is_for_one_request(client: stripe.StripeClient) -> None:
    client.v1.customers.create({"name": "Jo"}, key("k"))
    with pytest.raises(stripe.IdempotencyError, match="same parameters"):
        client.v1.customers.create({"name": "Al"}, key("k"))
    with pytest.raises(stripe.IdempotencyError, match="same endpoint"):
        client.v1.products.create({"name": "Jo"}, key("k"))
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.products.create({"name": "Jo"}, key("k" * 256))
    assert names(client) == ["Jo"]


def test_a_key_in_use_is_a_conflict_which_the_sdk_waits_out(
    sandbox: StripeSandbox, client: stripe.StripeClient, tell: Tell
) -> None:
    tell("faults", at="api", do="late", seconds=0.6, match="POST")
    asked = threading.Thread(target=client.v1.customers.create, args=({"name": "Jo"}, key("k")))
    asked.start()
    while not names(client):
        pass
    with pytest.raises(stripe.APIError) as refused:
        client.v1.customers.create({"name": "Jo"}, key("k"))
    assert refused.value.error
    assert (refused.value.http_status, refused.value.error.code) == (409, "idempotency_key_in_use")
    again = patient(sandbox).v1.customers.create({"name": "Jo"}, key("k"))
    asked.join()
    assert again.name == "Jo"
    assert names(client) == ["Jo"]


@pytest.mark.parametrize("do", ["drop_before", "drop_after", "500"])
def test_the_sdk_s_own_retry_does_the_work_once(
    sandbox: StripeSandbox, client: stripe.StripeClient, tell: Tell, do: str
) -> None:
    tell("faults", at="api", do=do, match="POST /v1/customers {")
    assert patient(sandbox).v1.customers.create({"name": "Jo"}).name == "Jo"
    assert names(client) == ["Jo"]


def test_a_failure_after_the_work_is_what_the_key_answers_from_then_on(
    sandbox: StripeSandbox, client: stripe.StripeClient, tell: Tell
) -> None:
    tell("faults", at="api", do="500_after")
    for _ in range(2):
        with pytest.raises(stripe.APIError, match="unknown error"):
            patient(sandbox).v1.customers.create({"name": "Jo"}, key("k"))
    assert names(client) == ["Jo"]


def test_too_many_requests_are_not_tried_again(sandbox: StripeSandbox, tell: Tell) -> None:
    tell("faults", at="api", do="429", match="GET /v1/customers")
    with pytest.raises(stripe.RateLimitError):
        patient(sandbox).v1.customers.list()
    assert patient(sandbox).v1.customers.list().data == []


def test_an_answer_may_never_come_though_the_work_is_done(
    sandbox: StripeSandbox, client: stripe.StripeClient, tell: Tell, caplog: pytest.LogCaptureFixture
) -> None:
    tell("faults", at="api", do="hang")
    hasty = stripe.StripeClient(
        "sk_test_sandbox",
        base_addresses={"api": sandbox.url},
        max_network_retries=0,
        http_client=stripe.RequestsClient(timeout=1),
    )
    with pytest.raises(stripe.APIConnectionError):
        hasty.v1.customers.create({"name": "Jo"}, key("k"))
    assert client.v1.customers.create({"name": "Jo"}, key("k")).name == "Jo"
    assert names(client) == ["Jo"]
    # That its client gave up is no fault of the sandbox's.
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def test_faults_go_by_number_and_by_clearing(
    client: stripe.StripeClient, http: httpx.Client, tell: Tell
) -> None:
    tell("faults", at="api", do="500", times=2)
    tell("faults", at="api", do="429", times=None, match='"name": "Jo"')
    assert [http.get("/v1/customers").status_code for _ in range(3)] == [500, 500, 200]
    assert [http.post("/v1/customers", data={"name": "Jo"}).status_code for _ in range(2)] == [429, 429]
    http.delete("/sandbox/faults").raise_for_status()
    assert client.v1.customers.create({"name": "Jo"}).name == "Jo"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("faults", {"at": "api", "do": "gone"}),
        ("faults", {"at": "submit", "do": "500"}),
        ("webhooks", {}),
        ("webhooks", {"endpoints": [{"url": "http://x"}]}),
        ("webhooks", {"endpoints": [{"url": "x", "secrets": []}]}),
        ("webhooks", {"endpoints": [{"url": "http://x", "secrets": [1]}]}),
        ("delivering", {"copies": 1.5}),
        ("delivering", {"paused": 1}),
        ("delivering", {"at_once": 0}),
        ("delivering", {"delay_s": -1}),
        ("delivering", []),
        ("queue", {"do": "sort"}),
        ("queue/wait", {"seconds": "x"}),
        ("refunds", {"of": "cs_x", "status": "failed"}),
        ("refunds", {"amount": 1}),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(http: httpx.Client, path: str, body: object) -> None:
    answer = http.post(f"/sandbox/{path}", json=body)
    assert (answer.status_code, list(answer.json())) == (400, ["detail"])


def test_an_order_about_what_is_not_there_is_refused(http: httpx.Client) -> None:
    for path in ("sessions/cs_x/pay", "events/evt_x/send", "disputes/du_x/withdraw", "refunds/re_x"):
        assert (
            http.post(f"/sandbox/{path}", json={"status": "failed"} if "re_x" in path else {}).status_code
            == 404
        )


def test_a_form_s_brackets_are_objects_and_lists() -> None:
    assert decode("a=1&b[c]=2&d[0][e]=3&d[1][e]=4&f[]=5&f[]=6&g=") == {
        "a": "1",
        "b": {"c": "2"},
        "d": [{"e": "3"}, {"e": "4"}],
        "f": ["5", "6"],
        "g": "",
    }
    with pytest.raises(BadParameter):
        decode("a=1&a[b]=2")
