from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from oanim_models import catalogue, inputs
from oanim_models.inputs import Output
from oanim_models.quantities import InvalidInput, quantity_of

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("built", "expected"),
    [
        (inputs.image("fal-ai/flux-2-flex", prompt="a fox"), {"prompt": "a fox"}),
        (
            inputs.image("fal-ai/flux-2-flex", prompt="a fox", size="1280x720", count=2),
            {"prompt": "a fox", "image_size": {"width": 1280, "height": 720}, "num_images": 2},
        ),
        (
            inputs.image("fal-ai/flux/schnell", prompt="a fox", size="landscape_16_9"),
            {"prompt": "a fox", "image_size": {"width": 1024, "height": 576}},
        ),
        (
            inputs.image("fal-ai/nano-banana-2", prompt="a fox", size="1920x1080"),
            {"prompt": "a fox", "aspect_ratio": "16:9"},
        ),
        (
            inputs.edit("fal-ai/flux-pro/kontext", prompt="blue", images=["upload:1"]),
            {"prompt": "blue", "image_url": "upload:1"},
        ),
        (
            inputs.edit("fal-ai/nano-banana-2/edit", prompt="blue", images=["upload:1", "upload:2"], count=2),
            {"prompt": "blue", "image_urls": ["upload:1", "upload:2"], "num_images": 2},
        ),
        (inputs.background("fal-ai/birefnet", picture="upload:1"), {"image_url": "upload:1"}),
        (inputs.upscale("fal-ai/bria/upscale/creative", picture="upload:1"), {"image_url": "upload:1"}),
        (
            inputs.upscale("fal-ai/topaz/upscale/image", picture="upload:1", factor=4),
            {"image_url": "upload:1", "upscale_factor": 4},
        ),
        (
            inputs.video("fal-ai/kling-video/v2.5-turbo/pro/text-to-video", prompt="a fox", duration=10),
            {"prompt": "a fox", "duration": "10"},
        ),
        (
            inputs.video("fal-ai/minimax/hailuo-02/standard/text-to-video", prompt="a fox", duration=6),
            {"prompt": "a fox", "duration": "6"},
        ),
        (
            inputs.video("fal-ai/veo3.1", prompt="a fox", duration=8),
            {"prompt": "a fox", "duration": "8s"},
        ),
        (
            inputs.video("fal-ai/sora-2/text-to-video/pro", prompt="a fox", duration=8),
            {"prompt": "a fox", "duration": 8},
        ),
        (
            inputs.audio("beatoven/music-generation", prompt="calm", duration=30),
            {"prompt": "calm", "duration": 30},
        ),
        (inputs.audio("minimax/speech-02-hd", prompt="hello"), {"text": "hello"}),
        (inputs.audio("some/other-voice", prompt="hello"), {"prompt": "hello"}),
    ],
)
def test_words_become_what_the_model_takes(built: dict[str, Any], expected: dict[str, Any]) -> None:
    assert built == expected


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: inputs.image("fal-ai/flux/schnell", prompt=" "), "prompt"),
        (lambda: inputs.image("fal-ai/flux/schnell", prompt="a", size="big"), "size"),
        (lambda: inputs.image("fal-ai/flux/schnell", prompt="a", size="0x10"), "size"),
        (lambda: inputs.image("fal-ai/flux/schnell", prompt="a", size="99999x10"), "size"),
        (lambda: inputs.image("fal-ai/nano-banana-2", prompt="a", size="1000x999"), "size"),
        (lambda: inputs.image("fal-ai/flux/schnell", prompt="a", count=0), "count"),
        (lambda: inputs.edit("fal-ai/flux-pro/kontext", prompt="a", images=["1", "2"]), "images"),
        (lambda: inputs.edit("fal-ai/nano-banana-2/edit", prompt="a", images=[]), "images"),
        (lambda: inputs.upscale("fal-ai/bria/upscale/creative", picture="1", factor=2), "factor"),
        (lambda: inputs.upscale("fal-ai/topaz/upscale/image", picture="1", factor=0), "factor"),
        (lambda: inputs.video("fal-ai/veo3.1", prompt="a", duration=0), "duration"),
        (lambda: inputs.video("some/film", prompt="a", duration=5), "duration"),
        (lambda: inputs.audio("minimax/speech-02-hd", prompt=""), "text"),
        (lambda: inputs.audio("minimax/speech-02-hd", prompt="a", duration=5), "duration"),
    ],
)
def test_what_a_model_does_not_take_is_refused(build: Callable[[], object], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        build()
    assert refused.value.field == field


def test_every_length_that_is_built_is_priced_as_that_length() -> None:
    for price in catalogue.load().prices:
        if price.unit == "second":
            build = inputs.video if price.category == "video" else inputs.audio
            assert quantity_of(price, build(price.model, prompt="a", duration=123)) == 123


def test_outputs_are_found_wherever_a_model_puts_them() -> None:
    result = {
        "images": [
            {
                "url": "https://v3.fal.media/files/a/1.png",
                "content_type": "image/png",
                "file_name": "one.png",
            },
            {"url": "https://v3.fal.media/files/a/2%20b.png"},
            {"width": 3},
        ],
        "image": {"url": "https://v3.fal.media/i.png"},
        "video": {"url": "https://v3.fal.media/v.mp4", "content_type": "video/mp4"},
        "audio": {"url": "https://v3.fal.media/a.mp3", "file_name": "../../etc/a.mp3"},
        "audio_file": {"url": "https://v3.fal.media/b.wav", "file_name": ".."},
        "seed": 3,
    }
    assert inputs.outputs(result) == [
        Output("https://v3.fal.media/files/a/1.png", "image/png", "one.png"),
        Output("https://v3.fal.media/files/a/2%20b.png", "", "2 b.png"),
        Output("https://v3.fal.media/i.png", "", "i.png"),
        Output("https://v3.fal.media/v.mp4", "video/mp4", "v.mp4"),
        Output("https://v3.fal.media/a.mp3", "", "a.mp3"),
        Output("https://v3.fal.media/b.wav", "", ""),
    ]


@pytest.mark.parametrize("result", [{}, {"images": None}, {"images": "x"}, {"video": {"url": ""}}])
def test_a_result_without_files_has_no_outputs(result: dict[str, Any]) -> None:
    assert inputs.outputs(result) == []
