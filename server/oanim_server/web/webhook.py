"""Stripe's webhook: who is speaking is checked on the raw bytes, then what is said is applied, then answered.

2xx is said after the commit alone: for everything else Stripe sends the event again. A timestamp in the
future is refused like one in the past, which Stripe's SDK does not do.
"""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING

import stripe
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.routing import Route

from oanim_server.checkout.words import event_of
from oanim_server.database.engine import is_away, is_conflict
from oanim_server.ledger.refusals import OutcomeUnknown, Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from oanim_server.checkout.counts import Counts
    from oanim_server.checkout.values import Event, Standing

log = logging.getLogger(__name__)

PATH = "/stripe/webhook"
MAX_BYTES = 256 * 1024
# What is too long is read on for so much: a connection that is closed before would lose the answer.
_READ_BYTES = 1024 * 1024
TOLERANCE_SECONDS = 300


class Webhook:
    """Takes what Stripe sends.

    :param receive: applies an event; it is durable when this returns.
    :param secrets: what Stripe signs with; several while one is rolled.
    """

    def __init__(
        self,
        receive: Callable[[Event], Awaitable[Standing | None]],
        secrets: Sequence[str],
        counts: Counts,
    ) -> None:
        self._receive = receive
        self._secrets = secrets
        self._counts = counts
        self.route = Route(PATH, self._take, methods=["POST"])

    async def _take(self, request: Request) -> Response:
        try:
            payload = await _body(request)
        except ClientDisconnect:
            return self._refused(400, "the body broke off")
        if payload is None:
            return self._refused(413, "the body has more than 256 KB")
        if not self._is_signed(payload, request.headers.get("stripe-signature", "")):
            return self._refused(400, "the signature is not Stripe's, or not of now")
        try:
            event = event_of(json.loads(payload))
        except (ValueError, RecursionError, AttributeError):
            return self._refused(400, "the body is no event")
        try:
            standing = await self._receive(event)
        except Exception as error:  # noqa: BLE001 - whatever it is, Stripe is answered
            return _failed(event, error)
        return JSONResponse({"standing": standing.name.lower() if standing is not None else "known"})

    def _refused(self, status_code: int, why: str) -> Response:
        self._counts.rejected += 1
        return JSONResponse({"error": why}, status_code=status_code)

    def _is_signed(self, payload: bytes, header: str) -> bool:
        try:
            text = payload.decode()
            # One time: of several, Stripe's SDK would believe the first.
            [at] = [part[2:] for part in header.split(",") if part.startswith("t=")]
            if not header.isascii() or int(at) > time.time() + TOLERANCE_SECONDS:
                return False
        except ValueError:
            return False
        return any(self._is_by(secret, text, header) for secret in self._secrets)

    @staticmethod
    def _is_by(secret: str, text: str, header: str) -> bool:
        try:
            return bool(stripe.WebhookSignature.verify_header(text, header, secret, TOLERANCE_SECONDS))
        except (stripe.SignatureVerificationError, ValueError):
            return False


def _failed(event: Event, error: Exception) -> Response:
    """What is said so that Stripe sends the event again."""
    if isinstance(error, Refusal | OutcomeUnknown) or is_away(error) or is_conflict(error):
        extra = {"event": event.event_id, "error": type(error).__name__}
        log.warning("an event could not be applied, and will be sent again", extra=extra)
        return JSONResponse({"error": "try again"}, status_code=503)
    log.error("an event could not be applied", extra={"event": event.event_id}, exc_info=error)
    return JSONResponse({"error": "a fault of ours"}, status_code=500)


async def _body(request: Request) -> bytes | None:
    """The body; None when it is too long.

    :raises ClientDisconnect: when it breaks off.
    """
    if (length := request.headers.get("content-length", "0")).isdigit() and int(length) > _READ_BYTES:
        return None
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MAX_BYTES:
            body += chunk
        elif size > _READ_BYTES:
            break
    return bytes(body) if size <= MAX_BYTES else None
