"""A sandbox as a process of its own, and a server's generations on both databases."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from oanim_server.database.engine import Database
from tests.generation.house import Fal, House
from tests.ledger.conftest import (  # noqa: F401 - fixtures
    open_database,
    postgresql_url,
    proxy,
    sqlite_path,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextmanager
def sandbox(*options: str) -> Iterator[str]:
    """A sandbox of fal.ai that runs on whatever becomes of a server; its url."""
    process = subprocess.Popen(
        [sys.executable, "-m", "oanim_server.sandbox", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture(scope="session")
def sandbox_url() -> Iterator[str]:
    """A sandbox for all tests."""
    with sandbox() as url:
        yield url


@pytest.fixture
def slow_house(sqlite_path: Path, tmp_path: Path) -> Iterator[House]:  # noqa: F811 - the fixture of that name
    """A server's generations whose provider works for a second on each."""
    with sandbox("--pace", "1") as url:
        one = House(Database.open_sqlite(sqlite_path), tmp_path, url)
        yield one
        one.close()


@pytest.fixture
def fal(sandbox_url: str) -> Iterator[Fal]:
    """The sandbox; no fault outlives its test."""
    one = Fal(sandbox_url)
    yield one
    one.forgive()
    one.close()


@pytest.fixture
def prompt() -> str:
    """A prompt that no other test has."""
    return uuid.uuid4().hex


@pytest.fixture
def house(
    open_database: Callable[[], Database],  # noqa: F811 - the fixture of that name
    fal: Fal,
    tmp_path: Path,
) -> Iterator[House]:
    """A server's generations, once on each database."""
    one = House(open_database(), tmp_path, fal.url)
    yield one
    one.close()
