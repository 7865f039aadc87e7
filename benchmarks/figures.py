"""A figure: what was measured, how far it spread over the repetitions, and what was wanted."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Target(NamedTuple):
    """What a figure must be and what it is to be brought to; `most` where less is better."""

    must: float
    aim: float
    most: bool = False

    def met(self, value: float) -> str:
        """`aim`, `must` or `missed`."""
        for name, bound in (("aim", self.aim), ("must", self.must)):
            if value <= bound if self.most else value >= bound:
                return name
        return "missed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table. `values` has one a repetition; `unit` is empty for a ratio."""

    section: str
    name: str
    values: tuple[float, ...]
    unit: str = ""
    target: Target | None = None
    note: str = ""

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def met(self) -> str:
        """Which of its targets it meets; empty without one."""
        return "" if self.target is None else self.target.met(self.value)

    def as_json(self) -> dict[str, Any]:
        """The figure as the file has it."""
        return {
            "section": self.section,
            "name": self.name,
            "unit": self.unit or "ratio",
            "value": self.value,
            "spread": [min(self.values), max(self.values)],
            "values": list(self.values),
            "must": self.target.must if self.target else None,
            "aim": self.target.aim if self.target else None,
            "better": None if self.target is None else "less" if self.target.most else "more",
            "met": self.met or None,
            "note": self.note,
        }


def ratios(of: Sequence[float], to: Sequence[float]) -> tuple[float, ...]:
    """Repetition by repetition, so that the weather of each falls on both."""
    return tuple(one / other for one, other in zip(of, to, strict=True))
