"""What `oanim render` comes to: options before animate.json before the composition."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from oanim.cli.failures import Failure
from oanim.cli.rendering.asked import Asked, Project, Resolution, Target, props_of
from oanim.cli.rendering.summary import in_units
from oanim_remotion.codecs import Codec
from oanim_remotion.driver import Composition, Video
from oanim_remotion.pictures import Size

if TYPE_CHECKING:
    from pathlib import Path

MAIN = Composition("Main", Size(1920, 1080), 30.0, 150)
TALL = Composition("Tall", Size(1080, 1920), 24.0, 24)
STILL = Composition("Still", Size(800, 600), 0.0, 1)
ALL = [MAIN, TALL, STILL]


def asked(project: Project, **options: Any) -> Asked:
    nothing = dict.fromkeys(("composition", "out", "fps", "resolution", "codec"))
    return Asked(project=project, **{**nothing, "props_json": "{}", **options})


def written(folder: Path, **settings: object) -> Project:
    (folder / "animate.json").write_text(json.dumps(settings))
    return Project.found(folder)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1080p", "1920x1080"),
        ("720p", "1280x720"),
        ("480p", "852x480"),
        ("4k", "3840x2160"),
        ("4K", "3840x2160"),
        ("2k", "2560x1440"),
        ("640x360", "640x360"),
        ("1080×1920", "1080x1920"),  # noqa: RUF001  (what people paste)
        (" 1080X1080 ", "1080x1080"),
    ],
)
def test_a_resolution_is_a_size_or_a_shorter_side(text: str, size: str) -> None:
    assert str(Resolution.read(text).of(MAIN)) == size


def test_a_shorter_side_keeps_the_shape() -> None:
    assert Resolution.read("720p").of(TALL) == Size(720, 1280)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("big", "must be such as 1080p, 720p, 4k or 1280x720"),
        ("1280", "must be such as 1080p, 720p, 4k or 1280x720"),
        ("1281x720", "must have even sides, not 1281x720"),
        ("7682x720", "must have sides from 16 to 7,680 pixels, not 7682x720"),
        ("14x16", "must have sides from 16 to 7,680 pixels, not 14x16"),
        ("721p", "must have even sides, not 721x721"),
    ],
)
def test_what_is_no_resolution_says_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Resolution.read(text)


def test_a_project_is_found_from_the_folders_in_it(tmp_path: Path) -> None:
    project = written(
        tmp_path, entry="src/index.ts", composition="Main", fps=24, resolution="4k", codec="vp9"
    )
    (tmp_path / "src").mkdir()

    assert Project.found(tmp_path / "src") == project
    assert project == Project(
        tmp_path, "src/index.ts", "Main", 24, Resolution(None, 2160), Codec.VP9, out=None
    )


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"fps": 0}, "fps must be a whole number from 1 to 120, not 0"),
        ({"fps": "30"}, "fps must be a whole number from 1 to 120, not '30'"),
        ({"fps": True}, "fps must be a whole number from 1 to 120, not True"),
        ({"resolution": "huge"}, "resolution must be such as 1080p"),
        ({"codec": "mpeg2"}, "codec must be one of h264, h265, vp8, vp9, prores, gif, not 'mpeg2'"),
        ({"out": 7}, "out must be a text, not 7"),
        ({"composition": " "}, "composition must be a text, not ' '"),
    ],
)
def test_a_mistake_in_animate_json_is_named(tmp_path: Path, settings: dict[str, object], why: str) -> None:
    with pytest.raises(Failure, match=why) as failed:
        written(tmp_path, **settings)

    assert failed.value.exit_code == 2
    assert str(tmp_path / "animate.json") in failed.value.sentence


@pytest.mark.parametrize("content", ["{", "[]", "7"])
def test_an_animate_json_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "animate.json").write_text(content)
    with pytest.raises(Failure, match=r"animate\.json"):
        Project.found(tmp_path)


@pytest.mark.parametrize(
    ("settings", "options", "path", "codec"),
    [
        ({}, {}, "out/video.mp4", "h264"),
        ({"composition": "Main"}, {}, "out/Main.mp4", "h264"),
        ({"out": "film.webm"}, {}, "film.webm", "vp8"),
        ({"out": "film.mp4"}, {"codec": Codec.GIF}, "film.gif", "gif"),
        ({"out": "film.mov"}, {"codec": Codec.PRORES}, "film.mov", "prores"),
        ({"codec": "vp9"}, {"out": "a.webm"}, "a.webm", "vp9"),
        ({"codec": "vp9"}, {"out": "a.mp4"}, "a.mp4", "h264"),
        ({"codec": "h265"}, {"out": "a.mp4"}, "a.mp4", "h265"),
        ({"codec": "vp9"}, {"out": "a"}, "a.webm", "vp9"),
        ({}, {"out": "a.GIF"}, "a.GIF", "gif"),
        ({}, {"out": "a.mkv", "codec": Codec.H265}, "a.mkv", "h265"),
        ({}, {"out": "films/", "composition": "Tall"}, "films/Tall.mp4", "h264"),
        ({}, {"out": ".", "codec": Codec.VP8}, "video.webm", "vp8"),
    ],
)
def test_a_file_and_an_encoding_go_together(
    here: Path, settings: dict[str, object], options: dict[str, Any], path: str, codec: str
) -> None:
    target = asked(written(here, **settings), **options).target()

    assert Target(here / target.path, target.codec) == Target(here / path, Codec(codec))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"out": "a.mp4", "codec": Codec.VP9}, "--out: a.mp4 must end in .webm for vp9."),
        (
            {"out": "a.avi"},
            "--out: a.avi must end in .gif or .hevc or .mkv or .mov or .mp4 or .mxf or .webm.",
        ),
    ],
)
def test_a_file_and_an_encoding_that_do_not_go_together_are_refused(
    here: Path, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(Failure) as failed:
        asked(Project(here), **options).target()

    assert (failed.value.sentence, failed.value.exit_code) == (why, 2)


def test_options_go_before_settings_and_settings_before_the_composition(here: Path) -> None:
    bare, settings = Project(here), written(here, composition="Main", fps=60, resolution="720p")
    options = {"composition": "Tall", "fps": 12, "resolution": Resolution.read("64x64"), "codec": Codec.VP9}

    assert asked(bare).video([MAIN]) == Video(MAIN, Size(1920, 1080), 30, 150, Codec.H264)
    assert asked(settings).video(ALL) == Video(MAIN, Size(1280, 720), 60, 300, Codec.H264)
    assert asked(settings, **options).video(ALL) == Video(TALL, Size(64, 64), 12, 12, Codec.VP9)


def test_a_still_is_one_frame_whatever_the_pace(here: Path) -> None:
    video = asked(Project(here), composition="Still", fps=60).video(ALL)

    assert (video.frames, video.fps) == (1, 60)


def test_odd_sides_of_a_composition_are_rounded_down(here: Path) -> None:
    odd = MAIN._replace(size=Size(1921, 1081))

    assert asked(Project(here)).video([odd]).size == Size(1920, 1080)


@pytest.mark.parametrize(
    ("options", "exit_code", "why"),
    [
        ({}, 2, "which composition? There is: Main, Tall, Still. Name one: --composition ID"),
        (
            {"composition": "Min"},
            2,
            "--composition: there is no composition 'Min'. There is: Main, Tall, Still.",
        ),
        (
            {"composition": "Main", "codec": Codec.GIF, "fps": 60},
            2,
            "a GIF has at most 50 frames a second, not 60. Give it fewer: --fps 25",
        ),
    ],
)
def test_what_cannot_be_rendered_says_what_to_do(
    here: Path, options: dict[str, Any], exit_code: int, why: str
) -> None:
    with pytest.raises(Failure) as failed:
        asked(Project(here), **options).video(ALL)

    assert (failed.value.sentence, failed.value.exit_code) == (why, exit_code)


def test_a_composition_that_animate_json_names_in_vain_is_named(here: Path) -> None:
    with pytest.raises(Failure, match=r"animate\.json: there is no composition 'Gone'"):
        asked(written(here, composition="Gone")).video(ALL)


def test_props_are_json_or_a_file_of_it(here: Path) -> None:
    (here / "props.json").write_text('{"title": "ä"}', "utf-8")

    assert props_of(None) == "{}"
    assert props_of(' {"a": 1}') == ' {"a": 1}'
    assert props_of("props.json") == '{"title": "ä"}'


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{", "--props: it is not JSON: "),
        ("nowhere.json", "--props: nowhere.json is neither a JSON object nor a file of one: No such file"),
        ("list.json", "--props: it must be a JSON object."),
        ("latin.json", "--props: latin.json is neither a JSON object nor a file of one: it is not UTF-8."),
    ],
)
def test_what_are_no_props_is_said(here: Path, source: str, why: str) -> None:
    (here / "list.json").write_text("[1]")
    (here / "latin.json").write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(Failure) as failed:
        props_of(source)

    assert failed.value.sentence.startswith(why)
    assert failed.value.exit_code == 2


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (1_234_567, "1.2 MB"), (5_600_000_000, "5.6 GB")],
)
def test_sizes_are_written_in_the_unit_that_suits_them(size_bytes: int, text: str) -> None:
    assert in_units(size_bytes) == text
