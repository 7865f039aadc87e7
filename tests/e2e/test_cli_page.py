"""docs/cli.md names every command, option, variable and exit code there is, and what it shows runs."""

from __future__ import annotations

import re
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from oanim.cli import failures
from oanim.cli.program import program
from tests.videos import Seen, seen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Dev

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cli.md").read_text()
ANIMATIONS = PAGE[PAGE.index("## Animations") : PAGE.index("## What became of it")]
ROWS = dict(re.findall(r"^\| `(oanim [a-z -]+)` \| (.*) \|$", PAGE, re.MULTILINE))
# What the page says of every command, and of every command that costs money, in one place.
OF_ALL = {"--json", "--help", "-h"}
OF_PAID = {"--model", "--out", "--quote", "--yes", "--key"}


def commands(command: click.Command, name: str = "oanim") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its name."""
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for word in command.list_commands(context):
            found = command.get_command(context, word)
            assert found is not None
            yield from commands(found, f"{name} {word}")


def is_paid(name: str) -> bool:
    return name.startswith("oanim assets ") and name != "oanim assets get"


def options(command: click.Command) -> set[str]:
    return {name for each in command.params if isinstance(each, click.Option) for name in each.opts}


def test_every_command_has_its_row_with_every_option_it_has() -> None:
    known = {
        name: options(command) - OF_ALL - (OF_PAID if is_paid(name) else set())
        for name, command in commands(program)
    }
    shown = {name: set(re.findall(r"`(--?[a-z][a-z-]*)`", row)) for name, row in ROWS.items()}
    assert shown == known


def test_what_is_said_of_all_is_true_of_all() -> None:
    for name, command in commands(program):
        assert "--json" in options(command), name
        if is_paid(name):
            wanted = OF_PAID - ({"--model"} if name.endswith("run") else set())
            assert wanted <= options(command), name
    for option in OF_ALL | OF_PAID:
        assert f"`{option}`" in PAGE


def test_every_variable_that_is_read_is_explained() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "clients" / "oanim").rglob("*.py"))
    read = set(re.findall(r"\b(?:ANIMATE|OANIM)_[A-Z_]+\b", sources)) | {"NO_COLOR"}
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", PAGE, re.MULTILINE)) == read


def test_every_exit_code_is_explained() -> None:
    codes = {value for name, value in vars(failures).items() if name.isupper() and isinstance(value, int)}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)} == {0, *codes}


def _shown(page: str) -> str:
    return "".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL))


def test_what_it_shows_runs_from_top_to_bottom(dev: Dev, tmp_path: Path) -> None:
    done = dev.follow(_shown(PAGE.replace(ANIMATIONS, "")), tmp_path, ANIMATE_FAL_URL=dev.sandbox_url)
    assert done.returncode == 0, done.stderr
    made = {"kite", "doors-1", "doors-2", "blue", "walk", "today", "within", "gradient"}
    assert made <= {path.stem for path in tmp_path.rglob("*.png")}


@pytest.mark.timeout(600)  # it installs Remotion, from a cold cache perhaps
def test_what_it_shows_of_animations_runs(dev: Dev, tmp_path: Path, browser: Path) -> None:
    variables = {
        "npm_config_cache": str(Path.home() / ".npm"),
        "ANIMATE_API_URL": dev.url,
        "ANIMATE_API_KEY": dev.keys["user"],
    }
    done = dev.follow(_shown(ANIMATIONS), tmp_path, timeout_seconds=600, **variables)
    assert done.returncode == 0, done.stderr
    assert "not installed" not in done.stderr
    assert "$0.020736 for 5 s of Main at 1920x1080" in done.stdout
    assert seen(tmp_path / "kite" / "out" / "video.mp4") == Seen("h264", 640, 360, Fraction(10), 50)
    moving = seen(tmp_path / "kite" / "kite.gif")
    assert (moving.codec, moving.width, moving.height, moving.frames) == ("gif", 320, 180, 25)
    types = ["npx", "--no-install", "tsc", "--noEmit"]
    checked = subprocess.run(types, cwd=tmp_path / "kite", capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")
    # A quarter of a gigabyte, which pytest would keep for three sessions.
    shutil.rmtree(tmp_path / "kite" / "node_modules")
