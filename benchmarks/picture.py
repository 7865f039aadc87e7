"""The table as a picture: every figure that has a target, against what it must be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure as Picture
from matplotlib.ticker import FuncFormatter

from benchmarks.report import measured

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.figures import Figure, Target

COLOURS = {"aim": "#2a7f4f", "must": "#8fbf6a", "missed": "#c8553d"}
ROW_INCHES = 0.26
# Beyond these a bar says no more than that it is very good, or very bad.
LEAST, MOST = 0.1, 10.0


def draw(figures: Sequence[Figure], file: Path) -> None:
    """Draw it: longer is better, whatever is measured; the line is what must be."""
    shown = [figure for figure in figures if figure.target is not None]
    picture = Picture(figsize=(13, 1.6 + ROW_INCHES * max(len(shown), 1)), layout="constrained")
    axes = picture.add_subplot()
    for place, figure in enumerate(shown):
        if figure.target is not None:
            _bar(axes, place, figure, figure.target)
    axes.axvline(1.0, color="black", linewidth=1.2)
    axes.set_xscale("log")
    axes.set_xlim(LEAST, MOST)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_yticks(range(len(shown)), [_label(figure) for figure in shown], fontsize=8)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(
        "as good as it must be, times (a rate: measured / must; a time or a size: must / measured)"
    )
    axes.set_title("oanim metering: what was measured against what must be; whiskers are the repetitions,\n"
                   "the tick is what was aimed at", fontsize=10)  # fmt: skip
    axes.grid(axis="x", which="both", linewidth=0.3)
    axes.set_axisbelow(True)
    picture.savefig(file, dpi=110)


def _bar(axes: Axes, place: int, figure: Figure, target: Target) -> None:
    goods = [_good(value, target) for value in figure.values]
    good = _good(figure.value, target)
    axes.barh(place, good - LEAST, left=LEAST, height=0.7, color=COLOURS[figure.met])
    axes.hlines(place, min(goods), max(goods), color="black", linewidth=1)
    axes.plot(_good(target.aim, target), place, marker="|", markersize=9, color="black")
    axes.text(MOST * 1.05, place, measured(figure), va="center", fontsize=8)


def _good(value: float, target: Target) -> float:
    times = target.must / max(value, 1e-9) if target.most else value / target.must
    return min(max(times, LEAST), MOST)


def _label(figure: Figure) -> str:
    return f"{figure.section}: {figure.name}"
