"""The webhook as Stripe, and as everybody else, may call it: on a real server, over loopback."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import pytest

from oanim_server.web.webhook import MAX_BYTES, PATH
from tests import loopback, migrated
from tests.postgresql import Cluster
from tests.selling import (
    FIFTY_FIVE,
    FREE,
    SECRETS,
    Shop,
    environment_of,
    now,
    selling,
    session_of,
    signature,
    stripe_of_its_own,
    wallet_of,
)
from tests.server import Calls, new_key, running, spawned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import httpx

    from tests.selling import RunningShop

COMPLETED = "checkout.session.completed"
DELIVERIES = 10_000
AT_ONCE = 24
SEED = 20_261_123


# Deliveries that nobody should believe ---------------------------------------------------------------


def http_request(body: bytes, header: bytes | None, *, framing: bytes | None = None) -> bytes:
    """A delivery as it goes over the wire; `header` None sends no signature."""
    head = b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: here\r\nConnection: close\r\n"
    if header is not None:
        head += b"Stripe-Signature: " + header + b"\r\n"
    head += framing if framing is not None else b"Content-Length: %d\r\n" % len(body)
    return head + b"\r\n" + body


def chunked(body: bytes, size: int) -> bytes:
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


class Forger:
    """Makes deliveries of a true event that are wrong in one way each.

    :param event: one that is believed, and credits a purchase, when it is signed as it should be.
    """

    def __init__(self, event: bytes, chance: random.Random) -> None:
        self._event = event
        self._chance = chance
        self.kinds: dict[str, Callable[[], bytes]] = {
            "a secret of somebody else's": lambda: self._signed_by(f"whsec_{chance.getrandbits(64):x}"),
            "an empty secret": lambda: self._signed_by(""),
            "too old": lambda: self._at(-chance.choice([301, 302, 3_600, 10**6, 2 * 10**9])),
            "not yet": lambda: self._at(chance.choice([310, 3_600, 10**6, 10**12])),
            "two times, of which one is of now": self._two_times,
            "no header": lambda: http_request(event, None),
            "a header of chance": self._header_of_chance,
            "a header almost right": self._header_almost_right,
            "a header that is not ASCII": lambda: http_request(
                event, signature(event).encode() + chance.choice([b"\xe9", b",v1=\xff\xfe", b",t=\xb2"])
            ),
            "cut off": lambda: self._other(event[: chance.randrange(len(event))]),
            "one byte changed": self._one_byte_changed,
            "another body": lambda: self._other(event.replace(b'"paid"', b'"free"') + b" "),
            "nothing": lambda: self._true(b""),
            "no UTF-8": lambda: self._true(event.replace(b'"id"', b'"i\xff"', 1)),
            "no JSON": lambda: self._true(event[: chance.randrange(1, len(event) - 1)]),
            "no event": lambda: self._true(chance.choice(NO_EVENTS)),
            "too deep": lambda: self._true(self._deep(chance.choice([100, *range(955, 975), 100_000]))),
            "one byte too long": lambda: self._true(event.ljust(MAX_BYTES + 1)),
            "too long, in chunks": self._too_long_in_chunks,
        }

    def _true(self, body: bytes) -> bytes:
        """Signed by Stripe: what is wrong is the body."""
        return http_request(body, signature(body, self._chance.choice(SECRETS)).encode())

    def _other(self, body: bytes) -> bytes:
        """With the right signature of what Stripe did send."""
        return http_request(body, signature(self._event).encode())

    def _signed_by(self, secret: str) -> bytes:
        return http_request(self._event, signature(self._event, secret).encode())

    def _at(self, seconds: int) -> bytes:
        return http_request(self._event, signature(self._event, at=int(time.time()) + seconds).encode())

    def _two_times(self) -> bytes:
        seconds = self._chance.choice([-3_600, 3_600])
        there, here = signature(self._event, at=int(time.time()) + seconds), f"t={int(time.time())}"
        return http_request(self._event, self._chance.choice([f"{there},{here}", f"{here},{there}"]).encode())

    def _header_of_chance(self) -> bytes:
        letters = b"tv01=,;-_ .abcdef\"'\\<>%"
        header = bytes(self._chance.choices(letters, k=self._chance.randrange(300)))
        return http_request(self._event, header.strip())

    def _header_almost_right(self) -> bytes:
        at, _, mac = signature(self._event).partition(",v1=")
        wrong = [
            f"{at},v0={mac}",
            f"{at},v1={mac[:-1]}",
            f"{at},v1={mac}0",
            f"{at},v1={mac[::-1]}",
            f"{at},v1=",
            f"{at}",
            f"v1={mac}",
            f"t=,v1={mac}",
            f"t=now,v1={mac}",
            f"t={'9' * 5_000},v1={mac}",
            f"t=-{'9' * 300},v1={mac}",
            f"t=1e9,v1={mac}",
            f"t,v1={mac}",
            f"{at};v1={mac}",
            f"{at},v1:{mac}",
            f"T{at[1:]},V1={mac}",
            ",".join([at, *(f"v1={self._chance.getrandbits(256):064x}" for _ in range(100))]),
        ]
        return http_request(self._event, self._chance.choice(wrong).encode())

    def _one_byte_changed(self) -> bytes:
        body = bytearray(self._event)
        body[self._chance.randrange(len(body))] ^= 1 << self._chance.randrange(7)
        return self._other(bytes(body))

    def _deep(self, depth: int) -> bytes:
        opened, closed = self._chance.choice([(b"[", b"]"), (b'{"a":', b"}")])
        depth = min(depth, 200_000 // len(opened + closed))
        nested = opened * depth + b"1" + closed * depth
        return self._chance.choice([nested, self._event.replace(b"{", b'{"a":' + nested + b",", 1)])

    def _too_long_in_chunks(self) -> bytes:
        body = self._event.ljust(MAX_BYTES + self._chance.choice([1, 2, 70_000]))
        framing = b"Transfer-Encoding: chunked\r\n"
        sent = chunked(body, self._chance.choice([1_000, 16_384, len(body)]))
        return http_request(sent, signature(body).encode(), framing=framing)


def _no_events() -> list[bytes]:
    about = {"object": {"id": "cs_1"}}
    good = {"id": "evt_1", "type": COMPLETED, "data": about}
    wrong: list[object] = [
        None, True, 1, 1.5, "event", [], {}, [good], {"id": "evt_1"},
        {**good, "id": ""}, {**good, "id": 7}, {**good, "id": None}, {**good, "id": ["evt_1"]},
        {**good, "id": "e" * 256}, {**good, "id": "evt\0"}, {**good, "id": "evt_\ud800"},
        {**good, "type": ""}, {**good, "type": None}, {**good, "type": "t" * 256},
        {**good, "data": None}, {**good, "data": []}, {**good, "data": {}}, {**good, "data": "object"},
        {**good, "data": {"object": None}}, {**good, "data": {"object": []}}, {**good, "data": {"object": 1}},
    ]  # fmt: skip
    texts = [b"NaN", b"9" * 5_000, b"{", b"nul", b'{"id": evt_1}', b"\xef\xbb\xbf", b"a=b&c=d", b"<xml/>"]
    return [*(json.dumps(one).encode() for one in wrong), *texts]


NO_EVENTS = _no_events()


class Answer(NamedTuple):
    """What came back: 0 when nothing did."""

    kind: str
    status: int


async def besiege(port: int, forger: Forger, kinds: Iterator[str]) -> list[Answer]:
    """Deliver one of each of these, a few at a time."""

    async def one_after_the_other() -> list[Answer]:
        answers = []
        # Made when it is sent: it has the time of then.
        for kind in kinds:
            line = await exchange(port, forger.kinds[kind]())
            answers.append(Answer(kind, int(line.split()[1]) if line else 0))
        return answers

    done = await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))
    return [answer for answers in done for answer in answers]


async def exchange(port: int, raw: bytes, *, then_hang_up: bool = False) -> bytes:
    """Send bytes, and read the first line of what is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(raw)
        if then_hang_up:
            writer.write_eof()
        line = await reader.readline()
        await reader.read()
        return line
    finally:
        writer.close()
        await writer.wait_closed()


def everything(data: Path) -> list[str]:
    """Every row of an embedded database."""
    with closing(sqlite3.connect(f"file:{data / 'oanim.db'}?mode=ro", uri=True)) as database:
        return list(database.iterdump())


class Besieged(NamedTuple):
    """A server in a process of its own, and a true event that it has not heard of."""

    shop: Shop
    calls: Calls
    event: bytes

    def loud(self) -> list[dict[str, object]]:
        """The entries of its log that tell of a fault."""
        entries = self.shop.server.entries()  # type: ignore[attr-defined]
        return [one for one in entries if "exception" in one or one["level"] in ("error", "critical")]


@pytest.fixture
def besieged(tmp_path: Path) -> Iterator[Besieged]:
    data = tmp_path / "data"
    with stripe_of_its_own() as stripe:
        environment = {**environment_of(stripe.sandbox), "OANIM_DATA": str(data)}
        with spawned(environment, tmp_path / "log") as server:
            shop, calls = Shop(server, stripe), Calls(server.channel, server.sign_up())
            begun = shop.begin(calls)
            stripe.tell(f"sessions/{session_of(begun)}/pay")
            event = stripe.event(COMPLETED, begun.checkout_id)
            while not shop.metrics()["oanim_payment_reconciliations_total"]:
                time.sleep(0.05)
            # From here on nobody but the webhook can tell that it was paid.
            stripe.sandbox.stop()
            yield Besieged(shop, calls, event)


def test_ten_thousand_deliveries_of_nobody_s_are_refused_and_change_nothing(besieged: Besieged) -> None:
    shop, calls, event = besieged
    chance = random.Random(SEED)
    forger = Forger(event, chance)
    kinds = list(forger.kinds)
    chosen = iter([chance.choice(kinds) for _ in range(DELIVERIES)])
    before = everything(shop.server.data)

    answers = asyncio.run(besiege(shop.server.http_port, forger, chosen))

    too_long = {"one byte too long", "too long, in chunks"}
    wrong = {one for one in answers if one.status != (413 if one.kind in too_long else 400)}
    assert (len(answers), wrong) == (DELIVERIES, set())
    assert besieged.loud() == []
    assert everything(shop.server.data) == before
    assert shop.metrics()['oanim_payment_events_total{standing="rejected"}'] == DELIVERIES
    # None of it was refused for want of an event that is worth believing.
    assert shop.deliver(event).json() == {"standing": "applied"}
    assert wallet_of(calls).balance_micros == FREE + FIFTY_FIVE


def test_who_hangs_up_or_breaks_off_leaves_no_trace(besieged: Besieged) -> None:
    shop, _, event = besieged
    header, framing = signature(event).encode(), b"Transfer-Encoding: chunked\r\n"
    whole, pieces = http_request(event, header), chunked(event, 100)
    broken = [
        *(whole[: len(whole) * part // 20] for part in range(20)),
        *(http_request(pieces[: len(pieces) * part // 20], header, framing=framing) for part in range(20)),
        http_request(b"zz\r\n" + pieces, header, framing=framing),
        http_request(b"-5\r\n" + pieces, header, framing=framing),
        http_request(pieces[:120] + b"nonsense", header, framing=framing),
        http_request(event, header, framing=b"Content-Length: -1\r\n"),
        http_request(event, header, framing=b"Content-Length: " + b"9" * 5_000 + b"\r\n"),
        http_request(event, header, framing=b"Content-Length: 5\r\nContent-Length: 6\r\n"),
    ]
    before = everything(shop.server.data)

    async def break_off() -> None:
        for raw in broken * 5:
            await exchange(shop.server.http_port, raw, then_hang_up=True)

    asyncio.run(break_off())
    assert besieged.loud() == []
    assert everything(shop.server.data) == before
    assert shop.deliver(event).status_code == 200


# Deliveries of Stripe's ------------------------------------------------------------------------------


@pytest.fixture
def unheard(shop: RunningShop, calls: Calls) -> Iterator[bytes]:
    """A true event that credits fifty-five dollars to whoever calls, and that was not delivered."""
    shop.stripe.tell("delivering", paused=True)
    begun = shop.begin(calls)
    shop.stripe.tell(f"sessions/{session_of(begun)}/pay")
    yield shop.stripe.event(COMPLETED, begun.checkout_id)
    shop.stripe.tell("delivering")


def bought(calls: Calls) -> bool:
    return wallet_of(calls).balance_micros == FREE + FIFTY_FIVE


@pytest.mark.parametrize("signed_with", [SECRETS[:1], SECRETS[1:], SECRETS, ("whsec_other", SECRETS[1])])
def test_while_a_secret_is_rolled_either_signs(
    shop: RunningShop, calls: Calls, unheard: bytes, signed_with: tuple[str, ...]
) -> None:
    at, *macs = [signature(unheard, secret).partition(",") for secret in signed_with]
    header = ",".join(["".join(at), *(mac for _, _, mac in macs)])
    assert shop.deliver(unheard, header).json() == {"standing": "applied"}
    assert bought(calls)


@pytest.mark.parametrize("seconds", [-290, 290])
def test_a_clock_may_be_a_little_off_in_either_direction(
    shop: RunningShop, calls: Calls, unheard: bytes, seconds: int
) -> None:
    header = signature(unheard, at=int(time.time()) + seconds)
    assert shop.deliver(unheard, header).status_code == 200
    assert bought(calls)


def test_an_event_of_no_concern_and_a_known_one_are_taken(
    shop: RunningShop, calls: Calls, unheard: bytes
) -> None:
    other = json.dumps({"id": "evt_other", "type": "customer.created", "data": {"object": {"id": "cus_1"}}})
    assert shop.deliver(other.encode()).json() == {"standing": "of_no_concern"}
    assert shop.deliver(unheard).json() == {"standing": "applied"}
    assert shop.deliver(unheard).json() == {"standing": "known"}
    assert bought(calls)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "cs_\ud800"},
        {"id": "cs_of_somebody_else_s"},
        {"payment_intent": ["pi_1"]},
        {"amount_subtotal": 5_000.0},
        {"amount_total": None},
        {"currency": {"usd": True}},
    ],
)
def test_an_event_that_cannot_be_read_credits_nothing_and_breaks_nothing(
    shop: RunningShop, calls: Calls, unheard: bytes, change: dict[str, object]
) -> None:
    event = json.loads(unheard)
    event["id"] = f"evt_{new_key()}"
    event["data"]["object"] |= change
    answer = shop.deliver(json.dumps(event).encode())
    said = (answer.status_code, answer.json().get("standing"))
    assert said in [(400, None), (200, "quarantined")]
    assert wallet_of(calls).balance_micros == FREE


def test_the_largest_body_that_is_allowed_is_taken(shop: RunningShop, calls: Calls, unheard: bytes) -> None:
    assert shop.deliver(unheard.ljust(MAX_BYTES)).status_code == 200
    assert bought(calls)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_only_a_post_is_a_delivery(shop: RunningShop, method: str) -> None:
    answer = loopback.request(method, f"{shop.server.http_url}{PATH}")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_nothing_listens_where_nothing_is_sold(tmp_path: Path) -> None:
    with running({"OANIM_DATA": str(tmp_path)}) as server:
        for path in (PATH, "/checkout/000000000000-abcdefghijklmnopqrstuvwx"):
            assert loopback.post(f"{server.http_url}{path}").status_code == 404
            assert loopback.get(f"{server.http_url}{path}").status_code == 404


def test_without_a_secret_nobody_is_believed(tmp_path: Path) -> None:
    with selling({"OANIM_DATA": str(tmp_path), "OANIM_STRIPE_WEBHOOK_SECRETS": " , "}) as shop:
        event = json.dumps({"id": "evt_1", "type": COMPLETED, "data": {"object": {}}}).encode()
        for secret in ("", " ", *SECRETS):
            assert shop.deliver(event, signature(event, secret)).status_code == 400


def test_an_event_is_taken_after_the_commit_alone_and_again_when_it_was_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Cluster({}) as cluster:
        url = migrated.postgresql(cluster)
        with selling({"OANIM_DATA": str(tmp_path), "OANIM_DATABASE_URL": url}) as shop:
            calls = Calls(shop.server.channel, shop.server.sign_up())
            shop.stripe.tell("delivering", paused=True)
            begun = shop.begin(calls)
            shop.stripe.tell(f"sessions/{session_of(begun)}/pay")
            event = shop.stripe.event(COMPLETED, begun.checkout_id)
            cluster.stop("immediate")
            away = shop.deliver(event)
            assert (away.status_code, away.json()) == (503, {"error": "try again"})
            cluster.start()
            assert once_it_is_back(shop, event).json() == {"standing": "applied"}
            assert bought(calls)
            assert now(calls, begun).credits_micros == FIFTY_FIVE
            assert shop.deliver(event).json() == {"standing": "known"}
            assert bought(calls)
    said = [record for record in caplog.records if record.name == "oanim_server.web.webhook"]
    assert said
    assert [record.exc_info for record in said if record.exc_info] == []


def once_it_is_back(shop: Shop, event: bytes) -> httpx.Response:
    """The answer, after as many refusals as it takes, within the 5 s that are promised."""
    until = time.monotonic() + 5
    while True:
        answer = shop.deliver(event)
        if answer.status_code == 200:
            return answer
        assert (answer.status_code, time.monotonic() < until) == (503, True)
        time.sleep(0.2)  # Stripe's pause; what it waits for is another process
