from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest

from oanim_remotion.codecs import Codec
from oanim_remotion.driver import (
    Composition,
    Video,
    bare_environment,
    chosen,
    compositions,
    render,
)
from oanim_remotion.errors import OutOfMemory, RenderFailed, Stopped, TimedOut, UnknownComposition
from oanim_remotion.pictures import Size
from oanim_remotion.running import Limits
from tests.videos import Seen, colour_at, seen

if TYPE_CHECKING:
    from pathlib import Path

    from oanim_remotion.installation import Installation

# The first of them installs Remotion, from a cold cache perhaps, and bundles what all of them render.
pytestmark = pytest.mark.timeout(600)

PLAIN = Composition("Plain", Size(320, 180), 30.0, 30)
STILL = Composition("Still", Size(320, 180), 0.0, 1)
WHITE, RED, BLUE = (255, 255, 255), (255, 0, 0), (0, 0, 255)


class House:
    """A bundle, a Remotion, a browser, and a folder for what comes of them."""

    def __init__(self, remotion: Installation, bundle: Path, browser: Path, folder: Path) -> None:
        self.remotion, self.bundle, self.browser, self.folder = remotion, bundle, browser, folder
        self.frames: list[int] = []

    def render(self, video: Video, props_json: str = "{}", **options: Any) -> Path:
        out = self.folder / f"{video.composition.id}-{video.size}-{video.fps}{video.codec.suffix}"
        render(
            self.remotion,
            self.bundle,
            video,
            out,
            browser=self.browser,
            environment=bare_environment(self.folder),
            props_json=props_json,
            on_frames=self.frames.append,
            **options,
        )
        return out

    def compositions(self, props_json: str) -> list[Composition]:
        return compositions(
            self.remotion,
            self.bundle,
            browser=self.browser,
            environment=bare_environment(self.folder),
            props_json=props_json,
        )


@pytest.fixture
def house(remotion: Installation, bundle: Path, browser: Path, tmp_path: Path) -> House:
    return House(remotion, bundle, browser, tmp_path)


def close_to(colour: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    return all(abs(one - two) < 40 for one, two in zip(colour, other, strict=True))


def test_compositions_are_listed_with_the_length_that_the_props_give_them(house: House) -> None:
    found = house.compositions('{"seconds": 3}')

    assert found == [PLAIN._replace(frames=90), STILL]
    assert chosen(found, "Still") == STILL
    with pytest.raises(UnknownComposition, match=r"no composition 'Main'; there is: Plain, Still"):
        chosen(found, "Main")


def test_a_video_has_the_size_the_pace_the_length_and_the_props_that_were_asked_for(house: House) -> None:
    out = house.render(Video(PLAIN, Size(160, 90), 10, 10, Codec.H264), '{"colour": "#0000ff"}')

    assert seen(out) == Seen("h264", 160, 90, Fraction(10), 10)
    assert house.frames[-1] == 10
    assert house.frames == sorted(set(house.frames))
    assert close_to(colour_at(out, 0.25, 0.5), WHITE)
    assert close_to(colour_at(out, 0.75, 0.5), BLUE)


def test_a_frame_that_cannot_be_drawn_fails_the_render(house: House) -> None:
    with pytest.raises(RenderFailed, match=r"^this frame cannot be drawn$") as failed:
        house.render(Video(PLAIN, Size(64, 36), 30, 30, Codec.H264), '{"failAt": 4}')

    assert any("rendering frame 4" in line for line in failed.value.lines)
    assert list(house.folder.glob("*.mp4")) == []


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        (Limits(time_seconds=4), TimedOut),
        (Limits(memory_bytes=50_000_000), OutOfMemory),
    ],
    ids=["time", "memory"],
)
def test_a_render_that_takes_too_much_is_ended(house: House, limits: Limits, error: type[Exception]) -> None:
    video = Video(PLAIN._replace(frames=900), Size(64, 36), 30, 900, Codec.H264)
    with pytest.raises(error):
        house.render(video, '{"busyMs": 1000}', limits=limits)

    assert list(house.folder.glob("*.mp4")) == []


def test_a_render_is_stopped_at_once(house: House) -> None:
    stop = threading.Event()
    video = Video(PLAIN._replace(frames=900), Size(64, 36), 30, 900, Codec.H264)
    with ThreadPoolExecutor() as pool:
        rendering = pool.submit(house.render, video, '{"busyMs": 200}', limits=Limits(stop=stop))
        while not house.frames and not rendering.done():
            time.sleep(0.05)
        stop.set()
        stopped = time.monotonic()
        with pytest.raises(Stopped):
            rendering.result()

    assert time.monotonic() - stopped < 10


def test_renders_side_by_side_do_not_disturb_each_other(house: House) -> None:
    scaled = Video(PLAIN, Size(160, 90), 30, 5, Codec.H265)
    laid_out_anew = Video(PLAIN, Size(180, 320), 5, 2, Codec.VP8)
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(house.render, [scaled, laid_out_anew])

    assert seen(first) == Seen("hevc", 160, 90, Fraction(30), 5)
    assert seen(second) == Seen("vp8", 180, 320, Fraction(5), 2)
    assert close_to(colour_at(second, 0.5, 0.25), WHITE)
    assert close_to(colour_at(second, 0.5, 0.9), RED)


def test_what_is_no_bundle_is_not_taken_for_a_project(house: House) -> None:
    (house.folder / "index.ts").write_text("registerRoot(() => null)")
    house.bundle = house.folder
    with pytest.raises(RenderFailed, match=r"the bundle has no index\.html"):
        house.render(Video(PLAIN, Size(64, 36), 30, 5, Codec.H264))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            [
                "Bundling 98%",
                "Error: Module build failed (from ./node_modules/@remotion/bundler/esbuild-loader/index.js):",
                "Error: Transform failed with 1 error:",
                'src/Main.tsx:3:0: ERROR: Expected ">" but found end of file',
                "at failureErrorWithLog (node_modules/esbuild/lib/main.js:1748:15)",
            ],
            'src/Main.tsx:3:0: Expected ">" but found end of file',
        ),
        (
            ["Rendered 3/60", "An error occurred:", "Error  Error: No such thing", "at a.js:3"],
            "No such thing",
        ),
        (["TypeError: The prop must be a number"], "The prop must be a number"),
        (["Killed"], "Killed"),
        ([], "Remotion ended with exit code 1, and said nothing"),
    ],
)
def test_of_all_that_remotion_says_the_line_that_says_why_is_found(said: list[str], why: str) -> None:
    assert str(RenderFailed(tuple(said), exit_code=1)) == why
