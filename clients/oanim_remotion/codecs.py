"""The encodings that a video may have, and the names of files that hold them."""

from __future__ import annotations

from enum import StrEnum


class Codec(StrEnum):
    """An encoding, by the name that Remotion has for it."""

    H264 = "h264"
    H265 = "h265"
    VP8 = "vp8"
    VP9 = "vp9"
    PRORES = "prores"
    GIF = "gif"

    @property
    def suffix(self) -> str:
        """The usual ending of a file's name."""
        return SUFFIXES[self][0]


# The endings that a file with it may have, the usual one first.
SUFFIXES = {
    Codec.H264: (".mp4", ".mkv", ".mov"),
    Codec.H265: (".mp4", ".mkv", ".hevc"),
    Codec.VP8: (".webm",),
    Codec.VP9: (".webm",),
    Codec.PRORES: (".mov", ".mkv", ".mxf"),
    Codec.GIF: (".gif",),
}
