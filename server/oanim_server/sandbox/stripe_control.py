"""What tests and people tell the sandbox of Stripe to do that Stripe's API has no call for.

Every order is a POST of a JSON object under /sandbox and answers the object it changed, or nothing. `of` and
the id of a payment are those of a session or of its payment intent; a refund's or a dispute's `of` may be a
charge's.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from itertools import chain
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from oanim_server.sandbox.faults import parse
from oanim_server.sandbox.stripe_api import FAULTS
from oanim_server.sandbox.stripe_forms import Params, Refused, Thing
from oanim_server.sandbox.stripe_webhooks import MOST_AT_ONCE, Mode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from oanim_server.sandbox.faults import Faults
    from oanim_server.sandbox.stripe_account import Account

_REQUIRED = object()
_KINDS = ("checkout.session", "payment_intent", "charge", "refund", "dispute", "event", "webhook_endpoint")


class Control:
    def __init__(self, account: Account, faults: Faults) -> None:
        self._account = account
        self._faults = faults
        told: dict[str, Callable[..., Thing | None]] = {
            "faults": self._add_fault,
            "webhooks": self._set_webhooks,
            "delivering": self._set_mode,
            "queue": self._rearrange,
            "events/{id}/send": self._send,
            "sessions/{id}/pay": self._pay,
            "sessions/{id}/decline": self._decline,
            "sessions/{id}/pay-later": self._pay_later,
            "sessions/{id}/abandon": self._abandon,
            "sessions/{id}/expire-in": self._expire_in,
            "payments/{id}/settle": self._settle,
            "refunds": self._refund,
            "refunds/{id}": self._move_refund,
            "disputes": self._dispute,
            "disputes/{id}/withdraw": self._withdraw,
            "disputes/{id}/close": self._close_dispute,
            "disputes/{id}/reinstate": self._reinstate,
        }
        self.routes = [
            Route("/sandbox/state", self._state, methods=["GET"]),
            Route("/sandbox/faults", self._clear_faults, methods=["DELETE"]),
            Route("/sandbox/queue/wait", self._wait, methods=["POST"]),
            *(Route(f"/sandbox/{path}", _endpoint(work), methods=["POST"]) for path, work in told.items()),
        ]

    async def _state(self, _request: Request) -> Response:
        """Answer every object, oldest first, under its kind's plural."""
        objects = self._account.objects
        things = {f"{kind.rpartition('.')[2]}s": objects.all(kind) for kind in _KINDS}
        return JSONResponse({**things, **self._account.webhooks.shown()})

    async def _clear_faults(self, _request: Request) -> Response:
        self._faults.clear()
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def _wait(self, request: Request) -> Response:
        """Answer when every delivery has ended, or the time is over."""
        try:
            asked = _asked(await request.body(), seconds=(float, 10.0))
        except ValueError as error:
            return JSONResponse({"detail": str(error)}, HTTPStatus.BAD_REQUEST)
        return JSONResponse({"waiting": await self._account.webhooks.idle(asked["seconds"])})

    def _add_fault(self, body: bytes) -> None:
        self._faults.add(parse(json.loads(body), FAULTS))

    def _set_webhooks(self, body: bytes) -> Thing:
        """Send events here and nowhere else. Without secrets nothing is signed."""
        asked = _asked(body, endpoints=(list,))
        endpoints = [
            _asked(endpoint, url=(str,), secrets=(list,), types=(list, ["*"]))
            for endpoint in asked["endpoints"]
        ]
        wanted = [(one["url"], one["secrets"], one["types"]) for one in endpoints]
        for url, *texts in wanted:
            Params({"url": url}).url("url")
            if not all(isinstance(text, str) for text in chain(*texts)):
                raise ValueError("secrets and types are texts")
        return {"endpoints": self._account.webhooks.replace(wanted)}

    def _set_mode(self, body: bytes) -> None:
        """Deliver so from now on; what is not said is as at the start."""
        asked = _asked(
            body,
            paused=(bool, False),
            copies=(int, 0),
            new_ids=(bool, False),
            delay_s=(float, 0.0),
            at_once=(int, 1),
            drop=(int, 0),
            skew_s=(float, 0.0),
        )
        if not 1 <= asked["at_once"] <= MOST_AT_ONCE:
            raise ValueError(f"at_once is 1 to {MOST_AT_ONCE}")
        self._account.webhooks.set_mode(Mode(**asked))

    def _rearrange(self, body: bytes) -> Thing:
        asked = _asked(body, do=(str,), types=(list, []), seed=(int, None))
        if asked["do"] not in ("reverse", "shuffle", "drop"):
            raise ValueError("do is reverse, shuffle or drop")
        return {"count": self._account.webhooks.rearrange(asked["do"], asked["types"], asked["seed"])}

    def _send(self, body: bytes, identity: str) -> Thing:
        asked = _asked(body, times=(int, 1), new_ids=(bool, False))
        event = self._account.objects.get("event", identity)
        first = self._account.objects.again(event) if asked["new_ids"] else event
        self._account.webhooks.send(first, asked["times"], new_ids=asked["new_ids"])
        return event

    def _pay(self, body: bytes, identity: str) -> Thing:
        asked = _asked(body, payment_method=(str, "pm_card_visa"), email=(str, None), fx_rate=(str, None))
        self._account.checkout.get(identity)
        method = self._account.methods.find(asked["payment_method"])
        return self._account.checkout.pay(identity, method, asked["email"], asked["fx_rate"])

    def _decline(self, body: bytes, identity: str) -> Thing:
        try:
            self._pay(
                json.dumps({**_asked(body), "payment_method": "pm_card_chargeDeclined"}).encode(), identity
            )
        except Refused as error:
            if error.status != HTTPStatus.PAYMENT_REQUIRED:
                raise
        return self._account.checkout.get(identity)

    def _pay_later(self, body: bytes, identity: str) -> Thing:
        return self._account.checkout.pay_later(identity, _asked(body, email=(str, None))["email"])

    def _abandon(self, body: bytes, identity: str) -> Thing:
        _asked(body)
        return self._account.checkout.get(identity)

    def _expire_in(self, body: bytes, identity: str) -> Thing:
        return self._account.checkout.expire_in(identity, _asked(body, seconds=(float,))["seconds"])

    def _settle(self, body: bytes, identity: str) -> Thing:
        """End a session's or an intent's payment that is processing, or whose owner was asked."""
        paid = _asked(body, paid=(bool,))["paid"]
        intent = self._account.intent_of(identity)
        self._account.payments.settle(intent, paid=paid)
        return intent

    def _refund(self, body: bytes) -> Thing:
        asked = _asked(
            body,
            of=(str,),
            amount=(int, None),
            status=(str, "succeeded"),
            metadata=(dict, {}),
            reason=(str, None),
        )
        if asked["status"] not in ("pending", "succeeded"):
            raise ValueError("status is pending or succeeded")
        charge = self._account.charge_of(asked.pop("of"))
        return self._account.reversals.refund(charge, asked.pop("amount"), **asked)

    def _move_refund(self, body: bytes, identity: str) -> Thing:
        return self._account.reversals.move_refund(identity, _asked(body, status=(str,))["status"])

    def _dispute(self, body: bytes) -> Thing:
        asked = _asked(
            body,
            of=(str,),
            amount=(int, None),
            inquiry=(bool, False),
            withdraw=(bool, True),
            reason=(str, "fraudulent"),
        )
        charge = self._account.charge_of(asked.pop("of"))
        return self._account.reversals.open_dispute(charge, asked.pop("amount"), **asked)

    def _withdraw(self, body: bytes, identity: str) -> Thing:
        _asked(body)
        return self._account.reversals.withdraw(identity)

    def _close_dispute(self, body: bytes, identity: str) -> Thing:
        asked = _asked(body, status=(str,), reinstate=(bool, True))
        return self._account.reversals.close_dispute(identity, asked["status"], reinstate=asked["reinstate"])

    def _reinstate(self, body: bytes, identity: str) -> Thing:
        _asked(body)
        return self._account.reversals.reinstate(identity)


def _endpoint(work: Callable[..., Thing | None]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            answer = work(await request.body(), *request.path_params.values())
        except Refused as error:
            return JSONResponse({"detail": str(error)}, error.status)
        except ValueError as error:
            return JSONResponse({"detail": str(error)}, HTTPStatus.BAD_REQUEST)
        if answer is None:
            return Response(status_code=HTTPStatus.NO_CONTENT)
        return JSONResponse(answer)

    return endpoint


def _asked(body: Any, **fields: tuple[Any, ...]) -> Thing:
    """Read an object of these fields, each a type and, unless it must be there, a default."""
    content = (json.loads(body) if body else {}) if isinstance(body, bytes) else body
    if not isinstance(content, dict) or set(content) - set(fields):
        raise ValueError(f"an object with {', '.join(fields) or 'nothing in it'}")
    found = {}
    for name, (kind, *default) in fields.items():
        value = content.get(name, default[0] if default else _REQUIRED)
        if value is _REQUIRED:
            raise ValueError(f"{name} is needed")
        fits = isinstance(value, (int, float) if kind is float else kind)
        if not (fits and isinstance(value, bool) == (kind is bool)) and (value is not None or not default):
            raise ValueError(f"{name} is {kind.__name__}")
        if kind in (int, float) and name != "skew_s" and value is not None and value < 0:
            raise ValueError(f"{name} is 0 or more")
        found[name] = value
    return found
