"""Decides whether a failed call is made again, and after how long.

Never past the call's deadline, and always with the same request, its idempotency key included. UNAVAILABLE
and ABORTED of unary calls are grpc's to repeat (channels.py); what is left is RESOURCE_EXHAUSTED that names a
time, streams, transfers of files, and a metered block's calls.
"""

from __future__ import annotations

import math
import random
import time
from typing import TYPE_CHECKING

import grpc

from oanim.channels import MAX_ATTEMPTS

if TYPE_CHECKING:
    from oanim.errors import OanimError

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_JITTER = 0.2
_REPEATED_BY_GRPC = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED})
_PASSING = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.DEADLINE_EXCEEDED}
)


class Deadline:
    """The instant after which nobody waits for a call."""

    def __init__(self, timeout_s: float) -> None:
        self._at = time.monotonic() + timeout_s

    def timeout_s(self) -> float | None:
        """Answer what is left, as grpc wants it: None is for ever."""
        left = self.left_s()
        return None if math.isinf(left) else left

    def left_s(self) -> float:
        """Answer what is left; infinity is for ever."""
        return max(self._at - time.monotonic(), 0.0)

    def allows(self, pause_s: float) -> bool:
        """Whether a call made after this pause could still be answered."""
        return time.monotonic() + pause_s < self._at


def backoff_s(failures: int) -> float:
    """Answer how long to wait after so many failures in a row, the first being 1."""
    pause = min(_FIRST_PAUSE_S * (1 << min(failures - 1, 10)), _LONGEST_PAUSE_S)
    return pause * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311  (spreads callers, guards nothing)


def is_repeatable(error: OanimError) -> bool:
    """Whether the same request, made again a little later, may well be answered."""
    if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return error.retry_after_s is not None
    if error.code is grpc.StatusCode.CANCELLED:
        # A server that stops cuts off what still runs; nobody cancels a call of ours and waits for it.
        return not error.reason
    return error.code in _PASSING


class Attempts:
    """The attempts of one call: the pause before the next, or None for the error to be raised."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._failures = 0
        self._failing_since = 0.0

    def pause_s(self, error: OanimError) -> float | None:
        """Decide on a call that was refused."""
        self._failed()
        exhausted = error.code is grpc.StatusCode.RESOURCE_EXHAUSTED and error.retry_after_s is not None
        if not exhausted or self._failures >= MAX_ATTEMPTS:
            return None
        return self._within(error)

    def pause_before_opening_again_s(self, error: OanimError) -> float | None:
        """Decide on a stream that ended before its first answer: as on a unary call, grpc's part included."""
        if error.code not in _REPEATED_BY_GRPC:
            return self.pause_s(error)
        self._failed()
        return self._within(error) if self._failures < MAX_ATTEMPTS else None

    def pause_before_transferring_anew_s(self, error: OanimError) -> float | None:
        """Decide on a file's transfer, which grpc does not repeat."""
        self._failed()
        return self._within(error) if self._failures < MAX_ATTEMPTS and is_repeatable(error) else None

    def pause_before_repeating_s(self, error: OanimError) -> float | None:
        """Decide on a call that is to be answered whatever it takes, as often as the deadline allows."""
        self._failed()
        return self._within(error) if is_repeatable(error) else None

    def went_on(self) -> None:
        """Note that the server answers: the next failure is a first one."""
        self._failures = 0

    def failing_for_s(self) -> float:
        """Answer how long ago the first failure of those in a row was."""
        return time.monotonic() - self._failing_since

    def _failed(self) -> None:
        if self._failures == 0:
            self._failing_since = time.monotonic()
        self._failures += 1

    def _within(self, error: OanimError) -> float | None:
        pause = max(backoff_s(self._failures), error.retry_after_s or 0.0)
        return pause if self._deadline.allows(pause) else None
