"""Shows on standard error how work goes on: a live line with the time on a terminal, else a line a change."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from oanim.cli.showing import clean, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BAR_CELLS = 30
# So many lines, without a terminal, for work that is counted.
_LINES = 10


class Progress:
    """What the work does now, on a line that changes, and what is worth keeping, on lines of its own."""

    def __init__(
        self, show: Callable[[str], None], keep: Callable[[str], None], *, is_live: bool = False
    ) -> None:
        self._show = show
        self._keep = keep
        self._is_live = is_live
        self._shown = ""

    def now(self, text: str) -> None:
        """Say it, unless it was just said."""
        if text != self._shown:
            self._shown = text
            self._show(clean(text))

    def part(self, text: str, done: int, total: int) -> None:
        """Say how much of it is done: with a bar on a terminal, else whenever another tenth is."""
        if self._is_live:
            filled = done * _BAR_CELLS // total
            bar = "━" * filled + "─" * (_BAR_CELLS - filled)
            self.now(f"{text} {bar} {done:,}/{total:,}")
        else:
            self.now(f"{text}: {done * _LINES // total * 100 // _LINES} %")

    def note(self, text: str) -> None:
        """Say it so that it stays."""
        self._keep(clean(text))


@contextmanager
def shown() -> Iterator[Progress]:
    """Show progress while the block runs."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield Progress(say, say)
        return
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield Progress(
            lambda text: bar.update(task, description=text),
            lambda text: bar.console.print(text, markup=False, highlight=False, soft_wrap=True),
            is_live=True,
        )
