"""What became of what was asked: how long it took, what was refused, what has failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(slots=True)
class Taken:
    """Seconds of the calls or messages that were answered, and of those that were refused for overload."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    # Where one answer is about many operations.
    operations: int = 0

    def told(self, elapsed: float, cpu: float) -> dict[str, Any]:
        """As the end that tells is answered."""
        count = self.operations or len(self.answered)
        return {
            "operations": count,
            "refused": len(self.refused),
            "failed": len(self.failed),
            "failures": sorted(set(self.failed)),
            "a_second": count / elapsed,
            "p50_ms": percentile(self.answered, 50) * 1e3,
            "p99_ms": percentile(self.answered, 99) * 1e3,
            "refused_p99_ms": percentile(self.refused, 99) * 1e3,
            "client_cpu_seconds": cpu,
        }


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that so many percent do not exceed; 0 of none."""
    return sorted(values)[min(len(values) * percent // 100, len(values) - 1)] if values else 0.0


def retry_seconds(status: Any) -> float:
    """When a refusal says that it may be tried again; at once where it does not."""
    for detail in status.details if status is not None else ():
        if detail.Is(RetryInfo.DESCRIPTOR):
            return float(RetryInfo.FromString(detail.value).retry_delay.ToNanoseconds() / 1e9)
    return 0.0
