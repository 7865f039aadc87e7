"""Says what a render has made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path

    from oanim_remotion.driver import Video

_KILO = 1_000


@dataclass(frozen=True, slots=True)
class Made:
    """A video that is there."""

    path: str
    size_bytes: int
    composition: str
    width: int
    height: int
    fps: float
    frames: int
    codec: str

    @classmethod
    def of(cls, video: Video, path: Path) -> Self:
        """Describe a video, and look at the file that it is in."""
        return cls(
            path=str(path),
            size_bytes=path.stat().st_size,
            composition=video.composition.id,
            width=video.size.width,
            height=video.size.height,
            fps=video.fps,
            frames=video.frames,
            codec=str(video.codec),
        )

    @property
    def seconds(self) -> float:
        """How long it is, to the thousandth."""
        return round(self.frames / self.fps, 3)

    def data(self) -> dict[str, Any]:
        """Describe it for --json."""
        return {**asdict(self), "seconds": self.seconds}


def summary(made: Made) -> list[str]:
    """Describe it for people."""
    return [
        made.path,
        f"  size        {in_units(made.size_bytes)}",
        f"  resolution  {made.width}x{made.height}",
        f"  fps         {made.fps:g}",
        f"  codec       {made.codec}",
        f"  length      {made.seconds:g} s, {made.frames:,} frame{'' if made.frames == 1 else 's'}",
    ]


def in_units(size_bytes: float) -> str:
    """Write a size in the unit that suits it: 812 B, 1.2 MB."""
    if size_bytes < _KILO:
        return f"{size_bytes:.0f} B"
    for unit in ("kB", "MB"):
        size_bytes /= _KILO
        if size_bytes < _KILO:
            return f"{size_bytes:.1f} {unit}"
    return f"{size_bytes / _KILO:.1f} GB"
