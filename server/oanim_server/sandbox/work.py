"""Does what a model's input asks for, and answers as that model does.

An input that the model would refuse is refused in fal.ai's shape, with the field's place in it.
"""

from __future__ import annotations

import base64
import binascii
import io
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from PIL import Image

from oanim_models import catalogue
from oanim_models.inputs import PRESETS
from oanim_models.quantities import InvalidInput, quantity_of
from oanim_server.sandbox import media, pictures

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_CATALOGUE = catalogue.load()
# What a model that is not listed does, by a word in its name.
_GUESSES = (
    ("video", "video"),
    ("speech", "audio"),
    ("tts", "audio"),
    ("music", "audio"),
    ("audio", "audio"),
    ("sound", "audio"),
    ("upscale", "upscale"),
    ("background", "background"),
    ("rembg", "background"),
    ("edit", "edit"),
)
_MAX_IMAGES = 8
_MAX_SIDE = 4096
_MAX_PIXELS = 64_000_000
_MAX_SECONDS = 3600
_FRAME = {"16:9": (320, 180), "9:16": (180, 320), "1:1": (240, 240)}


class BadInput(Exception):
    """The model refuses its input; `detail` is what fal.ai answers with 422."""

    def __init__(self, field: str, message: str, kind: str = "value_error") -> None:
        super().__init__(message)
        self.detail = [{"loc": ["body", *field.split(".")], "msg": message, "type": kind}]


class Work:
    """One job's input, the folder its files go to, and how a picture named in the input is found.

    `find` takes an address and gives the file it names on this sandbox, or None.
    """

    def __init__(
        self,
        endpoint: str,
        asked: dict[str, Any],
        *,
        folder: Path,
        files_url: str,
        find: Callable[[str], Path | None],
    ) -> None:
        self._endpoint = endpoint
        self._asked = asked
        self._folder = folder
        self._files_url = files_url
        self._find = find
        self._price = _CATALOGUE.price(endpoint) or _CATALOGUE.fallback(endpoint)
        self.quantity = 0

    def do(self) -> dict[str, Any]:
        """Make the files and answer the model's result. Raises BadInput."""
        try:
            self.quantity = quantity_of(self._price, self._asked)
        except InvalidInput as error:
            raise BadInput(error.field, error.description) from error
        match self._kind():
            case "edit":
                made = self._edit()
            case "background":
                made = {"image": self._picture("cut-out.png", pictures.cut_out(self._source()))}
            case "upscale":
                made = {"image": self._picture("upscaled.png", self._enlarged())}
            case "video":
                made = {"video": self._film()}
            case "audio":
                made = {"audio": self._sound()}
            case _:
                made = self._draw()
        return {**made, "sandbox": True}

    def _kind(self) -> str:
        if self._price.category in ("other", "render"):
            guesses = (kind for word, kind in _GUESSES if word in self._endpoint)
            return next(guesses, "image")
        return self._price.category

    def _draw(self) -> dict[str, Any]:
        prompt = self._text("prompt")
        width, height = self._size()
        seed = self._seed()
        images = [
            self._picture(f"{number}.png", pictures.draw(prompt, width, height, seed + number), prompt)
            for number in range(self._count())
        ]
        return {
            "images": images,
            "seed": seed,
            "has_nsfw_concepts": [False] * len(images),
            "prompt": prompt,
        }

    def _edit(self) -> dict[str, Any]:
        prompt = self._text("prompt")
        edited = pictures.edit(self._source(), prompt)
        images = [self._picture(f"{number}.png", edited, prompt) for number in range(self._count())]
        return {"images": images, "seed": self._seed(), "prompt": prompt}

    def _enlarged(self) -> Image.Image:
        source = self._source()
        factor = self._asked.get("upscale_factor", 2)
        if not isinstance(factor, int | float) or isinstance(factor, bool) or not 1 <= factor <= 8:
            raise BadInput("upscale_factor", "Input should be between 1 and 8", "less_than_equal")
        if source.width * source.height * factor * factor > _MAX_PIXELS:
            raise BadInput("upscale_factor", f"The picture would have more than {_MAX_PIXELS} pixels")
        return pictures.enlarge(source, round(factor))

    def _film(self) -> dict[str, Any]:
        prompt = self._text("prompt")
        shape = self._asked.get("aspect_ratio", "16:9")
        if shape not in _FRAME:
            raise BadInput("aspect_ratio", f"Input should be one of {', '.join(_FRAME)}", "literal_error")
        path = self._folder / "video.mp4"
        media.film(path, prompt, self._seconds(Fraction(5)), _FRAME[shape])
        return self._file(path, "video/mp4")

    def _sound(self) -> dict[str, Any]:
        path = self._folder / "audio.wav"
        if self._price.quantity_field == "text" or "text" in self._asked:
            media.speech(path, self._text("text"))
        else:
            media.music(path, self._text("prompt"), self._seconds(Fraction(5)))
        return self._file(path, "audio/wav")

    def _picture(self, name: str, picture: Image.Image, prompt: str = "") -> dict[str, Any]:
        path = self._folder / name
        pictures.save(picture, path, prompt)
        return {**self._file(path, "image/png"), "width": picture.width, "height": picture.height}

    def _file(self, path: Path, content_type: str) -> dict[str, Any]:
        return {
            "url": f"{self._files_url}/{path.name}",
            "content_type": content_type,
            "file_name": path.name,
            "file_size": path.stat().st_size,
        }

    def _text(self, field: str) -> str:
        value = self._asked.get(field)
        if value is None:
            raise BadInput(field, "Field required", "missing")
        if not isinstance(value, str):
            raise BadInput(field, "Input should be a valid string", "string_type")
        if not value.strip():
            raise BadInput(field, "String should have at least 1 character", "string_too_short")
        return value

    def _count(self) -> int:
        asked = self._asked.get("num_images")
        count = int(asked) if isinstance(asked, int | str) and str(asked).isdigit() else 1
        if not 1 <= count <= _MAX_IMAGES:
            raise BadInput("num_images", f"Input should be between 1 and {_MAX_IMAGES}", "less_than_equal")
        return count

    def _seed(self) -> int:
        seed = self._asked.get("seed")
        return seed if isinstance(seed, int) else 0

    def _size(self) -> tuple[int, int]:
        size = self._asked.get("image_size")
        if isinstance(size, str) and size in PRESETS:
            return PRESETS[size]
        if size is None:
            return self._shape()
        if isinstance(size, dict):
            width, height = size.get("width"), size.get("height")
            if isinstance(width, int) and isinstance(height, int):
                if 1 <= width <= _MAX_SIDE and 1 <= height <= _MAX_SIDE:
                    return width, height
                raise BadInput("image_size", f"Sides should be 1 to {_MAX_SIDE}", "less_than_equal")
        raise BadInput("image_size", "Input should be a preset or an object with width and height")

    def _shape(self) -> tuple[int, int]:
        """Turn an aspect ratio into a size of about a megapixel."""
        wide, _, high = str(self._asked.get("aspect_ratio") or "4:3").partition(":")
        if not (wide.isdigit() and high.isdigit() and 0 < int(wide) < 100 and 0 < int(high) < 100):
            raise BadInput("aspect_ratio", "Input should be like 16:9", "literal_error")
        ratio = Fraction(int(wide), int(high))
        return (1024, round(1024 / ratio)) if ratio >= 1 else (round(1024 * ratio), 1024)

    def _seconds(self, default: Fraction) -> Fraction:
        asked = self._asked.get("duration")
        if asked is None:
            seconds = Fraction(self.quantity) if self._price.unit == "second" else default
        else:
            try:
                seconds = Fraction(str(asked).removesuffix("s"))
            except ValueError as error:
                raise BadInput("duration", "Input should be a number of seconds") from error
        if not 0 < seconds <= _MAX_SECONDS:
            raise BadInput("duration", f"Input should be at most {_MAX_SECONDS}", "less_than_equal")
        return seconds

    def _source(self) -> Image.Image:
        """Open the picture that the input names: a data URL, or a file this sandbox made."""
        several = self._asked.get("image_urls")
        field = "image_url" if several is None else "image_urls"
        address = several[0] if isinstance(several, list) and several else self._asked.get("image_url")
        if address is None:
            raise BadInput(field, "Field required", "missing")
        if not isinstance(address, str):
            raise BadInput(field, "Input should be a valid string", "string_type")
        try:
            picture = Image.open(self._open(address))
            if picture.width * picture.height > _MAX_PIXELS:
                raise BadInput(field, f"The picture has more than {_MAX_PIXELS} pixels")
            picture.load()
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise BadInput(field, "Failed to load the image", "image_load_error") from error
        return picture

    def _open(self, address: str) -> io.BytesIO | Path:
        if address.startswith("data:"):
            head, _, body = address.partition(",")
            if not head.endswith(";base64"):
                raise ValueError("a data URL of a picture is base64")
            try:
                return io.BytesIO(base64.b64decode(body, validate=True))
            except binascii.Error as error:
                raise ValueError("not base64") from error
        path = self._find(address)
        if path is None:
            raise ValueError("the sandbox reads no other host")
        return path
