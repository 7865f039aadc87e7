"""The short form of `make bench`: it runs, nothing fails, and every figure is there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FIGURES = {
    "Reserve + Commit against echo",
    "the same, one hot wallet",
    "groups against a transaction per call",
    "p99 against echo's",
    "calls that failed",
    "oanim billing, seconds",
}


def test_the_benchmark_measures_every_figure_and_no_call_fails(tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "--seconds", "1", "--repetitions", "1", "--no-memory"]
    # Its exit code says whether the targets were met: no business of a second on a busy machine.
    subprocess.run([*command, "--json", written], cwd=ROOT, capture_output=True, check=False)
    figures = json.loads(written.read_text())
    assert set(figures) == FIGURES
    assert figures["calls that failed"]["value"] == 0
    assert all(figure["value"] > 0 for name, figure in figures.items() if name != "calls that failed")
