"""Drives a Remotion that is installed: bundles a project, lists what is in a bundle, and renders it.

What is run is what `npx remotion` would run there. Each call is a process of its own with a folder of its own
for whatever it leaves behind, so that any number of them run side by side.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from oanim_remotion import browser as browsers
from oanim_remotion.errors import RenderFailed, UnknownComposition
from oanim_remotion.pictures import Size, drawing
from oanim_remotion.running import NO_LIMITS, run, scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from oanim_remotion.codecs import Codec
    from oanim_remotion.installation import Installation
    from oanim_remotion.running import Limits

# What a render needs to know of where it runs. No key and no password has a name of these.
_PASSED_ON = ("PATH", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "FONTCONFIG_PATH")

_BUNDLED = re.compile(r"^Bundling (\d+)%$")
_RENDERED = re.compile(r"^Rendered (\d+)/(\d+)\b")
_COMPOSITION = re.compile(
    r"^(?P<id>\S+)\s+(?:(?P<fps>[0-9.]+)\s+)?(?P<width>\d+)x(?P<height>\d+)\s+(?:(?P<frames>\d+) \(|Still$)"
)
_PAGE = "index.html"


class Composition(NamedTuple):
    """What can be rendered: its id, size, frames a second (0 for a still) and number of frames."""

    id: str
    size: Size
    fps: float
    frames: int


@dataclass(frozen=True, slots=True)
class Video:
    """What is to be rendered of a composition, in which size, at which pace, and how it is encoded."""

    composition: Composition
    size: Size
    fps: float
    frames: int
    codec: Codec


def bare_environment(home: Path) -> dict[str, str]:
    """Make an environment that holds no credential, for what somebody else wrote."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**kept, "HOME": str(home), "NO_COLOR": "1"}


def bundle(
    installation: Installation,
    entry: str | None,
    target: Path,
    *,
    environment: Mapping[str, str],
    limits: Limits = NO_LIMITS,
    on_percent: Callable[[int], None] = lambda _percent: None,
) -> None:
    """Bundle a project into a folder that is made here. It runs the project's own code: its configuration.

    Without an entry Remotion looks for one where it usually is.
    """

    def on_line(line: str) -> None:
        found = _BUNDLED.match(line)
        if found:
            on_percent(int(found[1]))

    with scratch(environment) as folder:
        run(
            [
                *installation.command,
                "bundle",
                *([entry] if entry else []),
                f"--out-dir={target}",
                # Where a project is kept is nobody else's business.
                "--disable-git-source",
                "--log=info",
            ],
            folder=installation.folder,
            environment={**environment, "TMPDIR": str(folder)},
            limits=limits,
            on_line=on_line,
        )
    if not (target / _PAGE).is_file():
        raise RenderFailed(("Error: Remotion made no bundle",), exit_code=0)


def compositions(
    installation: Installation,
    bundle_folder: Path,
    *,
    browser: Path,
    environment: Mapping[str, str],
    props_json: str = "{}",
    limits: Limits = NO_LIMITS,
) -> list[Composition]:
    """List what can be rendered in a bundle, with the length and size that it has with these props."""
    found: list[Composition] = []

    def on_line(line: str) -> None:
        match = _COMPOSITION.match(line)
        if match:
            size = Size(int(match["width"]), int(match["height"]))
            found.append(Composition(match["id"], size, float(match["fps"] or 0), int(match["frames"] or 1)))

    _remotion(
        installation,
        ["compositions"],
        bundle_folder,
        [],
        browser=browser,
        environment=environment,
        props_json=props_json,
        limits=limits,
        on_line=on_line,
    )
    return found


def chosen(found: list[Composition], composition: str) -> Composition:
    """Take the composition of that id, or raise UnknownComposition."""
    for one in found:
        if one.id == composition:
            return one
    raise UnknownComposition(composition, tuple(one.id for one in found))


def render(
    installation: Installation,
    bundle_folder: Path,
    video: Video,
    out: Path,
    *,
    browser: Path,
    environment: Mapping[str, str],
    props_json: str = "{}",
    limits: Limits = NO_LIMITS,
    on_frames: Callable[[int], None] = lambda _frames: None,
) -> None:
    """Render a video from a bundle into a file, whose name ends as the codec's files do.

    `on_frames` gets the number of frames that are done, never falling, never above the video's.
    """
    done = 0

    def on_line(line: str) -> None:
        nonlocal done
        match = _RENDERED.match(line)
        if match and int(match[2]) == video.frames and done < int(match[1]) <= video.frames:
            done = int(match[1])
            on_frames(done)

    drawn = drawing(video.composition.size, video.size)
    options = [
        f"--width={drawn.canvas.width}",
        f"--height={drawn.canvas.height}",
        f"--scale={drawn.scale!r}",
        f"--fps={video.fps!r}",
        f"--duration={video.frames}",
        f"--codec={video.codec}",
        "--overwrite",
    ]
    _remotion(
        installation,
        ["render"],
        bundle_folder,
        [video.composition.id, str(out), *options],
        browser=browser,
        environment=environment,
        props_json=props_json,
        limits=limits,
        on_line=on_line,
    )
    if not out.is_file():
        raise RenderFailed(("Error: Remotion wrote no video",), exit_code=0)


def _remotion(
    installation: Installation,
    command: list[str],
    bundle_folder: Path,
    options: list[str],
    *,
    browser: Path,
    environment: Mapping[str, str],
    props_json: str,
    limits: Limits,
    on_line: Callable[[str], None],
) -> None:
    """Run Remotion on a bundle."""
    if not (bundle_folder / _PAGE).is_file():
        # Remotion would take it for a project, and build that.
        raise RenderFailed((f"Error: the bundle has no {_PAGE}",), exit_code=0)
    with scratch(environment) as folder:
        props = folder / "props.json"
        props.write_text(props_json, encoding="utf-8")
        run(
            [
                *installation.command,
                *command,
                str(bundle_folder.absolute()),
                *options,
                f"--props={props}",
                # What we read is said at this level, whatever a project's configuration says.
                "--log=info",
                *browsers.flags(browser),
            ],
            folder=installation.folder,
            environment={**environment, "TMPDIR": str(folder)},
            limits=limits,
            on_line=on_line,
        )
