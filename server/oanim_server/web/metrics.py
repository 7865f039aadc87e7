"""What the ledger and the work are doing, for Prometheus. Nothing here is about one account, or money."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from oanim_server.checkout.counts import Counts as CheckoutCounts
    from oanim_server.generation.counts import Counts
    from oanim_server.ledger.ledger import Ledger
    from oanim_server.rendering.counts import Counts as RenderCounts

_SIZES = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_000, 4_000)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class LedgerMetrics(Collector):
    """The committer's queue and groups."""

    def __init__(self, ledger: Ledger, registry: CollectorRegistry) -> None:
        self._ledger = ledger
        sizes = Histogram(
            "oanim_group_operations", "Operations in a group.", buckets=_SIZES, registry=registry
        )
        seconds = Histogram(
            "oanim_commit_seconds",
            "From the first lock of a group to its commit.",
            buckets=_SECONDS,
            registry=registry,
        )

        def observe(size: int, took: float) -> None:
            sizes.observe(size)
            seconds.observe(took)

        ledger.tally.observe = observe
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """What is known now."""
        tally = self._ledger.tally
        yield GaugeMetricFamily(
            "oanim_queued_operations", "Operations that wait for a group.", value=self._ledger.queued
        )
        yield CounterMetricFamily("oanim_operations", "Operations that were committed.", tally.operations)
        yield CounterMetricFamily("oanim_conflicts", "Groups that were run again.", tally.conflicts)
        yield CounterMetricFamily("oanim_faults", "Operations that failed by a fault of ours.", tally.faults)


class GenerationMetrics(Collector):
    """What the work came to, and how much of it is going on here."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """What is known now."""
        counts = self._counts
        ended = CounterMetricFamily(
            "oanim_generations", "Generations that have ended, by how.", labels=["outcome"]
        )
        ended.add_metric(["SUCCEEDED"], counts.succeeded)
        ended.add_metric(["CANCELLED"], counts.cancelled)
        for reason, count in counts.failed.items():
            ended.add_metric([reason.value], count)
        yield ended
        yield GaugeMetricFamily("oanim_running_generations", "Jobs worked on here.", value=counts.running)
        yield CounterMetricFamily(
            "oanim_provider_submits", "Paid requests that may have left this machine.", counts.submits
        )
        yield CounterMetricFamily(
            "oanim_generation_takeovers", "Jobs taken over from a server that stopped.", counts.takeovers
        )
        yield CounterMetricFamily(
            "oanim_generation_leases_lost",
            "Jobs whose lease here was lost to another server.",
            counts.leases_lost,
        )


class RenderMetrics(Collector):
    """What rendering came to, and how much of it waits."""

    def __init__(self, counts: RenderCounts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """What is known now."""
        counts = self._counts
        yield GaugeMetricFamily(
            "oanim_queued_renders", "Renders that wait for a worker, of all servers.", value=counts.queued
        )
        yield GaugeMetricFamily(
            "oanim_leased_renders", "Renders that a worker has, of all servers.", value=counts.rendering
        )
        yield CounterMetricFamily("oanim_renders_submitted", "Renders that were taken.", counts.submitted)
        ended = CounterMetricFamily("oanim_renders", "Renders that have ended, by how.", labels=["outcome"])
        for state, count in counts.ended.items():
            ended.add_metric([state.name], count)
        for reason, count in counts.failed.items():
            ended.add_metric([reason.value], count)
        yield ended
        yield CounterMetricFamily("oanim_render_leases", "Leases that were taken.", counts.leases)
        without = CounterMetricFamily(
            "oanim_render_leases_without_video", "Leases that brought no video, by why.", labels=["why"]
        )
        for why in ("given_up", "handed_back", "lost"):
            without.add_metric([why], getattr(counts, why))
        yield without


class CheckoutMetrics(Collector):
    """What Stripe's words came to."""

    def __init__(self, counts: CheckoutCounts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """What is known now."""
        events = CounterMetricFamily(
            "oanim_payment_events",
            "Words of the payment provider, by what became of them.",
            labels=["standing"],
        )
        for standing in ("credited", "applied", "repeated", "parked", "quarantined", "rejected"):
            events.add_metric([standing], getattr(self._counts, standing))
        yield events
        yield CounterMetricFamily(
            "oanim_payment_polls", "Checkout sessions that were asked about.", self._counts.polled
        )
        yield CounterMetricFamily(
            "oanim_payment_reconciliations", "Rounds over the provider's events.", self._counts.reconciled
        )
