"""Draws pictures that show what was asked for, and really edits, cuts out and enlarges given ones.

The same prompt, size and seed draw the same picture.
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageFont, ImageOps
from PIL.PngImagePlugin import PngInfo

if TYPE_CHECKING:
    from pathlib import Path

    Colour = tuple[int, int, int]

_SHAPES = 14
_FLOOD_SIDE = 256
_FLOOD_TOLERANCE = 60
_CAPTION_LINES = 3


def draw(prompt: str, width: int, height: int, seed: int) -> Image.Image:
    """Draw a prompt: a gradient where it asks for one, otherwise shapes that the prompt decides."""
    chance = random.Random(f"{seed}:{prompt}")
    picture = gradient(colours(prompt, chance), width, height)
    if "gradient" not in prompt.lower():
        _scatter(picture, chance)
    return _captioned(picture, f"{prompt} ({width}x{height})")


def edit(source: Image.Image, prompt: str) -> Image.Image:
    """Tint a picture in the prompt's colour and write the prompt on it."""
    tint = colours(prompt, random.Random(prompt))[0]
    picture = Image.blend(source.convert("RGB"), Image.new("RGB", source.size, tint), 0.35)
    return _captioned(picture, prompt)


def cut_out(source: Image.Image) -> Image.Image:
    """Make everything transparent that can be reached from the corners without a change of colour."""
    picture = source.convert("RGB")
    # Pillow floods pixel by pixel in Python: a small copy decides, and its mask is enlarged.
    shrink = max(1, max(picture.size) / _FLOOD_SIDE)
    small_size = (max(1, round(picture.width / shrink)), max(1, round(picture.height / shrink)))
    small = picture.resize(small_size, Image.Resampling.BOX)
    flooded = small.copy()
    right, bottom = small.width - 1, small.height - 1
    for corner in ((0, 0), (right, 0), (0, bottom), (right, bottom)):
        here = small.getpixel(corner)
        if flooded.getpixel(corner) == here and isinstance(here, tuple):
            far_away = (0, 0, 0) if sum(here) > 382 else (255, 255, 255)
            ImageDraw.floodfill(flooded, corner, far_away, thresh=_FLOOD_TOLERANCE)
    changed = ImageChops.difference(small, flooded).convert("L")
    alpha = changed.point(lambda change: 0 if change else 255).resize(picture.size, Image.Resampling.BILINEAR)
    picture.putalpha(alpha)
    return picture


def enlarge(source: Image.Image, factor: int) -> Image.Image:
    """Make a picture `factor` times as wide and as high."""
    return source.convert("RGBA" if "A" in source.getbands() else "RGB").resize(
        (source.width * factor, source.height * factor), Image.Resampling.LANCZOS
    )


def save(picture: Image.Image, path: Path, prompt: str) -> None:
    """Write a PNG that says in its metadata what it was made from, and that a sandbox made it."""
    about = PngInfo()
    about.add_itxt("Description", prompt)
    about.add_text("Software", "oanim sandbox")
    picture.save(path, "PNG", pnginfo=about, compress_level=3)


def colours(prompt: str, chance: random.Random) -> list[Colour]:
    """Find the two or three colours a prompt names; where it names fewer, chance adds some."""
    named = [word for word in re.findall(r"[a-z]+", prompt.lower()) if word in ImageColor.colormap]
    found = [_rgb(name) for name in dict.fromkeys(named)][:3]
    while len(found) < 2:
        found.append((chance.randrange(256), chance.randrange(256), chance.randrange(256)))
    return found


def gradient(stops: list[Colour], width: int, height: int) -> Image.Image:
    """Blend two or three colours from the upper left to the lower right."""
    down = Image.linear_gradient("L")
    slope = Image.blend(down, down.transpose(Image.Transpose.ROTATE_90), 0.5)
    # The blend's first and last brightness are not quite black and white.
    slope = ImageOps.autocontrast(slope).resize((width, height), Image.Resampling.BICUBIC)
    if len(stops) == 2:
        return ImageOps.colorize(slope, stops[0], stops[1])
    return ImageOps.colorize(slope, stops[0], stops[2], mid=stops[1])


def _scatter(picture: Image.Image, chance: random.Random) -> None:
    pen = ImageDraw.Draw(picture)
    reach = max(2, min(picture.size) // 3)
    for _ in range(_SHAPES):
        x, y = chance.randrange(picture.width), chance.randrange(picture.height)
        across, along = chance.randrange(1, reach), chance.randrange(1, reach)
        box = (x - across, y - along, x + across, y + along)
        colour = (chance.randrange(256), chance.randrange(256), chance.randrange(256))
        if chance.random() < 0.5:
            pen.ellipse(box, fill=colour)
        else:
            pen.rectangle(box, fill=colour)


def _captioned(picture: Image.Image, text: str) -> Image.Image:
    """Write a text in a dark band at the foot, as much of it as fits."""
    size = max(8, min(40, min(picture.size) // 22))
    font = ImageFont.load_default(size)
    lines = _wrapped(text, font, picture.width - size)
    band = int((len(lines) + 0.6) * size * 1.25)
    if band > picture.height // 2:
        return picture
    foot = picture.crop((0, picture.height - band, picture.width, picture.height))
    picture.paste(Image.blend(foot, Image.new("RGB", foot.size), 0.6), (0, picture.height - band))
    pen = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        top = picture.height - band + size * 0.375 + number * size * 1.25
        pen.text((size / 2, top), line, fill="white", font=font)
    return picture


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= width:
            lines[-1] = longer
        elif len(lines) == _CAPTION_LINES:
            lines[-1] += "..."
            break
        else:
            lines.append(word)
    return lines


def _rgb(name: str) -> Colour:
    red, green, blue = ImageColor.getrgb(name)[:3]
    return red, green, blue
