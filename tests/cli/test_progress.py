"""How work goes on is a bar on a terminal, and a line a tenth where there is none."""

from __future__ import annotations

from oanim.cli.progress import Progress


def test_on_a_terminal_what_is_done_is_a_bar() -> None:
    shown: list[str] = []
    progress = Progress(shown.append, shown.append, is_live=True)
    for done in (0, 75, 75, 1_500):
        progress.part("rendering", done, 1_500)

    assert shown == [
        f"rendering {'─' * 30} 0/1,500",
        f"rendering {'━'}{'─' * 29} 75/1,500",
        f"rendering {'━' * 30} 1,500/1,500",
    ]


def test_without_one_a_line_is_said_of_every_tenth() -> None:
    shown: list[str] = []
    progress = Progress(shown.append, shown.append)
    for done in range(1_501):
        progress.part("rendering", done, 1_500)

    assert shown == [f"rendering: {percent} %" for percent in range(0, 101, 10)]
