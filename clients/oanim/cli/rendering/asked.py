"""What `oanim render` is asked for: its options first, then animate.json, then the composition."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from oanim.cli.failures import FAILED, USAGE, Failure
from oanim_remotion.codecs import SUFFIXES, Codec
from oanim_remotion.driver import Composition, Video
from oanim_remotion.pictures import Size, frames_at, with_shorter_side

if TYPE_CHECKING:
    from typing import Self

SETTINGS = "animate.json"
MIN_SIDE, MAX_SIDE = 16, 7_680
MAX_FPS = 120
# The format counts a frame's time in hundredths of a second, and players take no less than two for true.
MAX_GIF_FPS = 50

_FALLBACK_FPS = 30
_FALLBACK_NAME = "video"
_SHORTER_SIDES = {"2k": 1_440, "4k": 2_160, "8k": 4_320}
_SHORTER_SIDE = re.compile(r"([0-9]{2,4})p", re.ASCII)
_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})", re.ASCII)


class Resolution(NamedTuple):
    """A size, or the pixels of the shorter side of whatever shape the composition has."""

    size: Size | None
    shorter_side: int = 0

    @classmethod
    def read(cls, text: str) -> Self:
        """Read 1080p, 4k or 1280x720; raises ValueError, saying what is wrong."""
        text = text.strip().lower().replace("\N{MULTIPLICATION SIGN}", "x")
        match = _SIZE.fullmatch(text)
        if match:
            return cls(_checked(Size(int(match[1]), int(match[2]))))
        named = _SHORTER_SIDE.fullmatch(text)
        pixels = int(named[1]) if named else _SHORTER_SIDES.get(text, 0)
        if not pixels:
            raise ValueError("must be such as 1080p, 720p, 4k or 1280x720")
        _checked(Size(pixels, pixels))
        return cls(None, pixels)

    def of(self, composition: Composition) -> Size:
        """Say what it comes to for a composition."""
        return _checked(self.size or with_shorter_side(composition.size, self.shorter_side))


class Target(NamedTuple):
    """The file that the video becomes, and how it is encoded."""

    path: Path
    codec: Codec


@dataclass(frozen=True, slots=True)
class Project:
    """A project: its folder, and what its animate.json says; what that does not say is None."""

    folder: Path
    entry: str | None = None
    composition: str | None = None
    fps: int | None = None
    resolution: Resolution | None = None
    codec: Codec | None = None
    out: str | None = None

    @classmethod
    def found(cls, present: Path) -> Self:
        """Read the project that a folder is in: the next animate.json from there upwards."""
        for folder in (present, *present.parents):
            path = folder / SETTINGS
            if path.is_file():
                return cls._read(path)
        return cls(present)

    @classmethod
    def _read(cls, path: Path) -> Self:
        try:
            said = json.loads(path.read_bytes())
        except ValueError as error:
            raise Failure(f"{path} is not JSON: {error}.", USAGE) from error
        if not isinstance(said, dict):
            raise Failure(f"{path} must hold a JSON object.", USAGE)
        try:
            return cls(
                folder=path.parent,
                entry=_text(said, "entry"),
                composition=_text(said, "composition"),
                fps=_fps(said),
                resolution=_resolution(said),
                codec=_codec(said),
                out=_text(said, "out"),
            )
        except ValueError as error:
            raise Failure(f"{path}: {error}.", USAGE) from error


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for on the command line; None where nothing is."""

    project: Project
    composition: str | None
    out: str | None
    fps: int | None
    resolution: Resolution | None
    codec: Codec | None
    props_json: str

    def target(self) -> Target:
        """Decide which file the video becomes: an ending and an encoding that go together."""
        if self.out is not None:
            return self._named(self.out)
        codec = self.codec or self.project.codec
        out = self.project.folder / (self.project.out or f"out/{self._name}")
        suffix = out.suffix.lower()
        if codec is None:
            codec = _of_suffix(suffix) or Codec.H264
        return Target(out if suffix in SUFFIXES[codec] else out.with_suffix(codec.suffix), codec)

    def video(self, compositions: list[Composition]) -> Video:
        """Decide what is rendered, given what there is."""
        chosen = self._chosen(compositions)
        # A still has no pace of its own.
        fps = self.fps or self.project.fps or chosen.fps or _FALLBACK_FPS
        frames = frames_at(chosen.frames, fps=chosen.fps or fps, new_fps=fps)
        resolution = self.resolution or self.project.resolution
        own = Size(chosen.size.width // 2 * 2, chosen.size.height // 2 * 2)
        try:
            size = resolution.of(chosen) if resolution else _checked(own)
        except ValueError as error:
            raise Failure(
                f"--res: {chosen.id} is {chosen.size}, and a video's size {error}.", USAGE
            ) from error
        codec = self.target().codec
        if codec is Codec.GIF and fps > MAX_GIF_FPS:
            raise Failure(
                f"a GIF has at most {MAX_GIF_FPS} frames a second, not {fps:g}. Give it fewer: --fps 25",
                USAGE,
            )
        return Video(chosen, size, int(fps) if fps == int(fps) else fps, frames, codec)

    @property
    def _name(self) -> str:
        return self.composition or self.project.composition or _FALLBACK_NAME

    def _named(self, out: str) -> Target:
        """Read --out: what ends as a folder does is one, whether it is there or not."""
        path = Path(out)
        codec = self.codec or self.project.codec
        if out.endswith((os.sep, os.altsep or os.sep)) or path.is_dir():
            codec = codec or Codec.H264
            return Target(path / f"{self._name}{codec.suffix}", codec)
        suffix = path.suffix.lower()
        if not suffix:
            codec = codec or Codec.H264
            return Target(path.with_name(f"{path.name}{codec.suffix}"), codec)
        if self.codec is None and (codec is None or suffix not in SUFFIXES[codec]):
            codec = _of_suffix(suffix)
        if codec is None or suffix not in SUFFIXES[codec]:
            fitting = SUFFIXES[codec] if codec else sorted({each for of in SUFFIXES.values() for each in of})
            raise Failure(
                f"--out: {path.name} must end in {' or '.join(fitting)}{f' for {codec}' if codec else ''}.",
                USAGE,
            )
        return Target(path, codec)

    def _chosen(self, compositions: list[Composition]) -> Composition:
        wanted = self.composition or self.project.composition
        there = ", ".join(one.id for one in compositions) or "none"
        if wanted is None:
            if len(compositions) == 1:
                return compositions[0]
            raise Failure(f"which composition? There is: {there}. Name one: --composition ID", USAGE)
        for one in compositions:
            if one.id == wanted:
                return one
        source, code = ("--composition", USAGE) if self.composition else (SETTINGS, FAILED)
        raise Failure(f"{source}: there is no composition {wanted!r}. There is: {there}.", code)


def props_of(source: str | None) -> str:
    """Read --props: a JSON object, or the path of a file that holds one."""
    if source is None:
        return "{}"
    text = source
    if not source.lstrip().startswith("{"):
        try:
            text = Path(source).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise Failure(
                f"--props: {source} is neither a JSON object nor a file of one: {why}.", USAGE
            ) from error
    try:
        props = json.loads(text)
    except ValueError as error:
        raise Failure(f"--props: it is not JSON: {error}.", USAGE) from error
    if not isinstance(props, dict):
        raise Failure("--props: it must be a JSON object.", USAGE)
    return text


def _checked(size: Size) -> Size:
    if size.width % 2 or size.height % 2:
        raise ValueError(f"must have even sides, not {size}")
    if not (min(size) >= MIN_SIDE and max(size) <= MAX_SIDE):
        raise ValueError(f"must have sides from {MIN_SIDE} to {MAX_SIDE:,} pixels, not {size}")
    return size


def _of_suffix(suffix: str) -> Codec | None:
    return next((codec for codec, suffixes in SUFFIXES.items() if suffix in suffixes), None)


def _text(said: dict[str, Any], name: str) -> str | None:
    value = said.get(name)
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise ValueError(f"{name} must be a text, not {value!r}")
    return value


def _fps(said: dict[str, Any]) -> int | None:
    value = said.get("fps")
    if value is not None and (type(value) is not int or not 1 <= value <= MAX_FPS):
        raise ValueError(f"fps must be a whole number from 1 to {MAX_FPS}, not {value!r}")
    return value


def _resolution(said: dict[str, Any]) -> Resolution | None:
    text = _text(said, "resolution")
    try:
        return Resolution.read(text) if text else None
    except ValueError as error:
        raise ValueError(f"resolution {error}") from error


def _codec(said: dict[str, Any]) -> Codec | None:
    text = _text(said, "codec")
    if text is not None and text not in list(Codec):
        raise ValueError(f"codec must be one of {', '.join(Codec)}, not {text!r}")
    return Codec(text) if text else None
