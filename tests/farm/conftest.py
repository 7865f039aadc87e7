"""A worker beside a service: what it renders with, and the folders that it works in."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.farm.scene import Scene
from tests.farm.working import Working, remove
from tests.ledger.conftest import postgresql_url  # noqa: F401 - fixtures
from tests.sdk.scripted import ScriptedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

STANDIN = Path(__file__).with_name("standin.py")
PACKAGE = json.dumps({"version": "4.0.527", "bin": {"remotion": "remotion.py"}})


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PATH on which npm installs the stand-in for Remotion, and node runs it."""
    folder = tmp_path_factory.mktemp("programs")
    package = folder / "package.json"
    package.write_text(PACKAGE)
    scripts = {
        "node": f'exec {sys.executable} "$@"',
        "npm": f"mkdir -p node_modules/@remotion/cli && cp {package} {STANDIN} node_modules/@remotion/cli && "
        "mv node_modules/@remotion/cli/standin.py node_modules/@remotion/cli/remotion.py",
        "chromium": "exit 1",
    }
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def with_standin(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what is started here find the stand-in."""
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def farm_folder() -> Iterator[Path]:
    """A folder with a short path, as a worker wants it."""
    folder = Path(tempfile.mkdtemp(prefix="farm-", dir="/tmp"))
    yield folder
    remove(folder)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A service that answers what the test says."""
    with ScriptedServer() as running:
        yield running


@pytest.fixture
def working(with_standin: None, farm_folder: Path, server: ScriptedServer) -> Iterator[Working]:
    """A worker of the scripted service, in threads of this process."""
    with Working(server, farm_folder) as one:
        yield one


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.torture)])
def scene(
    request: pytest.FixtureRequest, with_standin: None, tmp_path: Path, farm_folder: Path, free_port: int
) -> Iterator[Scene]:
    """A service that is not started yet; the torture has it on PostgreSQL, too."""
    environment = {}
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgresql_url")
        environment = {"OANIM_DATABASE_URL": url, "OANIM_POSTGRESQL_UNSAFE": "1"}
    with Scene(environment, tmp_path, farm_folder, free_port) as one:
        yield one
