"""Frames are counted as a player shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import av
import pytest

from oanim_farm.frames import counted

if TYPE_CHECKING:
    from pathlib import Path

VP8_SHOWN = 0x10


def film(path: Path, encoder: str, *, hidden: tuple[int, ...] = (), **options: str) -> int:
    """A film of 60 frames, some of which are only there for others to refer to; how many a player shows."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(encoder, 30, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        packets: list[Any] = []
        for number in range(60):
            frame = av.VideoFrame(64, 64, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([number * 4]) * plane.buffer_size)
            packets += stream.encode(frame)
        for number, packet in enumerate([*packets, *stream.encode()]):
            container.mux(_hidden(packet) if number in hidden else packet)
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def _hidden(packet: Any) -> Any:
    content = bytearray(bytes(packet))
    content[0] &= ~VP8_SHOWN
    changed = av.Packet(bytes(content))
    for name in ("stream", "pts", "dts", "duration", "time_base"):
        setattr(changed, name, getattr(packet, name))
    return changed


@pytest.mark.parametrize(
    ("encoder", "suffix"),
    [("libx264", "mp4"), ("libx265", "mp4"), ("libvpx", "webm"), ("libvpx-vp9", "webm")],
)
def test_every_frame_counts_once(tmp_path: Path, encoder: str, suffix: str) -> None:
    path = tmp_path / f"video.{suffix}"
    assert (film(path, encoder), counted(path)) == (60, 60)


def test_frames_out_of_order_count_once(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    assert (film(path, "libx264", bf="4"), counted(path)) == (60, 60)


def test_a_frame_that_nobody_sees_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "video.webm"
    assert (film(path, "libvpx", hidden=(20, 40)), counted(path)) == (58, 58)
