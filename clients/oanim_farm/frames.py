"""Counts the frames of a video, in a process of its own: a video made with a stranger's code is a stranger's.

What is charged is what is in the file, whatever was said on the way to it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import av

from oanim_remotion.errors import RenderFailed
from oanim_remotion.running import run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oanim_remotion.running import Limits

_VP8_SHOWN = 0x10


def count(video: Path, *, environment: Mapping[str, str], limits: Limits) -> int:
    """Count the frames that are shown.

    :raises RemotionError: for a file that is no video, and where a limit is passed.
    """
    said: list[str] = []
    run(
        [sys.executable, "-I", "-m", "oanim_farm.frames", str(video)],
        folder=video.parent,
        environment=environment,
        limits=limits,
        on_line=said.append,
    )
    if len(said) != 1 or not said[0].isdecimal():
        raise RenderFailed(tuple(said), exit_code=0)
    return int(said[0])


def counted(video: Path) -> int:
    """Count in this process, packet by packet, without decoding."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        is_vp8 = stream.codec_context.name == "vp8"
        packets = (packet for packet in container.demux(stream) if packet.size)
        # VP8 alone has frames that only others refer to as packets of their own; their header says so.
        return sum(not is_vp8 or bool(bytes(packet)[0] & _VP8_SHOWN) for packet in packets)


if __name__ == "__main__":
    sys.stdout.write(f"{counted(Path(sys.argv[1]))}\n")
