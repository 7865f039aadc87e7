from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import stripe

from tests.sandbox.receiving import SECRET, Inbox
from tests.sandbox.test_stripe_checkout import types

if TYPE_CHECKING:
    import httpx

    from oanim_server.sandbox import StripeSandbox
    from tests.sandbox.conftest import Tell

PAID = [
    "payment_intent.created",
    "charge.succeeded",
    "payment_intent.succeeded",
    "checkout.session.completed",
]


def settled(tell: Tell) -> None:
    assert tell("queue/wait", seconds=20) == {"waiting": 0}


def state(http: httpx.Client) -> dict[str, Any]:
    content: dict[str, Any] = http.get("/sandbox/state").json()
    return content


def test_every_event_arrives_signed_and_in_order(
    client: stripe.StripeClient,
    http: httpx.Client,
    tell: Tell,
    session: stripe.checkout.Session,
    inbox: Inbox,
) -> None:
    tell(f"sessions/{session.id}/pay")
    settled(tell)
    events = inbox.events()
    assert [event.type for event in events] == PAID == types(client)
    completed = events[-1]
    assert (completed.object, completed.api_version, completed.livemode) == (
        "event",
        stripe.api_version,
        False,
    )
    assert completed.data.object["client_reference_id"] == "purchase-1"
    assert completed.id == client.v1.events.retrieve(completed.id).id
    assert [one["statuses"] for one in state(http)["deliveries"]] == [[200]] * 4


def test_an_endpoint_gets_the_types_it_asked_for(
    client: stripe.StripeClient, tell: Tell, session: stripe.checkout.Session
) -> None:
    with Inbox() as inbox:
        endpoint = client.v1.webhook_endpoints.create(
            {"url": inbox.url, "enabled_events": ["checkout.session.completed"]}
        )
        tell(f"sessions/{session.id}/pay")
        settled(tell)
        assert [event.type for event in inbox.events(str(endpoint.secret))] == PAID[-1:]
        client.v1.webhook_endpoints.delete(endpoint.id)
        assert client.v1.webhook_endpoints.list().data == []


def test_while_a_secret_is_rolled_both_sign(
    sandbox: StripeSandbox, tell: Tell, session: stripe.checkout.Session, inbox: Inbox
) -> None:
    sandbox.send_webhooks(inbox.url, "whsec_new", SECRET, types=["checkout.session.completed"])
    tell(f"sessions/{session.id}/pay")
    settled(tell)
    assert [len(inbox.events(secret)) for secret in ("whsec_new", SECRET)] == [1, 1]
    with pytest.raises(stripe.SignatureVerificationError):
        inbox.events("whsec_other")


def test_a_refused_event_comes_again_and_holds_nothing_up(
    http: httpx.Client, tell: Tell, session: stripe.checkout.Session, inbox: Inbox
) -> None:
    inbox.answers = [500, 200, 400]
    tell(f"sessions/{session.id}/pay")
    settled(tell)
    assert inbox.types()[:4] == PAID
    assert sorted(inbox.types()[4:]) == sorted([PAID[0], PAID[2]])
    assert [one["statuses"] for one in state(http)["deliveries"]] == [[500, 200], [200], [400, 200], [200]]


def test_an_endpoint_that_is_away_is_asked_until_it_is_back(
    sandbox: StripeSandbox, http: httpx.Client, tell: Tell, session: stripe.checkout.Session, free_port: int
) -> None:
    sandbox.send_webhooks(f"http://127.0.0.1:{free_port}/", SECRET)
    tell(f"sessions/{session.id}/pay")
    while not all(one["statuses"] for one in state(http)["deliveries"]):
        time.sleep(0.01)
    assert {one["state"] for one in state(http)["deliveries"]} <= {"waiting", "queued", "sending"}
    assert state(http)["deliveries"][0]["statuses"][0] == 0
    http.post("/sandbox/webhooks", json={"endpoints": []}).raise_for_status()
    settled(tell)


def test_a_paused_queue_is_turned_round_and_let_go(
    http: httpx.Client, tell: Tell, session: stripe.checkout.Session, inbox: Inbox
) -> None:
    tell("delivering", paused=True)
    tell(f"sessions/{session.id}/pay")
    assert tell("queue", do="reverse") == {"count": 4}
    assert tell("queue/wait", seconds=0.1) == {"waiting": 4}
    assert inbox.arrived == []
    tell("delivering")
    settled(tell)
    assert inbox.types() == PAID[::-1]


def test_a_queue_is_shuffled_by_a_seed_and_thinned_out(
    tell: Tell, session: stripe.checkout.Session, inbox: Inbox
) -> None:
    tell("delivering", paused=True)
    tell(f"sessions/{session.id}/pay")
    tell("queue", do="shuffle", seed=1)
    assert tell("queue", do="drop", types=["charge.succeeded"]) == {"count": 1}
    tell("delivering")
    settled(tell)
    assert sorted(inbox.types()) == sorted(name for name in PAID if name != "charge.succeeded")
    assert inbox.types() != [name for name in PAID if name != "charge.succeeded"]


@pytest.mark.parametrize(("new_ids", "ids"), [(False, 1), (True, 50)])
def test_an_event_may_come_many_times_at_once(
    client: stripe.StripeClient,
    tell: Tell,
    sandbox: StripeSandbox,
    session: stripe.checkout.Session,
    inbox: Inbox,
    *,
    new_ids: bool,
    ids: int,
) -> None:
    sandbox.send_webhooks(inbox.url, SECRET, types=["checkout.session.completed"])
    tell("delivering", copies=49, new_ids=new_ids, at_once=50)
    tell(f"sessions/{session.id}/pay")
    settled(tell)
    events = inbox.events()
    assert (len(events), len({event.id for event in events})) == (50, ids)
    assert len({event.data.object["id"] for event in events}) == 1
    listed = client.v1.events.list({"types": ["checkout.session.completed"], "limit": 7})
    assert len(list(listed.auto_paging_iter())) == ids


def test_an_event_can_be_late_or_lost_and_sent_again(
    client: stripe.StripeClient, tell: Tell, session: stripe.checkout.Session, inbox: Inbox
) -> None:
    tell("delivering", drop=3, delay_s=0.3)
    began = time.monotonic()
    tell(f"sessions/{session.id}/pay")
    settled(tell)
    assert inbox.types() == PAID[3:]
    assert time.monotonic() - began >= 0.3
    tell("delivering")
    [lost] = client.v1.events.list({"type": "charge.succeeded"}).data
    tell(f"events/{lost.id}/send", times=2)
    tell(f"events/{lost.id}/send", new_ids=True)
    settled(tell)
    assert [event.id == lost.id for event in inbox.events()[1:]] == [True, True, False]


@pytest.mark.parametrize("skew_s", [-400, 400])
def test_a_signature_s_time_can_be_off(
    tell: Tell, session: stripe.checkout.Session, inbox: Inbox, skew_s: int
) -> None:
    tell("delivering", skew_s=skew_s)
    tell(f"sessions/{session.id}/pay")
    settled(tell)
    body, header = inbox.arrived[0]
    at = int(header.split(",")[0].removeprefix("t="))
    assert at - time.time() == pytest.approx(skew_s, abs=10)
    stripe.WebhookSignature.verify_header(body, header, SECRET)


def test_events_are_listed_by_type_and_time(
    client: stripe.StripeClient, tell: Tell, session: stripe.checkout.Session
) -> None:
    began = int(time.time())
    tell(f"sessions/{session.id}/pay")
    asked = client.v1.events.list({"types": PAID[:2], "created": {"gte": began - 60}})
    assert [event.type for event in asked.data] == PAID[1::-1]
    assert client.v1.events.list({"created": {"gte": began + 60}}).data == []
    page = client.v1.events.list({"limit": 3})
    assert page.has_more
    rest = client.v1.events.list({"starting_after": page.data[-1].id})
    assert ([event.type for event in rest.data], rest.has_more) == (PAID[:1], False)
    back = client.v1.events.list({"ending_before": page.data[-1].id})
    assert [event.type for event in back.data] == PAID[:1:-1]
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.events.list({"type": "x", "types": ["y"]})
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.events.list({"starting_after": "evt_x"})


def test_the_state_lists_everything(http: httpx.Client, tell: Tell, session: stripe.checkout.Session) -> None:
    tell(f"sessions/{session.id}/pay")
    tell("refunds", of=session.id, amount=100)
    tell("disputes", of=session.id)
    counts = {name: len(things) for name, things in state(http).items() if isinstance(things, list)}
    assert counts == {
        "sessions": 1,
        "payment_intents": 1,
        "charges": 1,
        "refunds": 1,
        "disputes": 1,
        "events": 8,
        "webhook_endpoints": 0,
        "deliveries": 0,
    }
