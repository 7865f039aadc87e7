"""A scripted server, and either client of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sdk.driving import Tasks, Threads
from tests.sdk.scripted import ScriptedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.sdk.driving import Driver


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANIMATE_API_KEY", "ANIMATE_API_URL", "OANIM_CA_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A server that answers what the test says."""
    with ScriptedServer() as running:
        yield running


@pytest.fixture(params=[Threads, Tasks], ids=["threads", "asyncio"])
def driver(request: pytest.FixtureRequest, server: ScriptedServer) -> Iterator[Driver]:
    """Either client of the scripted server."""
    with request.param(server.url, timeout_s=10) as driving:
        yield driving
