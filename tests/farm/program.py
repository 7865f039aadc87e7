"""`oanim-farm` with times that a test can wait for: `python -m tests.farm.program`."""

from __future__ import annotations

import os

from oanim_farm.__main__ import work
from oanim_farm.heart import Times
from oanim_farm.settings import Settings

if __name__ == "__main__":
    work(
        Settings.from_environment(os.environ),
        Times(heartbeat=0.2, answer=3.0, asking=1, recovery=0.2, leaving=5.0),
    )
