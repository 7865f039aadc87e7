from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oanim_server.sandbox import FalSandbox
from tests import loopback

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx


@pytest.fixture(scope="module")
def shared_sandbox() -> Iterator[FalSandbox]:
    with FalSandbox() as running:
        yield running


@pytest.fixture
def sandbox(shared_sandbox: FalSandbox) -> Iterator[httpx.Client]:
    """Give the sandbox its orders; none outlives its test."""
    with loopback.client(base_url=shared_sandbox.url) as control:
        yield control
        control.delete("/sandbox/faults").raise_for_status()
