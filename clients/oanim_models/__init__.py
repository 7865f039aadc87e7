"""What the published models cost, what an input asks for, and how fal.ai's queue is spoken to.

The server and the command line's direct-key mode both build on this package, so it imports neither.
"""

from __future__ import annotations

import sys

# httpx imports its own command line where it can, and with it rich and pygments: a sixth of a server's start.
# What is None here cannot be imported, and httpx is prepared for that.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
