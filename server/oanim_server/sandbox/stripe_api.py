"""The API's edge of the sandbox of Stripe: keys, idempotency, faults, and errors in Stripe's shape.

A call runs without a break between its first look and its last change, so calls are atomic; an
idempotency key remembers the answer, an error included, once the call itself has begun.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import stripe
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from oanim_server.sandbox.hanging import hang_up
from oanim_server.sandbox.stripe_calls import calls
from oanim_server.sandbox.stripe_forms import BadParameter, Params, Refused, Thing, decode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from oanim_server.sandbox.faults import Fault, Faults
    from oanim_server.sandbox.hanging import Patience
    from oanim_server.sandbox.stripe_account import Account

# "500" refuses at the door and is forgotten; "500_after" does the work, answers that it failed, and the
# idempotency key answers so from then on.
FAULTS = {"api": {"drop_before", "drop_after", "late", "hang", "429", "500", "500_after"}}
_LONGEST_KEY = 255
_FAILED = Refused("An unknown error occurred.", status=500, kind="api_error")


@dataclass(slots=True, eq=False)
class _Answer:
    """What an idempotency key stands for; `status` 0 while its call runs."""

    request_id: str
    asked: tuple[str, str, str]
    status: int = 0
    body: Thing | None = None
    in_use: bool = True


class Api:
    def __init__(self, account: Account, faults: Faults, patience: Patience) -> None:
        self._account = account
        self._faults = faults
        self._patience = patience
        self._keys: dict[str, _Answer] = {}
        self.routes = [
            *(Route(path, self._endpoint(work), methods=[method]) for method, path, work in calls(account)),
            Route("/{path:path}", self._unknown, methods=["GET", "POST", "DELETE", "PUT", "PATCH"]),
        ]

    def _endpoint(self, work: Callable[..., Thing]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            return await self._answer(request, work)

        return endpoint

    async def _answer(self, request: Request, work: Callable[..., Thing]) -> Response:
        posted = request.method == "POST"
        text = (await request.body()).decode(errors="replace") if posted else request.url.query
        request_id = f"req_{secrets.token_hex(7)}"
        try:
            _authenticate(request)
            params = Params(decode(text))
            about = f"{request.method} {request.url.path} {json.dumps(params.raw(), ensure_ascii=False)}"
            fault = self._faults.take("api", about)
            if fault and fault.do in ("drop_before", "429", "500"):
                return await self._strike(request, fault)
            answer, replayed = self._once(request, request_id, params, work)
        except Refused as error:
            return _reply(_Answer(request_id, ("", "", ""), error.status, error.body), request)
        if fault and fault.do == "500_after":
            answer.status, answer.body = _FAILED.status, _FAILED.body
        if fault and fault.do == "late":
            await self._patience.rest(fault.seconds)
        answer.in_use = False
        if fault and fault.do in ("drop_after", "hang"):
            return await self._strike(request, fault)
        return _reply(answer, request, replayed=replayed)

    def _once(
        self, request: Request, request_id: str, params: Params, work: Callable[..., Thing]
    ) -> tuple[_Answer, bool]:
        """Do it, or find what was answered under this key; true with the latter."""
        key = request.headers.get("idempotency-key", "") if request.method == "POST" else ""
        if len(key) > _LONGEST_KEY:
            raise BadParameter(f"An idempotency key has at most {_LONGEST_KEY} characters.")
        asked = (request.method, request.url.path, json.dumps(params.raw(), sort_keys=True))
        known = self._keys.get(key)
        if known:
            _compare(known, asked, key)
            return known, True
        answer = _Answer(request_id, asked)
        if key:
            self._keys[key] = answer
        objects = self._account.objects
        objects.request = {"id": request_id, "idempotency_key": key or None}
        try:
            made = work(params, *request.path_params.values())
            answer.status, answer.body = 200, objects.shown(made, params.texts("expand"))
        except BadParameter:
            self._keys.pop(key, None)
            raise
        except Refused as error:
            answer.status, answer.body = error.status, error.body
        except BaseException:
            self._keys.pop(key, None)
            raise
        finally:
            objects.request = {"id": None, "idempotency_key": None}
        return answer, False

    async def _strike(self, request: Request, fault: Fault) -> Response:
        match fault.do:
            case "429":
                refused = Refused("Too many requests hit the API too quickly.", status=429, code="rate_limit")
                return JSONResponse(refused.body, refused.status)
            case "500":
                return JSONResponse(_FAILED.body, _FAILED.status)
            case "hang":
                await self._patience.until_gone(request)
            case _:
                await hang_up(request)
        return Response()

    async def _unknown(self, request: Request) -> Response:
        message = f"Unrecognized request URL ({request.method}: {request.url.path})."
        refused = Refused(message, status=404)
        return JSONResponse(refused.body, refused.status)


def _authenticate(request: Request) -> None:
    """Take any key of Stripe's test mode, as a bearer or as the user of basic authentication."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            key = base64.b64decode(key, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            key = ""
    if scheme.lower() not in ("basic", "bearer") or not key.strip():
        raise Refused("You did not provide an API key.", status=401)
    if not key.startswith(("sk_test_", "rk_test_")):
        raise Refused("Invalid API Key provided: this sandbox takes sk_test_ keys.", status=401)


def _compare(known: _Answer, asked: tuple[str, str, str], key: str) -> None:
    if known.asked[:2] != asked[:2]:
        message = (
            "Keys for idempotent requests can only be used for the same endpoint they were first used for "
            f"('{known.asked[1]}'). Try using a key other than '{key}'."
        )
        raise Refused(message, kind="idempotency_error")
    if known.asked != asked:
        message = (
            "Keys for idempotent requests can only be used with the same parameters they were first used "
            f"with. Try using a key other than '{key}' if you meant to execute a different request."
        )
        raise Refused(message, kind="idempotency_error")
    if known.in_use:
        message = f"There is currently another in-progress request using this Idempotent Key ('{key}')."
        raise Refused(message, status=409, kind="idempotency_error", code="idempotency_key_in_use")


def _reply(answer: _Answer, request: Request, *, replayed: bool = False) -> Response:
    headers = {"request-id": answer.request_id, "stripe-version": stripe.api_version}
    key = request.headers.get("idempotency-key")
    if key:
        headers["idempotency-key"] = key
    if replayed:
        headers |= {"idempotent-replayed": "true", "original-request": answer.request_id}
    return JSONResponse(answer.body, answer.status, headers)
