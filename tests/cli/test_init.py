"""A project is written whole, without a network, and its packages are installed by whoever is there."""

from __future__ import annotations

import json
import re
import signal
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oanim.cli import rendering
from oanim_remotion.installation import pinned_versions
from tests.cli.running import line_of

if TYPE_CHECKING:
    from tests.cli.running import Cli

TEMPLATE = Path(rendering.__file__).parent / "template"
FILES = {
    ".gitignore",
    "README.md",
    "animate.json",
    "package.json",
    "remotion.config.ts",
    "src/Main.tsx",
    "src/Root.tsx",
    "src/index.ts",
    "tsconfig.json",
}


@pytest.fixture
def programs(cli: Cli, tmp_path: Path) -> Path:
    """The only folder in which the user's programs are."""
    folder = tmp_path / "programs"
    folder.mkdir()
    cli.variables["PATH"] = str(folder)
    return folder


def program(
    folder: Path, name: str, script: str = 'echo "$@" > installed-by-$(/usr/bin/basename $0)'
) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(stat.S_IRWXU)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_project_is_written_without_anything_but_oanim(cli: Cli, programs: Path) -> None:
    ended = cli.run("init", "kite", "--no-install")

    assert (ended.exit_code, ended.err) == (0, "")
    assert ended.out == "kite is there. Next:\n  cd kite\n  npm install\n  oanim render\n  npm run dev\n"
    assert files(cli.folder / "kite") == FILES
    assert json.loads((cli.folder / "kite/package.json").read_text())["name"] == "kite"
    assert (cli.folder / "kite/README.md").read_text().startswith("# kite\n")


def test_every_version_in_a_project_is_an_exact_one_and_a_workers() -> None:
    package = json.loads((TEMPLATE / "package.json").read_text())

    assert package["dependencies"] == pinned_versions()
    assert all(
        re.fullmatch(r"\d+\.\d+\.\d+", version)
        for version in (*package["dependencies"].values(), *package["devDependencies"].values())
    )


def test_without_a_name_a_project_goes_into_the_present_folder(cli: Cli) -> None:
    (cli.folder / ".git").mkdir()
    ended = cli.run("init", "--no-install", "--json")

    assert json.loads(ended.out)["folder"] == str(cli.folder)
    assert files(cli.folder) == FILES


def test_a_folder_that_has_something_in_it_is_left_alone(cli: Cli) -> None:
    (cli.folder / "kite").mkdir()
    (cli.folder / "kite" / "mine").touch()
    here, there = cli.run("init", "--no-install"), cli.run("init", "kite", "--no-install")

    assert (here.exit_code, here.out) == (there.exit_code, there.out) == (1, "")
    assert here.err == (
        "oanim: this folder is not empty, and nothing was written. Choose another: oanim init my-animation\n"
    )
    assert there.err == (
        "oanim: the folder kite is not empty, and nothing was written. Choose another: oanim init kite-2\n"
    )
    assert files(cli.folder) == {"kite/mine"}


def test_a_file_in_the_way_is_left_alone(cli: Cli) -> None:
    (cli.folder / "kite").write_text("mine")

    assert cli.run("init", "kite").err == (
        "oanim: kite is a file. Choose another name: oanim init my-animation\n"
    )
    assert (cli.folder / "kite").read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["../kite", "videos/kite", "-kite", ".kite", "", "kite kite", "kité", "node_modules", "k" * 101]
)
def test_what_is_no_name_is_refused(cli: Cli, name: str) -> None:
    ended = cli.run("init", "--no-install", "--", name)

    assert ended.exit_code == 2
    assert "is no name for a project" in ended.err
    assert files(cli.folder.parent) == set()


@pytest.mark.parametrize(
    ("present", "lock_file", "used"),
    [
        (["npm", "pnpm", "yarn", "bun"], None, "npm"),
        (["pnpm", "bun"], None, "pnpm"),
        (["npm", "pnpm", "yarn", "bun"], "pnpm-lock.yaml", "pnpm"),
        (["npm", "yarn"], "yarn.lock", "yarn"),
        (["npm", "bun"], "bun.lock", "bun"),
        (["npm"], "bun.lock", "npm"),
    ],
)
def test_the_package_manager_is_the_one_around_or_the_first_there_is(
    cli: Cli, programs: Path, present: list[str], lock_file: str | None, used: str
) -> None:
    for name in present:
        program(programs, name)
    if lock_file:
        (cli.folder / lock_file).touch()
    ended = cli.run("init", "kite", "--json")

    assert json.loads(ended.out) == {
        "folder": str(cli.folder / "kite"),
        "package_manager": used,
        "installed": True,
    }
    assert [path.name for path in (cli.folder / "kite").glob("installed-by-*")] == [f"installed-by-{used}"]
    assert ended.err == f"installing the packages with {used}\n"


def test_packages_that_cannot_be_installed_are_a_warning(cli: Cli, programs: Path) -> None:
    program(programs, "npm", "echo 'npm error network unreachable' >&2; exit 1")
    ended = cli.run("init", "kite")

    assert ended.exit_code == 0
    assert "  cd kite\n  npm install\n" in ended.out
    assert ended.err.endswith(
        "oanim: the packages were not installed: npm error network unreachable. Do it later: npm install\n"
    )
    assert files(cli.folder / "kite") == FILES


def test_an_installation_that_is_interrupted_leaves_the_project(cli: Cli, programs: Path) -> None:
    program(programs, "npm", "exec /bin/sleep 600")
    with cli.start("init", "kite") as process:
        line_of(process, "installing the packages with npm")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)

    assert process.returncode == 130
    assert err == (
        f"oanim: interrupted; the project is in {cli.folder / 'kite'}. "
        "Install its packages there: npm install\n"
    )
    assert files(cli.folder / "kite") == FILES


def test_without_a_package_manager_the_project_is_there(cli: Cli, programs: Path) -> None:
    ended = cli.run("init", "kite")

    assert ended.exit_code == 0
    assert "there is no npm, pnpm, yarn or bun on the PATH; install Node.js." in ended.err
    assert files(cli.folder / "kite") == FILES


def test_no_key_of_the_users_reaches_the_package_manager(cli: Cli, programs: Path) -> None:
    cli.variables["ANIMATE_API_KEY"] = "anim_secret"
    program(programs, "npm", "/usr/bin/env > seen")
    cli.run("init", "kite")

    assert "secret" not in (cli.folder / "kite" / "seen").read_text()
