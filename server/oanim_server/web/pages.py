"""What is served over HTTP: /healthz, which asks the database, /metrics, and what capabilities add."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from oanim_server.ledger.refusals import Draining

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from prometheus_client import CollectorRegistry
    from starlette.requests import Request

log = logging.getLogger(__name__)

HEALTH_SECONDS = 2.0


def pages(
    ask_database: Callable[[], Awaitable[None]], registry: CollectorRegistry, more: Sequence[Route] = ()
) -> Starlette:
    """The application.

    :param ask_database: raises Draining when the server is about to stop, and whatever it likes when the
        database does not answer.
    :param more: routes of the capabilities.
    """

    async def healthz(_request: Request) -> Response:
        try:
            async with asyncio.timeout(HEALTH_SECONDS):
                await ask_database()
        except Draining:
            return JSONResponse({"status": "draining"}, status_code=503)
        except Exception as error:  # noqa: BLE001 - whatever it is: not well
            log.warning("the database does not answer", extra={"error": type(error).__name__})
            return JSONResponse({"status": "database away"}, status_code=503)
        return JSONResponse({"status": "ok"})

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    application = Starlette(routes=[Route("/healthz", healthz), Route("/metrics", metrics), *more])
    # It would lead to whatever host the request names.
    application.router.redirect_slashes = False
    return application
