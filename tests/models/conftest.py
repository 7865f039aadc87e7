from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from oanim_server.sandbox import FalSandbox

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def shared_sandbox() -> Iterator[FalSandbox]:
    with FalSandbox() as running:
        yield running


@pytest.fixture
def sandbox(shared_sandbox: FalSandbox) -> Iterator[httpx.Client]:
    """Give the sandbox its orders; none outlives its test."""
    with httpx.Client(base_url=shared_sandbox.url, timeout=30, trust_env=False) as control:
        yield control
        control.delete("/sandbox/faults").raise_for_status()
