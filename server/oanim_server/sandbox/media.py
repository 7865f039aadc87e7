"""Makes short films and sounds that play, as long as was asked for.

They are small on purpose: few frames a second and few samples, so that making one does not take longer
than the work it stands for.
"""

from __future__ import annotations

import math
import random
import wave
from array import array
from fractions import Fraction
from typing import TYPE_CHECKING

import av
from PIL import ImageDraw

from oanim_server.sandbox import pictures

if TYPE_CHECKING:
    from pathlib import Path

SAMPLE_RATE = 8_000
_FRAMES_PER_SECOND = 8
_MAX_FRAMES = 600
_NOTE_S = 0.25
_BEEP_S = 0.05
_SCALE_HZ = (261.63, 293.66, 329.63, 392.00, 440.00, 523.25, 587.33, 659.25)


def film(path: Path, prompt: str, seconds: Fraction, size: tuple[int, int]) -> None:
    """Write an H.264 film in which a ball crosses the prompt's picture once."""
    rate = Fraction(_FRAMES_PER_SECOND)
    if seconds * rate > _MAX_FRAMES:
        rate = max(Fraction(1), _MAX_FRAMES / seconds).limit_denominator(1000)
    count = max(1, round(seconds * rate))
    scene = pictures.draw(prompt, *size, seed=0)
    radius = min(size) // 8
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": "28"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for number in range(count):
            picture = scene.copy()
            x = round((size[0] + 2 * radius) * number / count) - radius
            box = (x - radius, size[1] // 2 - radius, x + radius, size[1] // 2 + radius)
            ImageDraw.Draw(picture).ellipse(box, fill="white", outline="black")
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))  # type: ignore[no-untyped-call]
        container.mux(stream.encode())


def music(path: Path, prompt: str, seconds: Fraction) -> None:
    """Write a WAV with a tune that the prompt decides."""
    chance = random.Random(prompt)
    notes = [_tone(hertz, _NOTE_S) for hertz in _SCALE_HZ]
    _write(path, [chance.choice(notes) for _ in range(math.ceil(seconds / Fraction(_NOTE_S)))], seconds)


def speech(path: Path, text: str) -> None:
    """Write a WAV with a beep for each character of a text, and silence for each blank."""
    beeps = {
        character: array("h", bytes(2 * round(_BEEP_S * SAMPLE_RATE)))
        if character.isspace()
        else _tone(220.0 + 20 * (ord(character) % 48), _BEEP_S)
        for character in set(text)
    }
    _write(
        path, [beeps[character] for character in text], Fraction(_BEEP_S).limit_denominator(100) * len(text)
    )


def _tone(hertz: float, seconds: float) -> array[int]:
    count = round(seconds * SAMPLE_RATE)
    # It swells and fades, so that tones in a row do not click.
    return array(
        "h",
        (
            round(12_000 * math.sin(math.pi * n / count) * math.sin(2 * math.pi * hertz * n / SAMPLE_RATE))
            for n in range(count)
        ),
    )


def _write(path: Path, tones: list[array[int]], seconds: Fraction) -> None:
    left = round(seconds * SAMPLE_RATE)
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        for tone in tones:
            out.writeframes(tone[:left].tobytes())
            left -= min(left, len(tone))
