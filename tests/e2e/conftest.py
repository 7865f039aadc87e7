"""The product from outside: `oanim-server dev` as a process, with a sandbox and a home folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

BIN = Path(sys.executable).parent
OURS = ("OANIM_", "ANIMATE_")
# Where examples say that `make dev` listens.
SHOWN_URL = "http://127.0.0.1:50051"


class Dev(NamedTuple):
    """How to talk to it."""

    url: str
    keys: dict[str, str]
    environment: dict[str, str]
    sandbox_url: str

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run one of our programs to its end."""
        command: list[str | Path] = [BIN / words[0], *words[1:]]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=60, **options
        )

    def follow(
        self, example: str, home: Path, *, timeout_seconds: float = 100, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Do what an example for a shell says, as a newcomer: nothing set, and nothing in the home."""
        clean = {name: value for name, value in self.environment.items() if not name.startswith(OURS)}
        clean |= {"HOME": str(home), "PATH": f"{BIN}:{clean['PATH']}", **variables}
        for shown, meant in ((SHOWN_URL, self.url), ("you@example.com", f"{uuid.uuid4()}@example.com")):
            example = example.replace(shown, meant)
        return subprocess.run(
            ["sh", "-eu"],
            input=example,
            env=clean,
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_seconds,
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
            yield Dev(talk["url"], talk["keys"], environment, talk["sandbox_url"])
        finally:
            server.terminate()
