"""How much one account may ask for: calls a second, and streams open at once. Counted in this process."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from oanim_server.ledger.refusals import Refusal

# Above this many accounts those whose buckets are full again are forgotten.
REMEMBERED_ACCOUNTS = 10_000


@dataclass(eq=False)
class RateLimited(Refusal):
    """Too many calls, or too much at once."""

    limit: int
    retry_after_seconds: float = 1.0


@dataclass(eq=False)
class TooLarge(Refusal):
    """A message is over its limit."""

    limit_bytes: int


class Rate(NamedTuple):
    """Calls a second in the long run, and how many at once."""

    per_second: int
    burst: int


class Buckets:
    """A bucket of calls for each account, filled by the second."""

    def __init__(self) -> None:
        self._buckets: dict[int | str, list[float]] = {}

    def take(self, holder: int | str, rate: Rate, now: float) -> None:
        """Take one call from a bucket.

        :raises RateLimited: when it is empty.
        """
        bucket = self._buckets.get(holder)
        if bucket is None:
            self._buckets[holder] = [rate.burst - 1.0, now, rate.per_second, rate.burst]
            if len(self._buckets) > REMEMBERED_ACCOUNTS:
                self._forget(now)
            return
        bucket[0] = self._filled(bucket, rate, now)
        bucket[1] = max(bucket[1], now)
        self._refuse_empty(bucket[0], rate)
        bucket[0] -= 1.0

    def spend(self, holder: int | str, rate: Rate, count: int, now: float) -> float:
        """Take a number of calls from a bucket that may run dry; how many seconds to wait for them."""
        bucket = self._buckets.setdefault(holder, [float(rate.burst), now, rate.per_second, rate.burst])
        bucket[0] = self._filled(bucket, rate, now) - count
        bucket[1] = max(bucket[1], now)
        return max(0.0, -bucket[0]) / rate.per_second

    def check(self, holder: int | str, rate: Rate, now: float) -> None:
        """See that there is one to take.

        :raises RateLimited: when the bucket is empty.
        """
        bucket = self._buckets.get(holder)
        if bucket is not None:
            self._refuse_empty(self._filled(bucket, rate, now), rate)

    @staticmethod
    def _filled(bucket: list[float], rate: Rate, now: float) -> float:
        # A call that waited for its key to be looked up brings the time at which it began.
        return min(bucket[0] + max(0.0, now - bucket[1]) * rate.per_second, rate.burst)

    @staticmethod
    def _refuse_empty(tokens: float, rate: Rate) -> None:
        if tokens < 1.0:
            raise RateLimited(limit=rate.per_second, retry_after_seconds=(1.0 - tokens) / rate.per_second)

    def _forget(self, now: float) -> None:
        full = [
            holder
            for holder, (tokens, at, per_second, burst) in self._buckets.items()
            if tokens + (now - at) * per_second >= burst
        ]
        for holder in full:
            del self._buckets[holder]


class Streams:
    """How many streams each account has open, and each address without a key."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: dict[int | str, int] = {}

    @property
    def total(self) -> int:
        """How many are open in all."""
        return sum(self._open.values())

    def enter(self, holder: int | str) -> None:
        """Count one more.

        :raises RateLimited: when there are as many as may be.
        """
        count = self._open.get(holder, 0)
        if count >= self._limit:
            raise RateLimited(limit=self._limit)
        self._open[holder] = count + 1

    def leave(self, holder: int | str) -> None:
        """Count one less."""
        count = self._open[holder] - 1
        if count:
            self._open[holder] = count
        else:
            del self._open[holder]


def seconds(value: float) -> int:
    """Whole seconds to wait, at least one: what people and schedulers are told."""
    return max(1, math.ceil(value))
