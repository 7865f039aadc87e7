from __future__ import annotations

import json
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oanim_remotion import browser as browsers
from oanim_remotion.errors import NoBrowser, NoRemotion
from oanim_remotion.installation import (
    installation,
    of_project,
    pinned_versions,
    without_ours,
)

if TYPE_CHECKING:
    from oanim_remotion.installation import Installation

PINS = Path(browsers.__file__).parent / "project"


def program(folder: Path, name: str, script: str) -> Path:
    """Put a program into a folder."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
    path.chmod(stat.S_IRWXU)
    return path


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder that programs are found in."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv(browsers.BROWSER_VARIABLE, raising=False)
    return folder


def installed(folder: Path, version: str) -> None:
    package = folder / "node_modules" / "@remotion" / "cli"
    package.mkdir(parents=True)
    (package / "package.json").write_text(
        json.dumps({"version": version, "bin": {"remotion": "remotion-cli.js"}})
    )


def test_every_package_of_remotion_is_pinned_to_one_version() -> None:
    locked = json.loads((PINS / "package-lock.json").read_bytes())["packages"]
    ours = {
        path: package["version"]
        for path, package in locked.items()
        if path.startswith("node_modules/@remotion/") or path == "node_modules/remotion"
    }

    assert locked[""]["dependencies"] == pinned_versions()
    assert {pinned_versions()["remotion"]} == {
        version for path, version in ours.items() if "/mediabunny" not in path
    }
    assert all("integrity" in package for path, package in locked.items() if path)


@pytest.mark.timeout(600)  # it may be the first to install it
def test_a_pinned_remotion_is_installed_once_and_found_again(
    remotion: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oanim_remotion.installation._install", None)

    assert installation(remotion.folder.parent) == remotion
    assert remotion.version == pinned_versions()["remotion"]


def test_a_projects_remotion_is_found_in_the_folders_above(programs: Path, tmp_path: Path) -> None:
    node = program(programs, "node", "")
    installed(tmp_path / "work", "4.0.527")
    project = tmp_path / "work" / "videos" / "intro"
    project.mkdir(parents=True)

    found = of_project(project)
    assert (found.folder, found.version) == (project, "4.0.527")
    assert found.command == (str(node), str(tmp_path / "work/node_modules/@remotion/cli/remotion-cli.js"))


@pytest.mark.parametrize("version", ["4.0.423", "3.3.102", "5.0.0", "latest"])
def test_a_remotion_that_cannot_be_asked_for_frames_is_refused(
    programs: Path, tmp_path: Path, version: str
) -> None:
    program(programs, "node", "")
    installed(tmp_path, version)
    with pytest.raises(NoRemotion, match=f"the project has {version}. Upgrade: npx remotion upgrade"):
        of_project(tmp_path)


def test_what_is_missing_is_said(programs: Path, tmp_path: Path) -> None:
    with pytest.raises(NoRemotion, match="no node on the PATH"):
        of_project(tmp_path)
    with pytest.raises(NoRemotion, match="there is none on the PATH"):
        installation(tmp_path / "cache")
    program(programs, "node", "")
    with pytest.raises(NoRemotion, match="packages are not installed"):
        of_project(tmp_path)


def test_a_damaged_installation_is_said_to_be_one(programs: Path, tmp_path: Path) -> None:
    program(programs, "node", "")
    installed(tmp_path, "4.0.527")
    (tmp_path / "node_modules/@remotion/cli/package.json").write_text("{")
    with pytest.raises(NoRemotion, match="is damaged"):
        of_project(tmp_path)


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (
            """\
npm error code EACCES
npm error syscall mkdir
npm error path /.npm
npm error errno EACCES
npm error
npm error Your cache folder contains root-owned files.
npm error
npm error To permanently fix this problem, please run:
npm error   sudo chown -R 65534:65534 "/.npm"
npm error You can rerun the command with `--loglevel=verbose` to see the logs in your terminal""",
            "EACCES mkdir /.npm: Your cache folder contains root-owned files.",
        ),
        (
            """\
npm ERR! code ENOTFOUND
npm ERR! syscall getaddrinfo
npm ERR! errno ENOTFOUND
npm ERR! network request to https://packages.example failed, reason: ENOTFOUND
npm ERR! network This is a problem related to network connectivity.

npm ERR! A complete log of this run can be found in: /.npm/_logs/debug-0.log""",
            "ENOTFOUND getaddrinfo: network request to https://packages.example failed, reason: ENOTFOUND",
        ),
        ("npm: it is broken", "npm: it is broken"),
        ("", "exit code 1"),
    ],
)
def test_an_installation_that_breaks_off_leaves_nothing_and_says_why(
    programs: Path, tmp_path: Path, said: str, cause: str
) -> None:
    (tmp_path / "said").write_text(said)
    program(programs, "npm", f"mkdir node_modules; cat {tmp_path}/said >&2; exit 1")
    with pytest.raises(NoRemotion) as broken:
        installation(tmp_path / "cache")

    assert str(broken.value).removeprefix("npm could not install Remotion: ") == cause
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"] == []


def test_several_that_need_it_at_once_install_it_once(programs: Path, tmp_path: Path) -> None:
    program(programs, "node", "")
    described = '{"version": "4.0.527", "bin": {"remotion": "remotion-cli.js"}}'
    program(
        programs,
        "npm",
        f"echo run >> {tmp_path}/runs; sleep 0.3; mkdir -p node_modules/@remotion/cli; "
        f"echo '{described}' > node_modules/@remotion/cli/package.json",
    )
    threads = [threading.Thread(target=installation, args=[tmp_path / "cache"]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (tmp_path / "runs").read_text() == "run\n"


def test_no_key_of_ours_reaches_the_programs_of_others() -> None:
    environment = {"ANIMATE_API_KEY": "anim_secret", "OANIM_WORKER_KEY": "anim_secret", "PATH": "/bin"}

    assert without_ours(environment) == {"PATH": "/bin"}


def test_the_named_browser_is_taken_and_no_other(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, own = program(programs, "chromium", ""), program(tmp_path / "own", "browser", "")
    monkeypatch.setenv(browsers.BROWSER_VARIABLE, "")
    assert browsers.find() == system
    monkeypatch.setenv(browsers.BROWSER_VARIABLE, str(own))
    assert browsers.find() == own
    assert browsers.find("chromium") == system
    with pytest.raises(NoBrowser, match="--browser names /nowhere, which is no program here"):
        browsers.find("/nowhere")


def test_no_browser_is_said_with_what_to_do(programs: Path) -> None:
    with pytest.raises(NoBrowser, match="apt install chromium"):
        browsers.find()
