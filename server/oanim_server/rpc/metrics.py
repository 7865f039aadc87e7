"""Counts of calls for Prometheus: plain integers on the event loop, put into words when somebody asks."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from oanim_server.rpc.admission import Streams

_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class MethodCounts:
    """The calls of one method that have ended: by code, by how long they took, and for how long in all."""

    __slots__ = ("buckets", "codes", "seconds")

    def __init__(self) -> None:
        self.codes: Counter[str] = Counter()
        self.buckets = [0] * (len(_BOUNDS) + 1)
        self.seconds = 0.0

    def add(self, code: str, seconds: float) -> None:
        """Count one call."""
        self.codes[code] += 1
        self.buckets[bisect_left(_BOUNDS, seconds)] += 1
        self.seconds += seconds


class CallCounts(Collector):
    """The counts of every method, as Prometheus reads them."""

    def __init__(self, streams: Streams) -> None:
        self.in_flight = 0
        self._streams = streams
        self._methods: dict[str, MethodCounts] = {}

    def of(self, method: str) -> MethodCounts:
        """The counts of one method."""
        return self._methods.setdefault(method, MethodCounts())

    def collect(self) -> Iterator[Metric]:
        """What is known now."""
        calls = CounterMetricFamily("oanim_calls", "Calls that have ended.", labels=["method", "code"])
        seconds = HistogramMetricFamily("oanim_call_seconds", "How long calls took.", labels=["method"])
        names = [*(str(bound) for bound in _BOUNDS), "+Inf"]
        for method, counts in self._methods.items():
            for code, count in counts.codes.items():
                calls.add_metric([method, code], count)
            cumulative = list(zip(names, map(float, accumulate(counts.buckets)), strict=True))
            seconds.add_metric([method], cumulative, counts.seconds)
        yield calls
        yield seconds
        yield GaugeMetricFamily("oanim_calls_in_flight", "Calls being answered.", value=self.in_flight)
        yield GaugeMetricFamily("oanim_open_streams", "Streams open now.", value=self._streams.total)
