"""Writes a new project, which needs no network, and installs what it builds on, which does."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from oanim.cli.failures import INTERRUPTED, USAGE, Failure, stopped
from oanim.cli.showing import Answer
from oanim_remotion.errors import RemotionError
from oanim_remotion.installation import without_ours
from oanim_remotion.running import Limits, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

    from oanim.cli.progress import Progress

_TEMPLATE = resources.files("oanim.cli.rendering") / "template"
# A file that begins with a dot here would not be packaged everywhere.
_RENAMED = {"gitignore": ".gitignore"}
_NAMED = "my-animation"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
# What npm takes for its own.
_RESERVED = ("node_modules", "favicon.ico")
# What may be in a folder that is as good as empty.
_OVERLOOKED = {".git", ".DS_Store", ".idea", ".vscode"}
_INSTALL_SECONDS = 900.0


class Manager(NamedTuple):
    """A package manager: its program, the file by which its projects are known, how it installs."""

    name: str
    lock_files: tuple[str, ...]
    install: tuple[str, ...]


_MANAGERS = (
    Manager("npm", ("package-lock.json", "npm-shrinkwrap.json"), ("install", "--no-audit", "--no-fund")),
    Manager("pnpm", ("pnpm-lock.yaml",), ("install",)),
    Manager("yarn", ("yarn.lock",), ("install",)),
    Manager("bun", ("bun.lock", "bun.lockb"), ("install",)),
)


def start(name: str | None, *, installs: bool, progress: Progress) -> Answer:
    """Write a project into a new folder, or the present one, and install its packages."""
    folder = _folder(name)
    _write(folder)
    manager = manager_for(folder)
    said_manager = manager.name if manager else "npm"
    notes, is_installed = [], False
    if installs:
        why = _installed(folder, manager, progress)
        is_installed = not why
        if why:
            notes.append(
                f"the packages were not installed: {stopped(why)} Do it later: {said_manager} install"
            )
    steps = [] if name in (None, ".") else [f"cd {shlex.quote(str(name))}"]
    steps += [] if is_installed else [f"{said_manager} install"]
    steps += ["oanim render", f"{said_manager} run dev"]
    return Answer(
        data={
            "folder": str(folder),
            "package_manager": manager.name if manager else None,
            "installed": is_installed,
        },
        lines=[f"{folder.name} is there. Next:", *(f"  {step}" for step in steps)],
        notes=notes,
        if_unread=f"The project is in {folder}.",
    )


def manager_for(folder: Path) -> Manager | None:
    """Find the package manager: that of the project around it, by its lock file, else the first there is."""
    present = [manager for manager in _MANAGERS if shutil.which(manager.name)]
    for above in (folder, *folder.parents):
        for manager in present:
            if any((above / lock_file).is_file() for lock_file in manager.lock_files):
                return manager
        if (above / ".git").exists():
            break
    return present[0] if present else None


def _folder(name: str | None) -> Path:
    """Decide where the project goes, and refuse a folder that has something in it."""
    if name is None or name == ".":
        folder = Path.cwd()
    elif not _NAME.fullmatch(name) or name.lower() in _RESERVED:
        raise Failure(
            f"{name!r} is no name for a project: letters, digits, dots, dashes and underscores, at most 100, "
            "a letter or a digit first.",
            USAGE,
        )
    else:
        folder = Path.cwd() / name
    if folder.exists() and not folder.is_dir():
        raise Failure(f"{name} is a file. Choose another name: oanim init {_NAMED}")
    if folder.is_dir() and {path.name for path in folder.iterdir()} - _OVERLOOKED:
        what = "this folder" if folder == Path.cwd() else f"the folder {name}"
        other = _NAMED if folder == Path.cwd() else f"{name}-2"
        raise Failure(f"{what} is not empty, and nothing was written. Choose another: oanim init {other}")
    return folder


def _write(folder: Path) -> None:
    """Write the files, all of them or none."""
    is_new = not folder.exists()
    folder.mkdir(exist_ok=True)
    written: list[Path] = []
    try:
        for source, parts in _files(_TEMPLATE, ()):
            path = folder.joinpath(*parts)
            path.parent.mkdir(exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                written.append(path)
                file.write(_fitted(source, folder.name))
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _files(folder: Traversable, above: tuple[str, ...]) -> Iterator[tuple[Traversable, tuple[str, ...]]]:
    for item in folder.iterdir():
        parts = (*above, _RENAMED.get(item.name, item.name))
        if item.is_dir():
            yield from _files(item, parts)
        else:
            yield item, parts


def _fitted(source: Traversable, name: str) -> str:
    """Put the project's own name where the template has its."""
    text = source.read_text("utf-8")
    if source.name == "package.json":
        # A package's name is stricter than a folder's, and the present folder may have any.
        package = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("._-") or _NAMED
        return text.replace(json.dumps(_NAMED), json.dumps(package), 1)
    return text.replace(f"# {_NAMED}", f"# {name}", 1) if source.name == "README.md" else text


def _installed(folder: Path, manager: Manager | None, progress: Progress) -> str:
    """Install the packages; say why that did not work, or nothing."""
    if manager is None:
        return "there is no npm, pnpm, yarn or bun on the PATH; install Node.js"
    if manager.name == "yarn":
        # Remotion looks for its packages in a folder, which newer ones of yarn make only when told to.
        (folder / ".yarnrc.yml").write_text("nodeLinker: node-modules\n", encoding="utf-8")
    try:
        progress.now(f"installing the packages with {manager.name}")
        run(
            [manager.name, *manager.install],
            folder=folder,
            environment=without_ours(dict(os.environ)),
            limits=Limits(time_seconds=_INSTALL_SECONDS),
        )
    except RemotionError as error:
        return str(error)
    except KeyboardInterrupt:
        raise Failure(
            f"interrupted; the project is in {folder}. Install its packages there: {manager.name} install",
            INTERRUPTED,
        ) from None
    return ""
