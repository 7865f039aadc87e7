"""What tests need that really render: a Remotion and a browser, and one bundle that all of them share."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import av
import pytest

from oanim_remotion import browser, driver
from oanim_remotion.errors import NoBrowser
from oanim_remotion.installation import Installation, installation, of_project

if TYPE_CHECKING:
    from fractions import Fraction

_ROOT = Path(__file__).parents[1]
_PROJECT = _ROOT / "tests" / "remotion" / "project"
# Kept from one session to the next, until `make clean`: it is pinned, and a quarter of a gigabyte.
_INSTALLED = _ROOT / "build" / "remotion"


def shared_folder(factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Name a folder that all the processes of a test session share."""
    base = factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "remotion"
    folder.mkdir(exist_ok=True)
    return folder


def present_browser() -> Path:
    """Find the browser, or skip the test: with node and npm it is what no wheel brings."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} here")
    try:
        return browser.find()
    except NoBrowser as error:
        pytest.skip(str(error))


def bundle_of_the_tests(installed: Installation, shared: Path) -> Path:
    """Bundle the tests' own project, once in a session."""
    bundle = shared / "bundle"
    with (shared / "bundle.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not bundle.exists():
            # What it imports is looked for in the folders above.
            source = shutil.copytree(_PROJECT, installed.folder / "of-the-tests", dirs_exist_ok=True)
            made = shared / "bundle.unfinished"
            environment = driver.bare_environment(shared)
            driver.bundle(of_project(source), "index.tsx", made, environment=environment)
            made.rename(bundle)
    return bundle


def install_once() -> Installation:
    """Install Remotion, once for all sessions."""
    return installation(_INSTALLED)


class Seen(NamedTuple):
    """What a video is, as somebody sees who did not make it."""

    codec: str
    width: int
    height: int
    fps: Fraction
    frames: int


def seen(path: Path) -> Seen:
    """Decode a video to its end."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        frames = sum(1 for _ in container.decode(stream))
        assert stream.average_rate is not None
        return Seen(stream.codec.name, stream.width, stream.height, stream.average_rate, frames)


def made(path: Path, *, width: int, height: int, fps: int, frames: int) -> Path:
    """Make a video, of black frames, as a worker would."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame(width, height, "yuv420p")))
        container.mux(stream.encode())
    return path


def colour_at(path: Path, x: float, y: float) -> tuple[int, int, int]:
    """Look at a point of a video's first frame; the point is given in parts of the picture's size."""
    with av.open(path) as container:
        frame = next(container.decode(video=0))
        pixels = frame.reformat(format="rgb24").planes[0]
        start = int(y * frame.height) * pixels.line_size + int(x * frame.width) * 3
        red, green, blue = bytes(pixels)[start : start + 3]
    return red, green, blue
