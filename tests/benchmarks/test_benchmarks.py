"""`make bench` on the smallest plan: all of it runs on each database, no call fails, every audit passes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import report, targets
from benchmarks.figures import Figure, Target
from benchmarks.plan import FULL

ROOT = Path(__file__).parents[2]
SECTIONS = {
    "Reserve and Commit, unary",
    "Meter, 4 streams",
    "Memory",
    "Start",
    "Growth: 1,000 reservations against 200",
    "Reads, 1,000 transactions in the wallet",
}
BY_HAND = "By hand: a transaction per call on plain PostgreSQL, 64 connections"


# By hand there is nothing but PostgreSQL; more than a server can do is the same on both.
@pytest.mark.parametrize(
    ("database", "parts", "sections", "audits"),
    [
        ("SQLite", ["calls", "pressure", "growth"], SECTIONS | {"Backpressure"}, 5),
        ("PostgreSQL", ["calls", "growth"], SECTIONS | {BY_HAND}, 4),
    ],
)
def test_every_part_of_the_benchmark_runs_and_ends_with_audits_that_pass(
    tmp_path: Path, database: str, parts: list[str], sections: set[str], audits: int
) -> None:
    command = [sys.executable, "-m", "benchmarks", "--plan", "smoke", "--database", database]
    command += [f"--only={part}" for part in parts]
    done = subprocess.run(
        [*command, "--out", tmp_path], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "bench.json").read_text())
    found = {figure["section"].removesuffix(f", {database}") for figure in written["figures"]}
    assert found == sections
    assert all(figure["value"] > 0 for figure in written["figures"] if figure["section"] != "Memory")
    assert len(written["audits"]) == audits
    assert all(audit.endswith("Everything adds up.") for audit in written["audits"])
    assert all(figure["name"] in done.stdout for figure in written["figures"])
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("target", "values", "met"),
    [
        (Target(2, 3), (2.9, 3.0, 3.1), "aim"),
        (Target(2, 3), (1.9, 2.0, 9.0), "must"),
        (Target(2, 3), (1.9,), "missed"),
        (Target(3, 2, most=True), (2.0,), "aim"),
        (Target(3, 2, most=True), (3.0,), "must"),
        (Target(3, 2, most=True), (3.1,), "missed"),
    ],
)
def test_a_figure_is_the_median_and_says_what_it_meets(
    target: Target, values: tuple[float, ...], met: str
) -> None:
    assert Figure(section="", name="", values=values, target=target).met == met


def test_the_table_of_the_documentation_is_made_anew_between_its_marks() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    figure = Figure(section="Calls", name="fast", values=(1.0, 2.0, 4.0), target=Target(1, 3), note="beside")
    once = report.into(page, [figure], FULL)
    assert "| fast | 2.00 | 1.00 to 4.00 | 1.00 | 3.00 | must | beside |" in once
    assert report.into(once, [figure], FULL) == once
    before, _, after = page.partition(report.BEGIN)
    assert once.startswith(before)
    assert once.endswith(after.partition(report.END)[2])


def test_what_is_aimed_at_is_more_than_what_must_be() -> None:
    found = [value for value in vars(targets).values() if isinstance(value, Target)]
    found += [*targets.AGAINST_ECHO.values(), *targets.METER.values()]
    assert all((target.aim < target.must) == target.most for target in found)
