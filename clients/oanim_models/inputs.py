"""Turns the words of a command into the input a model takes, and finds the files in what it answered.

fal.ai's models name the same thing differently (a length of "5", "8s" or 5; one picture or a list), so
each difference is a row here; what a model does not take is refused, never dropped.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from oanim_models.quantities import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_SIDE = 14_142
PRESETS = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")

# What these models call a length; the others take no `duration`.
_DURATION_FORMS = {
    "fal-ai/minimax/hailuo-02/standard/text-to-video": "{}",
    "fal-ai/kling-video/v2.5-turbo/pro/text-to-video": "{}",
    "fal-ai/kling-video/v3/pro/text-to-video": "{}",
    "fal-ai/veo3.1": "{}s",
}
_DURATION_IN_NUMBERS = {
    "fal-ai/sora-2/text-to-video/pro",
    "beatoven/music-generation",
    "beatoven/sound-effect-generation",
}
# These take a shape instead of a size in pixels.
_TAKE_ASPECT_RATIO = {"fal-ai/nano-banana-2", "fal-ai/nano-banana-2/edit"}
_ASPECT_RATIOS = {"21:9", "16:9", "3:2", "4:3", "5:4", "1:1", "4:5", "3:4", "2:3", "9:16"}
_TAKE_A_LIST_OF_IMAGES = {"fal-ai/nano-banana-2/edit"}
_TAKE_A_FACTOR = {"fal-ai/topaz/upscale/image"}
_SPEAK = {"minimax/speech-02-hd", "fal-ai/minimax/speech-02-hd"}


@dataclass(frozen=True, slots=True)
class Output:
    """A file that a model made: where it is, and what the model says about it ("" for nothing)."""

    url: str
    content_type: str
    file_name: str


def image(model: str, *, prompt: str, size: str | None = None, count: int | None = None) -> dict[str, Any]:
    """Build the input of an image model; `size` is "1280x720" or one of PRESETS."""
    return {"prompt": _text("prompt", prompt), **_size(model, size), **_count(count)}


def edit(
    model: str, *, prompt: str, images: Sequence[str], size: str | None = None, count: int | None = None
) -> dict[str, Any]:
    """Build the input of an editing model; `images` are URLs, data URLs or uploads."""
    return {
        "prompt": _text("prompt", prompt),
        **_images(model, images),
        **_size(model, size),
        **_count(count),
    }


def background(model: str, *, picture: str) -> dict[str, Any]:
    """Build the input of a model that cuts a picture out."""
    return _images(model, [picture])


def upscale(model: str, *, picture: str, factor: int | None = None) -> dict[str, Any]:
    """Build the input of a model that enlarges a picture."""
    if factor is None:
        return _images(model, [picture])
    if model not in _TAKE_A_FACTOR:
        raise InvalidInput("factor", f"{model} takes none")
    if factor < 1:
        raise InvalidInput("factor", "must be at least 1")
    return {**_images(model, [picture]), "upscale_factor": factor}


def video(model: str, *, prompt: str, duration: int | None = None) -> dict[str, Any]:
    """Build the input of a video model; `duration` is in seconds."""
    return {"prompt": _text("prompt", prompt), **_duration(model, duration)}


def audio(model: str, *, prompt: str, duration: int | None = None) -> dict[str, Any]:
    """Build the input of a music, sound or speech model; `duration` is in seconds."""
    field = "text" if model in _SPEAK else "prompt"
    return {field: _text(field, prompt), **_duration(model, duration)}


def outputs(result: dict[str, Any]) -> list[Output]:
    """Find the files in a model's result, in its order.

    :raises ValueError: when one is at what is no address.
    """
    values = (result.get(name) for name in ("images", "image", "video", "audio", "audio_file"))
    files = (file for value in values for file in (value if isinstance(value, list) else [value]))
    return [
        _output(url, file)
        for file in files
        if isinstance(file, dict) and isinstance(url := file.get("url"), str) and url
    ]


def _output(url: str, file: dict[str, Any]) -> Output:
    content_type = file.get("content_type")
    path = "" if url.startswith("data:") else urlsplit(url).path
    name = file.get("file_name")
    if not isinstance(name, str) or not name:
        name = unquote(path.rpartition("/")[2])
    # A name is the provider's word and may end up as a file: only its last step counts.
    name = re.split(r"[/\\\0]", name)[-1]
    return Output(
        url=url,
        content_type=content_type if isinstance(content_type, str) else "",
        file_name="" if name in (".", "..") else name,
    )


def _text(field: str, value: str) -> str:
    if not value.strip():
        raise InvalidInput(field, "must not be empty")
    return value


def _count(count: int | None) -> dict[str, Any]:
    if count is None:
        return {}
    if count < 1:
        raise InvalidInput("count", "must be at least 1")
    return {"num_images": count}


def _size(model: str, size: str | None) -> dict[str, Any]:
    if size is None:
        return {}
    width, height = PRESETS.get(size) or _pixels(size)
    if model not in _TAKE_ASPECT_RATIO:
        return {"image_size": {"width": width, "height": height}}
    divisor = math.gcd(width, height)
    ratio = f"{width // divisor}:{height // divisor}"
    if ratio not in _ASPECT_RATIOS:
        raise InvalidInput(
            "size", f"{model} makes pictures of the shapes {', '.join(sorted(_ASPECT_RATIOS))}"
        )
    return {"aspect_ratio": ratio}


def _pixels(size: str) -> tuple[int, int]:
    match = _SIZE.fullmatch(size)
    if match:
        width, height = int(match[1]), int(match[2])
        if 1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE:
            return width, height
    raise InvalidInput("size", f"must be like 1280x720, or one of {', '.join(PRESETS)}")


def _images(model: str, images: Sequence[str]) -> dict[str, Any]:
    if model in _TAKE_A_LIST_OF_IMAGES and images:
        return {"image_urls": list(images)}
    if len(images) != 1:
        raise InvalidInput("images", f"{model} takes one picture")
    return {"image_url": images[0]}


def _duration(model: str, duration: int | None) -> dict[str, Any]:
    if duration is None:
        return {}
    if duration < 1:
        raise InvalidInput("duration", "must be at least 1 second")
    if model in _DURATION_IN_NUMBERS:
        return {"duration": duration}
    if model in _DURATION_FORMS:
        return {"duration": _DURATION_FORMS[model].format(duration)}
    raise InvalidInput("duration", f"{model} takes none that is known; use: oanim assets run")
