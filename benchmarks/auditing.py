"""`oanim-server audit` on what a run has filled: nothing counts unless everything adds up."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.server import environment

if TYPE_CHECKING:
    from benchmarks.databases import Store


def audit(store: Store) -> str:
    """What the command says; CalledProcessError when it found anything."""
    said = subprocess.run(
        [sys.executable, "-m", "oanim_server", "audit"],
        env=environment(**store.settings),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return f"{store.name}: {said.stdout.strip()}"
