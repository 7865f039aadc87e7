"""How driving Remotion may end badly. Each says what to do where something can be done."""

from __future__ import annotations

import re

# What the parts of Remotion call an error.
_BUILD_ERROR = re.compile(r"(\S+:\d+:\d+: )ERROR: (.+)")
_ERROR = re.compile(r"^(?:Uncaught )?(?:\w*Error\b:? +)+(.+)")


class RemotionError(Exception):
    """Remotion could not be driven to its end."""


class NoRemotion(RemotionError):
    """There is no Remotion to drive, or none that will do."""


class NoBrowser(RemotionError):
    """There is no browser to render with."""


class UnknownComposition(RemotionError):
    """The bundle has no such composition; `known` are those it has."""

    def __init__(self, composition: str, known: tuple[str, ...]) -> None:
        super().__init__(f"there is no composition {composition!r}; there is: {', '.join(known) or 'none'}")
        self.composition = composition
        self.known = known


class RenderFailed(RemotionError):
    """Remotion ended with an error: `lines` are the last of what it said, `str()` the one that says why."""

    def __init__(self, lines: tuple[str, ...], *, exit_code: int) -> None:
        super().__init__(_gist(lines) or f"Remotion ended with exit code {exit_code}, and said nothing")
        self.lines = lines
        self.exit_code = exit_code


class TimedOut(RemotionError):
    """The time limit passed."""

    def __init__(self, limit_seconds: float) -> None:
        super().__init__(f"it was not done within {limit_seconds:,.0f} seconds")
        self.limit_seconds = limit_seconds


class OutOfMemory(RemotionError):
    """What renders needed more memory than it may have."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"it needs more than {limit_bytes:,} bytes of memory")
        self.limit_bytes = limit_bytes


class Stopped(RemotionError):
    """Whoever started it wanted it to end."""

    def __init__(self) -> None:
        super().__init__("it was stopped")


def _gist(lines: tuple[str, ...]) -> str:
    """Find the line that says why: the place that does not compile, else the first error."""
    for pattern in (_BUILD_ERROR, _ERROR):
        for line in lines:
            found = pattern.search(line)
            if found:
                return "".join(found.groups())
    return lines[-1] if lines else ""
