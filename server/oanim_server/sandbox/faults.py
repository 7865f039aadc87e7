"""What a sandbox was told to do wrong, and how often.

A fault names where it strikes and is used up by what it strikes; words of a prompt never make one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


@dataclass(slots=True, eq=False)
class Fault:
    """One thing to do wrong, `times` more times (None: until the faults are cleared).

    `seconds` is how late "late" is, what "429" asks to wait, and how long "queue" lasts (None: until the
    faults are cleared). `match` must be in what the request is about: at fal.ai the endpoint or the
    prompt, at Stripe `METHOD path {parameters as JSON}`.
    """

    at: str
    do: str
    times: int | None = 1
    seconds: float | None = None
    positions: int = 3
    match: str = ""


class Faults:
    """The faults that wait to strike, in the order they were asked for."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        self._waiting.append(fault)

    def clear(self) -> None:
        self._waiting.clear()

    def take(self, at: str, about: str) -> Fault | None:
        """Use up the first fault that strikes here."""
        for fault in self._waiting:
            if fault.at == at and fault.match in about:
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times == 0:
                        self._waiting.remove(fault)
                return fault
        return None


def parse(content: Any, kinds: Mapping[str, Collection[str]]) -> Fault:
    """Read a fault from the control endpoint's JSON. Raises ValueError saying what is wrong.

    :param kinds: where this sandbox can fail, and what it can do there.
    """
    try:
        fault = Fault(**content)
    except TypeError as error:
        raise ValueError("a fault is an object with at, do, times, seconds, positions, match") from error
    if fault.do not in kinds.get(fault.at, ()):
        raise ValueError(f"at is one of {sorted(kinds)}, and do one of {sorted(kinds.get(fault.at, ()))}")
    if not _at_least(1, fault.times, int):
        raise ValueError("times is 1 or more, or null for always")
    if not _at_least(0, fault.seconds, (int, float)):
        raise ValueError("seconds is 0 or more, or null")
    if content.get("positions", 1) is None or not _at_least(1, fault.positions, int):
        raise ValueError("positions is 1 or more")
    if not isinstance(content.get("match", ""), str):
        raise ValueError("match is a text")  # noqa: TRY004 - the one error this function is documented to raise
    return fault


def _at_least(least: int, value: Any, kinds: type[int] | tuple[type[int], type[float]]) -> bool:
    return value is None or (isinstance(value, kinds) and bool(value >= least))
