"""Makes idempotency keys: UUIDs of version 7 (RFC 9562), so that keys sort by the time they were made.

A key names one attempt. The SDK keeps it over its own retries and never makes another for the same attempt.
"""

from __future__ import annotations

import secrets
import time
import uuid

_NANOSECONDS_PER_MILLISECOND = 1_000_000


def new_key() -> str:
    """Make a key that nobody used before."""
    milliseconds = time.time_ns() // _NANOSECONDS_PER_MILLISECOND
    version_and_random = 0x7000 | secrets.randbits(12)
    variant_and_random = 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=milliseconds << 80 | version_and_random << 64 | variant_and_random))
