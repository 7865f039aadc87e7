"""Local stand-ins for providers: they speak the real protocols, pay nothing, and fail when told to.

Nothing in a request makes them fail, but what the provider itself documents as made to fail; only faults
that were asked for do.
"""

from __future__ import annotations

from oanim_server.sandbox.fal import FalSandbox
from oanim_server.sandbox.stripe import StripeSandbox

__all__ = ["FalSandbox", "StripeSandbox"]
