"""Makes idempotency keys: UUIDs of version 7 (RFC 9562), so that keys sort by the time they were made.

A key names one attempt. The SDK keeps it over its own retries and never makes another for the same attempt.
"""

from __future__ import annotations

import secrets
import time

_NANOSECONDS_PER_MILLISECOND = 1_000_000
_LOW_BITS = (1 << 62) - 1


def new_key() -> str:
    """Make a key that nobody used before."""
    milliseconds = time.time_ns() // _NANOSECONDS_PER_MILLISECOND
    chance = secrets.randbits(74)  # all at once, and no UUID object: services make many keys
    version_and_random = 0x7000 | chance >> 62
    variant_and_random = 0b10 << 62 | chance & _LOW_BITS
    digits = f"{milliseconds:012x}{version_and_random:04x}{variant_and_random:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
