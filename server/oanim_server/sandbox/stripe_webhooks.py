"""Sends events to where they were asked for: signed, in order, again when refused, in disorder on demand.

A delivery is one event for one endpoint. First tries are made in the order of the queue; one that failed
is tried again later and holds nothing up, as at Stripe. What a `Mode` says is done to events as they enter
the queue, and to the queue as it is.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import secrets
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import httpx
from stripe import WebhookSignature

from oanim_models.tls import trusted
from oanim_server.sandbox.stripe_objects import change, merge_metadata

if TYPE_CHECKING:
    from oanim_server.sandbox.stripe_forms import Params, Thing
    from oanim_server.sandbox.stripe_objects import Objects

_LOG = logging.getLogger(__name__)
_TRIES = 12
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0
_TIMEOUT_S = 10
MOST_AT_ONCE = 100
_ENDPOINT = ("api_version", "description", "enabled_events", "metadata", "url")


@dataclass(slots=True, frozen=True)
class Mode:
    """How events are delivered, from now on.

    Each is sent once and `copies` times more, these under ids of their own with `new_ids`; not before
    `delay_s`; `at_once` many at a time; with signatures whose time is `skew_s` off. `drop` more are never
    sent. `paused` sends nothing, and keeps the queue.
    """

    paused: bool = False
    copies: int = 0
    new_ids: bool = False
    delay_s: float = 0.0
    at_once: int = 1
    drop: int = 0
    skew_s: float = 0.0


@dataclass(slots=True, eq=False)
class Delivery:
    """An event on its way to an endpoint. `statuses` are the answers so far; 0: there was none."""

    event: Thing
    endpoint: Thing
    due: float
    state: str = "queued"
    statuses: list[int] = field(default_factory=list)

    def shown(self) -> Thing:
        return {
            "event": self.event["id"],
            "type": self.event["type"],
            "url": self.endpoint["url"],
            "state": self.state,
            "statuses": self.statuses,
        }


class Webhooks:
    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._secrets: dict[str, list[str]] = {}
        self._mode = Mode()
        self._queue: list[Delivery] = []
        self._all: list[Delivery] = []
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._http = httpx.AsyncClient(
            timeout=_TIMEOUT_S,
            trust_env=False,
            verify=trusted(trust_env=False),
            # None is kept: with every request httpx looks through all that rest.
            limits=httpx.Limits(max_connections=MOST_AT_ONCE, max_keepalive_connections=0),
        )
        self._worker = asyncio.create_task(self._work())

    # Endpoints.

    def create(self, params: Params) -> Thing:
        params.only(_ENDPOINT)
        url = params.url("url") or params.needed("url")
        types = params.texts("enabled_events") or [params.needed("enabled_events")]
        endpoint = self.register(url, [f"whsec_{secrets.token_hex(16)}"], types)
        change(endpoint, description=params.text("description"), metadata=params.metadata())
        return {**endpoint, "secret": self._secrets[endpoint["id"]][0]}

    def register(self, url: str, signing: list[str], types: list[str]) -> Thing:
        """Send events of these types, `*` for all, to an address, signed with each of these secrets."""
        fields: Thing = {"api_version": None, "application": None, "description": None, "metadata": {}}
        endpoint = self._objects.add(
            "webhook_endpoint", {**fields, "enabled_events": types, "status": "enabled", "url": url}
        )
        self._secrets[endpoint["id"]] = signing
        return endpoint

    def update(self, params: Params, identity: str) -> Thing:
        params.only((*_ENDPOINT, "disabled"))
        endpoint = self._objects.get("webhook_endpoint", identity)
        merge_metadata(endpoint, params)
        if "url" in params:
            endpoint["url"] = params.url("url")
        if "enabled_events" in params.raw():
            endpoint["enabled_events"] = params.texts("enabled_events")
        if "disabled" in params:
            endpoint["status"] = "disabled" if params.flag("disabled") else "enabled"
        return endpoint

    def delete(self, _params: Params, identity: str) -> Thing:
        self._forget(self._objects.get("webhook_endpoint", identity))
        return {"id": identity, "object": "webhook_endpoint", "deleted": True}

    def replace(self, endpoints: list[tuple[str, list[str], list[str]]]) -> list[Thing]:
        """Send to these and to no other: url, secrets, types. What an endpoint stays for keeps its queue."""
        known = {endpoint["url"]: endpoint for endpoint in self._objects.all("webhook_endpoint")}
        made = []
        for url, signing, types in endpoints:
            endpoint = known.pop(url, None) or self.register(url, signing, types)
            change(endpoint, enabled_events=types)
            self._secrets[endpoint["id"]] = signing
            made.append(endpoint)
        for endpoint in known.values():
            self._forget(endpoint)
        return made

    def _forget(self, endpoint: Thing) -> None:
        endpoint["deleted"] = True
        for delivery in self._all:
            if delivery.endpoint is endpoint and delivery.state in ("queued", "waiting"):
                delivery.state = "dropped"
        self._queue = [delivery for delivery in self._queue if delivery.state == "queued"]
        self._ended.set()

    # Deliveries.

    def heard(self, event: Thing) -> None:
        """Queue a new event as the mode says."""
        if self._mode.drop:
            self._mode = Mode(**{**asdict(self._mode), "drop": self._mode.drop - 1})
            return
        self.send(event, 1 + self._mode.copies, new_ids=self._mode.new_ids)

    def send(self, event: Thing, times: int, *, new_ids: bool) -> None:
        """Queue an event so many times; all but the first under new ids, if so asked."""
        wanting = [
            endpoint
            for endpoint in self._objects.all("webhook_endpoint")
            if endpoint["status"] == "enabled" and {"*", event["type"]} & set(endpoint["enabled_events"])
        ]
        event["pending_webhooks"] = len(wanting)
        due = time.monotonic() + self._mode.delay_s
        for number in range(times):
            sent = self._objects.again(event) if new_ids and number else event
            deliveries = [Delivery(sent, endpoint, due) for endpoint in wanting]
            self._queue += deliveries
            self._all += deliveries
        self._changed.set()

    def set_mode(self, mode: Mode) -> None:
        self._mode = mode
        self._changed.set()

    def rearrange(self, how: str, types: list[str], seed: int | None) -> int:
        """Reverse, shuffle or drop what is queued, of these types or all. Answers how many that are."""
        places = [i for i, one in enumerate(self._queue) if not types or one.event["type"] in types]
        chosen = [self._queue[place] for place in places]
        if how == "drop":
            for delivery in chosen:
                delivery.state = "dropped"
            self._queue = [delivery for delivery in self._queue if delivery.state == "queued"]
            self._ended.set()
        else:
            moved = chosen[::-1] if how == "reverse" else random.Random(seed).sample(chosen, len(chosen))
            for place, delivery in zip(places, moved, strict=True):
                self._queue[place] = delivery
        self._changed.set()
        return len(chosen)

    async def idle(self, seconds: float) -> int:
        """Wait until nothing is queued and nothing is on its way, or so long. Answers how many still are."""
        try:
            async with asyncio.timeout(seconds):
                while self.waiting():
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            pass
        return self.waiting()

    def waiting(self) -> int:
        return sum(delivery.state in ("queued", "sending", "waiting") for delivery in self._all)

    def shown(self) -> Thing:
        return {
            "deliveries": [delivery.shown() for delivery in self._all],
            "delivering": asdict(self._mode),
            "waiting": self.waiting(),
        }

    async def close(self) -> None:
        tasks = [self._worker, *self._running]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.aclose()

    async def _work(self) -> None:
        while True:
            self._changed.clear()
            while self._queue and not self._mode.paused and len(self._running) < self._mode.at_once:
                now = time.monotonic()
                due = next((one for one in self._queue if one.due <= now), None)
                if due is None:
                    wait = min(one.due for one in self._queue) - now
                    asyncio.get_running_loop().call_later(wait, self._changed.set)
                    break
                self._queue.remove(due)
                self._start(due)
            await self._changed.wait()

    def _start(self, delivery: Delivery) -> None:
        delivery.state = "sending"
        task = asyncio.create_task(self._try(delivery))
        self._running.add(task)

        def done(_task: asyncio.Task[None]) -> None:
            self._running.discard(task)
            self._changed.set()
            self._ended.set()

        task.add_done_callback(done)

    async def _try(self, delivery: Delivery) -> None:
        payload = json.dumps(delivery.event, indent=2, ensure_ascii=False)
        headers = {
            "content-type": "application/json; charset=utf-8",
            "stripe-signature": self._signature(delivery, payload),
            "user-agent": "Stripe/1.0 (a sandbox)",
        }
        try:
            answer = await self._http.post(delivery.endpoint["url"], content=payload, headers=headers)
            status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            _LOG.info("no answer to %s: %r", delivery.event["id"], error)
            status = 0
        delivery.statuses.append(status)
        if 200 <= status < 300:
            delivery.state = "delivered"
            delivery.event["pending_webhooks"] = max(0, delivery.event["pending_webhooks"] - 1)
        elif len(delivery.statuses) == _TRIES:
            delivery.state = "failed"
        else:
            delivery.state = "waiting"
            wait = min(_FIRST_WAIT_S * 2 ** (len(delivery.statuses) - 1), _LONGEST_WAIT_S)
            asyncio.get_running_loop().call_later(wait, self._requeue, delivery)

    def _requeue(self, delivery: Delivery) -> None:
        if delivery.state == "waiting":
            delivery.state = "queued"
            self._queue.append(delivery)
            self._changed.set()

    def _signature(self, delivery: Delivery, payload: str) -> str:
        at = int(time.time() + self._mode.skew_s)
        signed = [
            WebhookSignature.generate_signature_header(payload, secret, at)
            for secret in self._secrets[delivery.endpoint["id"]]
        ]
        return ",".join([f"t={at}", *(header.partition(",")[2] for header in signed)])
