"""What every test may ask for: a real PostgreSQL and a free port."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from tests.postgresql import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

# A program that runs as another user (PostgreSQL, for root) is forked, not spawned, and gRPC would set itself
# up again in the child before it becomes that program: now and then it crashes there.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"


@pytest.fixture(scope="session")
def postgresql_cluster() -> Iterator[Cluster]:
    """One PostgreSQL for the session, without its durability: these tests cut no power.

    A server under test refuses fsync = off unless it is told to accept it; a test of that refusal, or of
    a database that goes away, starts a `Cluster` of its own.
    """
    cluster = Cluster({"fsync": "off", "full_page_writes": "off", "max_connections": "200"})
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture
def free_port() -> int:
    """A TCP port on loopback that nobody listened on a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
