"""`make` builds .venv of the interpreter that is named, and keeps the one it has where none is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What a `make` above would hand down, the interpreter that it was told among it.
HANDED_DOWN = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON"}
STAMP = ".venv/stamp"
# Whether the pins have changed since is not asked here.
PINS = ("--old-file=pyproject.toml", "--old-file=requirements.txt")


def make(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in HANDED_DOWN}
    return subprocess.run(
        ["make", *PINS, *words, STAMP],
        cwd=ROOT,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def builds(*words: str, **variables: str) -> bool:
    """Whether .venv would be built; it is not."""
    done = make("--question", *words, **variables)
    assert (done.returncode in (0, 1), done.stderr) == (True, "")
    return done.returncode == 1


def test_a_venv_is_built_anew_for_another_interpreter_and_for_nothing_else(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho another\n")
    other.chmod(0o755)
    assert (builds(), builds(f"PYTHON={sys.executable}"), builds(PYTHON=sys.executable)) == (False,) * 3
    assert (builds(f"PYTHON={other}"), builds(PYTHON=str(other))) == (True, True)


def test_an_interpreter_that_is_not_there_is_said_and_the_venv_is_kept() -> None:
    done = make("PYTHON=/no/such")
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2,
        "oanim needs Python 3.11 or newer as /no/such; name another one with: make PYTHON=/path/to/python",
    )
    assert (ROOT / STAMP).exists()
