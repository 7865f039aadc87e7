"""`oanim-server serve --json` with leases that are short: `python -m tests.farm.serving SECONDS`."""

from __future__ import annotations

import sys

from oanim_server import app
from oanim_server.__main__ import main
from oanim_server.ledger.values import SECOND
from oanim_server.rendering.values import TIMES

if __name__ == "__main__":
    vars(app)["TIMES"] = TIMES._replace(lease=int(float(sys.argv[1]) * SECOND))
    main(["serve", "--json"])
