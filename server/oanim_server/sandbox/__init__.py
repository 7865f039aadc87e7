"""A local stand-in for fal.ai: it speaks the queue's protocol, makes real files, and fails when told to.

Nothing in a prompt makes it fail; only faults that were asked for do.
"""

from __future__ import annotations

from oanim_server.sandbox.serving import Sandbox

__all__ = ["Sandbox"]
