"""The product from outside: `oanim-server dev` as a process, with a sandbox and a home folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

BIN = Path(sys.executable).parent
OURS = ("OANIM_", "ANIMATE_")


class Dev(NamedTuple):
    """How to talk to it."""

    url: str
    keys: dict[str, str]
    environment: dict[str, str]

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run one of our programs to its end."""
        command: list[str | Path] = [BIN / words[0], *words[1:]]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=60, **options
        )


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """A server with its sandbox, for the session."""
    folder = tmp_path_factory.mktemp("dev")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environment = {**clean, "HOME": str(folder), "OANIM_DATA": str(folder / "data"), "NO_COLOR": "1"}
    command: list[str | Path] = [
        BIN / "oanim-server",
        "dev",
        "--port",
        "0",
        "--json",
        "--data",
        folder / "data",
    ]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            talk = json.loads(server.stdout.readline())
            environment |= {"ANIMATE_API_URL": talk["url"], "ANIMATE_API_KEY": talk["keys"]["user"]}
            yield Dev(talk["url"], talk["keys"], environment)
        finally:
            server.terminate()
