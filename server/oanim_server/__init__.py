"""The server of Open Animate: prepaid credits, held before work starts and charged by what it used."""

from __future__ import annotations

import sys

# For calls that wait stripe imports the first client it finds, a fourteenth of a start; ours do not wait.
# What is None here cannot be imported, and stripe is prepared for that.
sys.modules.setdefault("requests", None)  # type: ignore[arg-type]
