"""What the audit adds up of the work that was charged and is held: spend counters, and usage by the day."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from oanim_server.ledger.values import DAY
from oanim_server.ledger.windows import Period, window_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from oanim_server.ledger.values import Reservation, UsageItem

# (subject, window): what a spend counter counts.
Subject = tuple[str, str]


class Counts:
    """Sums of one wallet.

    :param limits: what is stored of spend counters: of windows, only those are counted.
    """

    def __init__(self, limits: Collection[Subject]) -> None:
        self._limits = limits
        # What was charged and is held.
        self.counters: defaultdict[Subject, list[int]] = defaultdict(lambda: [0, 0])
        # How often and what was charged, by UTC day, model, category, API key and project.
        self.usage: defaultdict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0])

    def reservation(self, work: Reservation) -> None:
        """Count a reservation under its scopes, and under limits in the window that it was made in."""
        for subject, _ in work.scopes:
            self._count(subject, "", work.captured_micros, work.held_micros)
        for subject, window in self._windows(work.api_key_id, work.created_at):
            self._count(subject, window, work.captured_micros, work.held_micros)

    def item(self, work: UsageItem) -> None:
        """Count a usage item under limits, and its charge."""
        for subject, window in self._windows(work.api_key_id, work.at):
            self._count(subject, window, work.charged_micros, 0)
        if work.charged_micros:
            self.charge(work, work.at, work.charged_micros)

    def charge(self, work: Reservation | UsageItem, at: int, micros: int) -> None:
        """Add a charge to the usage of its day."""
        model, category = (work.line.model, work.line.category) if work.line else ("", "")
        total = self.usage[at // DAY, model, category, work.api_key_id, work.labels.get("project", "")]
        total[0] += 1
        total[1] += micros

    def _count(self, subject: str, window: str, charged: int, held: int) -> None:
        counter = self.counters[subject, window]
        counter[0] += charged
        counter[1] += held

    def _windows(self, api_key_id: str, at: int) -> Iterator[Subject]:
        """Of the windows that work counts in, those that are stored."""
        for period in Period:
            name = window_of(period, at).name
            for subject in {"", api_key_id}:
                if (subject, name) in self._limits:
                    yield subject, name
