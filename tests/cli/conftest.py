"""A user of the CLI, and a fal.ai of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oanim_server.sandbox import FalSandbox
from tests import loopback
from tests.cli.running import Cli
from tests.sdk.scripted import ScriptedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """A user who has nothing yet."""
    home, folder = tmp_path / "home", tmp_path / "folder"
    home.mkdir()
    folder.mkdir()
    return Cli(home, folder)


@pytest.fixture
def scripted(cli: Cli) -> Iterator[ScriptedServer]:
    """A service that answers the user what the test says."""
    with ScriptedServer() as running:
        cli.variables |= {"ANIMATE_API_KEY": "anim_key", "ANIMATE_API_URL": running.url}
        yield running


@pytest.fixture(scope="module")
def shared_sandbox() -> Iterator[FalSandbox]:
    with FalSandbox() as running:
        yield running


@pytest.fixture
def fal(shared_sandbox: FalSandbox) -> Iterator[httpx.Client]:
    """The sandbox's control side; no fault outlives its test."""
    headers = {"Authorization": "Key id:secret"}
    with loopback.client(base_url=shared_sandbox.url, headers=headers) as client:
        yield client
        client.delete("/sandbox/faults").raise_for_status()


@pytest.fixture
def direct(cli: Cli, shared_sandbox: FalSandbox) -> Cli:
    """A user with a fal.ai key of their own."""
    cli.variables |= {"ANIMATE_FAL_KEY": "id:secret", "ANIMATE_FAL_URL": shared_sandbox.url}
    return cli
