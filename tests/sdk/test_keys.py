"""Idempotency keys."""

from __future__ import annotations

import time
import uuid

from oanim.keys import new_key


def test_a_key_is_a_uuid_of_version_7_that_begins_with_the_time() -> None:
    before = time.time_ns() // 1_000_000
    key = uuid.UUID(new_key())
    after = time.time_ns() // 1_000_000

    assert (key.version, key.variant) == (7, uuid.RFC_4122)
    assert before <= key.int >> 80 <= after


def test_no_two_keys_are_equal() -> None:
    assert len({new_key() for _ in range(1_000)}) == 1_000
