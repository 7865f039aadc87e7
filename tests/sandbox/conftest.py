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
def fal(shared_sandbox: FalSandbox) -> Iterator[httpx.Client]:
    """Speak to the sandbox as a caller with a key; no fault outlives its test."""
    headers = {"Authorization": "Key id:secret"}
    with httpx.Client(base_url=shared_sandbox.url, headers=headers, timeout=30, trust_env=False) as client:
        yield client
        client.delete("/sandbox/faults").raise_for_status()
