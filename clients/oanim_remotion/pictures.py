"""How a composition is drawn at another size, and how long it is at another pace."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple


class Size(NamedTuple):
    """A picture's size in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


class Drawing(NamedTuple):
    """What a composition is laid out on, and the factor from there to the picture."""

    canvas: Size
    scale: float


# How far the canvas may be from the composition's own size, for the sake of whole pixels: 1 in 100.
_TOLERANCE = 100


def drawing(own: Size, wanted: Size) -> Drawing:
    """Decide how a composition becomes a picture of a size.

    A picture of the composition's own shape is the same picture, scaled. For another shape the composition is
    laid out anew, as if it had been made at that size. Remotion insists on products that are whole numbers.
    """
    by_height = Fraction(wanted.height, own.height)
    by_width = Fraction(wanted.width, own.width)
    for factor in (by_height, by_width):
        width, height = wanted.width / factor, wanted.height / factor
        is_near = abs(width - own.width) * _TOLERANCE <= own.width
        is_near &= abs(height - own.height) * _TOLERANCE <= own.height
        if is_near and width.denominator == height.denominator == 1:
            canvas, scale = Size(int(width), int(height)), float(factor)
            if (canvas.width * scale, canvas.height * scale) == wanted:
                return Drawing(canvas, scale)
    return Drawing(wanted, 1.0)


def with_shorter_side(own: Size, pixels: int) -> Size:
    """Size a composition so that its shorter side has so many pixels, and the other one fits, both even."""
    shorter, longer = min(own), max(own)
    # Steps of the longer side that come from whole pixels of the composition, if they are fine enough.
    step = Fraction(pixels, shorter).numerator
    step *= 1 if step % 2 == 0 else 2
    exact = Fraction(longer * pixels, shorter)
    fitting = round(exact / step) * step
    if abs(fitting - exact) * _TOLERANCE > exact:
        fitting = round(exact / 2) * 2
    return Size(fitting, pixels) if own.width >= own.height else Size(pixels, fitting)


def frames_at(frames: int, *, fps: float, new_fps: float) -> int:
    """How many frames last as long at another pace; at least one."""
    return max(1, round(frames * Fraction(new_fps) / Fraction(fps)))
