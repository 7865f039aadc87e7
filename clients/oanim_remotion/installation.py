"""Finds the Remotion that a project has, or installs the one that a worker drives, of pinned versions."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from oanim_remotion.errors import NoRemotion

# Since this version a video's pace and length can be asked for.
OLDEST = (4, 0, 424)

_PINS = resources.files("oanim_remotion") / "project"
_PINNED = ("package.json", "package-lock.json")
_OURS = ("ANIMATE_", "OANIM_")
# What npm says of a fault: facts by their names, then sentences, of which the last ones are advice.
_FAULT = re.compile(r"npm (?:error|ERR!) (?:(code|syscall|path|dest|file|errno) )?(.+)")
_TELLING = ("code", "syscall", "path")
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Installation:
    """A Remotion: the folder it is run in, how it is run, and its version."""

    folder: Path
    command: tuple[str, ...]
    version: str


@cache
def pinned_versions() -> dict[str, str]:
    """Say which version of each package goes with this one: for a worker, and for a new project."""
    versions: dict[str, str] = json.loads((_PINS / "package.json").read_text("utf-8"))["dependencies"]
    return versions


def of_project(folder: Path) -> Installation:
    """Find the Remotion that is installed for a project, in its folder or above; raises NoRemotion."""
    node = shutil.which("node")
    if node is None:
        raise NoRemotion("rendering needs Node.js 18 or newer, and there is no node on the PATH. Install it")
    folder = folder.absolute()
    for above in (folder, *folder.parents):
        package = above / "node_modules" / "@remotion" / "cli"
        if (package / "package.json").is_file():
            return _installation(folder, node, package)
    raise NoRemotion("this project's packages are not installed. Install them: npm install")


def installation(cache_folder: Path) -> Installation:
    """Give the Remotion of the pinned versions, installed into a folder of its own in the cache if need be.

    Whoever comes first installs, the others wait; what broke off is not taken for whole. No script of any
    package is run. Raises NoRemotion.
    """
    pins = b"".join((_PINS / name).read_bytes() for name in _PINNED)
    target = cache_folder / f"remotion-{hashlib.sha256(pins).hexdigest()[:16]}"
    cache_folder.mkdir(parents=True, exist_ok=True)
    with (cache_folder / f"{target.name}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            _install(target)
    return of_project(target)


def without_ours(environment: dict[str, str]) -> dict[str, str]:
    """Leave out of an environment what is oanim's own, keys among it: no other program needs it."""
    return {name: value for name, value in environment.items() if not name.startswith(_OURS)}


def _install(target: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise NoRemotion("rendering needs npm, to install Remotion once, and there is none on the PATH")
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for name in _PINNED:
            (unfinished / name).write_bytes((_PINS / name).read_bytes())
        done = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=unfinished,
            env=without_ours(dict(os.environ)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            why = _cause(done.stdout) or f"exit code {done.returncode}"
            raise NoRemotion(f"npm could not install Remotion: {why}")
        unfinished.chmod(0o755)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _cause(said: str) -> str:
    """The fault that npm names, and the first sentence about it; where it names none, its last line."""
    lines = said.strip().splitlines()
    faults = [found for line in lines if (found := _FAULT.fullmatch(line.strip()))]
    facts = " ".join(found[2] for found in faults if found[1] in _TELLING)
    sentence = next((found[2] for found in faults if not found[1]), "")
    return ": ".join(filter(None, (facts, sentence))) or "".join(lines[-1:])


def _installation(folder: Path, node: str, package: Path) -> Installation:
    try:
        described = json.loads((package / "package.json").read_bytes())
        version, program = str(described["version"]), package / described["bin"]["remotion"]
        numbers = _VERSION.match(version)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoRemotion(f"{package} is damaged. Remove node_modules and install it again") from error
    found = tuple(int(number) for number in numbers.groups()) if numbers else ()
    if not OLDEST <= found < (5,):
        wanted = f"Remotion 4, {'.'.join(map(str, OLDEST))} or newer"
        raise NoRemotion(f"this takes {wanted}, and the project has {version}. Upgrade: npx remotion upgrade")
    return Installation(folder, (node, str(program)), version)
