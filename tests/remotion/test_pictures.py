from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oanim_remotion.pictures import Drawing, Size, drawing, frames_at, with_shorter_side

FULL_HD = Size(1920, 1080)
SIDES = st.integers(16, 7_680)


@pytest.mark.parametrize(
    ("own", "wanted", "drawn"),
    [
        (FULL_HD, FULL_HD, Drawing(FULL_HD, 1.0)),
        (FULL_HD, Size(1280, 720), Drawing(FULL_HD, 2 / 3)),
        (FULL_HD, Size(3840, 2160), Drawing(FULL_HD, 2.0)),
        (Size(1080, 1920), Size(720, 1280), Drawing(Size(1080, 1920), 2 / 3)),
        (FULL_HD, Size(852, 480), Drawing(Size(1917, 1080), 480 / 1080)),
        (FULL_HD, Size(1080, 1920), Drawing(Size(1080, 1920), 1.0)),
        (FULL_HD, Size(1000, 1000), Drawing(Size(1000, 1000), 1.0)),
        (Size(1921, 1081), Size(1920, 1080), Drawing(Size(1920, 1080), 1.0)),
    ],
)
def test_a_picture_of_the_same_shape_is_scaled_and_another_is_laid_out_anew(
    own: Size, wanted: Size, drawn: Drawing
) -> None:
    assert drawing(own, wanted) == drawn


@given(own=st.tuples(SIDES, SIDES), wanted=st.tuples(SIDES, SIDES))
def test_a_drawing_comes_out_at_exactly_the_size_that_is_wanted(
    own: tuple[int, int], wanted: tuple[int, int]
) -> None:
    drawn = drawing(Size(*own), Size(*wanted))

    assert (drawn.canvas.width * drawn.scale, drawn.canvas.height * drawn.scale) == wanted


@pytest.mark.parametrize(
    ("own", "pixels", "size"),
    [
        (FULL_HD, 1080, FULL_HD),
        (FULL_HD, 720, Size(1280, 720)),
        (FULL_HD, 480, Size(852, 480)),
        (FULL_HD, 2160, Size(3840, 2160)),
        (Size(1080, 1920), 720, Size(720, 1280)),
        (Size(1080, 1080), 720, Size(720, 720)),
        (Size(1920, 804), 720, Size(1720, 720)),
        (Size(1919, 1079), 720, Size(1280, 720)),
    ],
)
def test_a_shorter_side_decides_the_longer_one(own: Size, pixels: int, size: Size) -> None:
    assert with_shorter_side(own, pixels) == size


@given(own=st.tuples(SIDES, SIDES), pixels=st.integers(8, 1_000).map(lambda half: half * 2))
def test_both_sides_are_even_and_the_shape_stays(own: tuple[int, int], pixels: int) -> None:
    size = with_shorter_side(Size(*own), pixels)

    assert (size.width % 2, size.height % 2) == (0, 0)
    assert abs(max(size) / pixels - max(own) / min(own)) <= 0.011 * max(own) / min(own) + 1 / pixels


@pytest.mark.parametrize(
    ("frames", "fps", "new_fps", "expected"),
    [(60, 30, 30, 60), (60, 30, 10, 20), (60, 30, 60, 120), (1, 30, 5, 1), (90, 29.97, 30, 90)],
)
def test_another_pace_keeps_the_length(frames: int, fps: float, new_fps: int, expected: int) -> None:
    assert frames_at(frames, fps=fps, new_fps=new_fps) == expected
