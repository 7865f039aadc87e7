"""What docs/operations.md shows first makes a server, and a key that it knows."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from oanim import Client
from openanimate.metering.v1.role_pb2 import ROLE_SERVICE
from tests.e2e.conftest import BIN, OURS

pytestmark = pytest.mark.e2e

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
SERVE, OF_EVERY_TERMINAL = "oanim-server serve", "export "


def test_the_first_block_makes_a_key_of_the_server_that_it_starts(tmp_path: Path) -> None:
    block = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)[0].replace("/srv/oanim", str(tmp_path / "srv"))
    # What is run here is installed.
    first, _, other = block.replace("pip install 'oanim[server]'\n", "").partition(SERVE)
    exports = "".join(line for line in first.splitlines(keepends=True) if line.startswith(OF_EVERY_TERMINAL))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    clean |= {"HOME": str(tmp_path), "PATH": f"{BIN}:{clean['PATH']}"}
    # Where it listens is the one thing that is not as shown.
    ports = {"OANIM_PORT": "0", "OANIM_HTTP_PORT": "0"}
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            ["sh", "-euc", f"{first}exec {SERVE} --json"],
            env={**clean, **ports},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as server,
    ):
        try:
            assert server.stdout is not None
            port = json.loads(server.stdout.readline())["port"]
            made = subprocess.run(
                ["sh", "-eu"],
                input=f"{exports}{other}",
                env=clean,
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
            account_id, key = re.findall(r"^(?:account|key) +(\S+)$", made.stdout, re.MULTILINE)
            with Client(api_key=key, url=f"http://127.0.0.1:{port}") as client:
                mine = client.who_am_i()
            assert (mine.account_id, mine.api_key.role, mine.api_key.name) == (
                account_id,
                ROLE_SERVICE,
                "pipeline",
            )
        finally:
            server.terminate()
