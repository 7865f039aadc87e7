"""The committed Python of the contract is what the protos say, written by the command that wrote it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
HANDED_DOWN = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }


def test_the_committed_code_is_what_the_protos_say(tmp_path: Path) -> None:
    # A `make` above hands its flags down; this one is on its own, and takes .venv as it is.
    environment = {name: value for name, value in os.environ.items() if name not in HANDED_DOWN}
    subprocess.run(
        ["make", "--silent", "--old-file=.venv/stamp", "protos", f"PROTOS_OUT={tmp_path}"],
        cwd=ROOT,
        env=environment,
        check=True,
    )
    generated, committed = files(tmp_path / "openanimate"), files(ROOT / "clients" / "openanimate")
    assert sorted(committed) == sorted(generated)
    assert [name for name in generated if committed[name] != generated[name]] == []
