"""What every test may ask for: a real PostgreSQL, a free port, a Remotion and a browser."""

from __future__ import annotations

import gc
import os
import socket
from typing import TYPE_CHECKING

import pytest

from tests import videos
from tests.postgresql import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oanim_remotion.installation import Installation

# A program that runs as another user (PostgreSQL, for root) is forked, not spawned, and gRPC would set itself
# up again in the child before it becomes that program: now and then it crashes there.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

# Where single tests take a minute.
LONG = {"benchmarks", "e2e", "farm", "remotion"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes long first: what its workers share at the end of a run has to be short."""
    items.sort(key=lambda item: item.path.parent.name not in LONG)


def pytest_collection_finish() -> None:
    """Have no garbage collection look through what was collected: five thousand tests live until the end."""
    gc.freeze()


@pytest.fixture(scope="session")
def postgresql_cluster() -> Iterator[Cluster]:
    """One PostgreSQL for the session, without its durability: these tests cut no power.

    A server under test refuses fsync = off unless it is told to accept it; a test of that refusal, or of
    a database that goes away, starts a `Cluster` of its own.
    """
    without_durability = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "256MB"}
    with Cluster({**without_durability, "max_connections": "200"}) as cluster:
        yield cluster


@pytest.fixture
def free_port() -> int:
    """A TCP port on loopback that nobody listened on a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def browser() -> Path:
    """A browser to render with; without one, or without node, the test is skipped."""
    return videos.present_browser()


@pytest.fixture(scope="session")
def remotion(browser: Path) -> Installation:
    """The Remotion of the pinned versions, installed once."""
    return videos.install_once()


@pytest.fixture(scope="session")
def bundle(remotion: Installation, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The tests' own animation, bundled once for all processes of the session."""
    shared = videos.shared_folder(tmp_path_factory, worker_id)
    return videos.bundle_of_the_tests(remotion, shared)
