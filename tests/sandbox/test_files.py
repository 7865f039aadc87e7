from __future__ import annotations

import base64
import io
import wave
from typing import TYPE_CHECKING, Any

import av
import pytest
from PIL import Image

from oanim_models import catalogue, inputs

if TYPE_CHECKING:
    import httpx


def run(fal: httpx.Client, endpoint: str, asked: dict[str, Any]) -> dict[str, Any]:
    job = fal.post(f"/{endpoint}", json=asked).raise_for_status().json()
    while fal.get(job["status_url"]).json()["status"] != "COMPLETED":
        pass
    result: dict[str, Any] = fal.get(job["response_url"]).json()
    return result


def only_file(fal: httpx.Client, result: dict[str, Any]) -> bytes:
    [output] = inputs.outputs(result)
    answer = fal.get(output.url).raise_for_status()
    assert answer.headers["content-type"] == output.content_type
    assert int(answer.headers["content-length"]) == len(answer.content)
    return answer.content


def picture(fal: httpx.Client, endpoint: str, asked: dict[str, Any]) -> Image.Image:
    opened = Image.open(io.BytesIO(only_file(fal, run(fal, endpoint, asked))))
    opened.load()
    assert opened.format == "PNG"
    return opened


def data_url(source: Image.Image, kind: str = "PNG") -> str:
    buffer = io.BytesIO()
    source.save(buffer, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def red_disc_on_white() -> Image.Image:
    source = Image.new("RGB", (200, 160), "white")
    source.paste("red", (60, 40, 140, 120))
    return source


def test_a_picture_has_the_size_that_was_asked_for_and_says_its_prompt(fal: httpx.Client) -> None:
    drawn = picture(
        fal,
        "fal-ai/flux-2-flex",
        {"prompt": "a fox, naïve", "image_size": {"width": 640, "height": 360}},
    )
    assert drawn.size == (640, 360)
    assert drawn.info["Description"] == "a fox, naïve"
    assert len(drawn.getcolors(640 * 360) or []) > 50


def test_a_gradient_goes_from_the_first_colour_to_the_last(fal: httpx.Client) -> None:
    drawn = picture(
        fal, "fal-ai/flux/schnell", {"prompt": "Gradient from red to blue", "image_size": "square"}
    )
    assert drawn.size == (512, 512)
    assert drawn.getpixel((0, 0)) == (255, 0, 0)
    assert [channel > 200 for channel in _pixel(drawn, (511, 400))] == [False, False, True]
    along = [_pixel(drawn, (step, step))[0] for step in range(0, 400, 25)]
    assert along == sorted(along, reverse=True)


def test_the_same_prompt_draws_the_same_picture_and_another_another(fal: httpx.Client) -> None:
    asked = {"prompt": "a fox", "image_size": {"width": 64, "height": 64}}
    first, again, other = (
        picture(fal, "fal-ai/flux/schnell", {**asked, "prompt": prompt})
        for prompt in ("a fox", "a fox", "a hen")
    )
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_two_images_are_two_different_files(fal: httpx.Client) -> None:
    result = run(fal, "fal-ai/ideogram/v3", {"prompt": "a fox", "num_images": 2, "image_size": "square"})
    files = [fal.get(output.url).content for output in inputs.outputs(result)]
    assert len(files) == 2
    assert files[0] != files[1]
    assert result["sandbox"] is True


def test_an_edit_keeps_the_size_and_changes_the_picture(fal: httpx.Client) -> None:
    source = red_disc_on_white()
    edited = picture(
        fal, "fal-ai/flux-pro/kontext", {"prompt": "make it blue", "image_url": data_url(source)}
    )
    assert edited.size == source.size
    assert _pixel(edited, (5, 5)) == (165, 165, 255)


def test_a_model_that_takes_a_list_of_pictures_edits_the_first(fal: httpx.Client) -> None:
    asked = {"prompt": "green", "image_urls": [data_url(red_disc_on_white(), "JPEG")]}
    assert picture(fal, "fal-ai/nano-banana-2/edit", asked).size == (200, 160)


def test_a_cut_out_is_transparent_around_the_thing_and_opaque_on_it(fal: httpx.Client) -> None:
    cut = picture(fal, "fal-ai/birefnet", {"image_url": data_url(red_disc_on_white())})
    assert (cut.mode, cut.size) == ("RGBA", (200, 160))
    assert _pixel(cut, (2, 2))[3] == 0
    assert _pixel(cut, (197, 157))[3] == 0
    assert _pixel(cut, (100, 80)) == (255, 0, 0, 255)


@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (2, 700)])
def test_a_picture_of_any_shape_can_be_cut_out(fal: httpx.Client, size: tuple[int, int]) -> None:
    cut = picture(fal, "fal-ai/birefnet", {"image_url": data_url(Image.new("RGB", size, "grey"))})
    assert (cut.mode, cut.size, cut.getchannel("A").getextrema()) == ("RGBA", size, (0, 0))


@pytest.mark.parametrize(("factor", "size"), [({}, (400, 320)), ({"upscale_factor": 4}, (800, 640))])
def test_an_upscaled_picture_is_as_much_larger_as_was_asked(
    fal: httpx.Client, factor: dict[str, int], size: tuple[int, int]
) -> None:
    asked = {"image_url": data_url(red_disc_on_white()), **factor}
    assert picture(fal, "fal-ai/topaz/upscale/image", asked).size == size


def test_a_file_of_the_sandbox_can_be_the_next_input(fal: httpx.Client) -> None:
    drawn = run(fal, "fal-ai/flux/schnell", {"prompt": "a fox", "image_size": "square"})
    [output] = inputs.outputs(drawn)
    assert picture(fal, "fal-ai/bria/upscale/creative", {"image_url": output.url}).size == (1024, 1024)


@pytest.mark.parametrize(
    ("endpoint", "duration", "seconds"),
    [
        ("fal-ai/minimax/hailuo-02/standard/text-to-video", None, 6),
        ("fal-ai/kling-video/v2.5-turbo/pro/text-to-video", "10", 10),
        ("fal-ai/veo3.1", "4s", 4),
        ("fal-ai/sora-2/text-to-video/pro", 12, 12),
        ("fal-ai/kling-video/v3/pro/text-to-video", "7.5", 7.5),
        ("fal-ai/veo3.1", 700, 700),
    ],
)
def test_a_film_plays_for_as_long_as_was_asked(
    fal: httpx.Client, endpoint: str, duration: str | int | None, seconds: float
) -> None:
    asked = {"prompt": "a ball"} | ({} if duration is None else {"duration": duration})
    film = only_file(fal, run(fal, endpoint, asked))
    with av.open(io.BytesIO(film), "r") as container:
        [stream] = container.streams.video
        frames = sum(1 for _ in container.decode(stream))
        assert stream.codec_context.name == "h264"
        assert container.duration == seconds * 1_000_000
        assert stream.average_rate is not None
        assert frames == round(seconds * stream.average_rate)


@pytest.mark.parametrize(
    ("endpoint", "asked", "seconds"),
    [
        ("beatoven/music-generation", {"prompt": "calm"}, 90.0),
        ("beatoven/music-generation", {"prompt": "calm", "duration": 7.3}, 7.3),
        ("beatoven/sound-effect-generation", {"prompt": "rain", "duration": 3}, 3.0),
        ("fal-ai/minimax/speech-02-hd", {"text": "twenty characters ok"}, 1.0),
    ],
)
def test_a_sound_plays_for_as_long_as_was_asked(
    fal: httpx.Client, endpoint: str, asked: dict[str, Any], seconds: float
) -> None:
    with wave.open(io.BytesIO(only_file(fal, run(fal, endpoint, asked)))) as sound:
        frames = sound.readframes(sound.getnframes())
        assert sound.getnframes() / sound.getframerate() == seconds
        assert len(frames) == sound.getnframes() * sound.getsampwidth()
        assert len(set(frames)) > 50


def test_every_listed_model_that_fal_serves_makes_a_file(fal: httpx.Client) -> None:
    source = data_url(red_disc_on_white())
    for price in catalogue.load().prices:
        if price.provider == "fal":
            asked = {"prompt": "a fox", "text": "a fox", "image_url": source, "image_urls": [source]}
            if "edit" not in price.endpoint:
                del asked["image_urls"]
            assert inputs.outputs(run(fal, price.endpoint, asked)), price.model


@pytest.mark.parametrize(
    ("endpoint", "asked", "field"),
    [
        ("fal-ai/flux/schnell", {}, ["body", "prompt"]),
        ("fal-ai/flux/schnell", {"prompt": 3}, ["body", "prompt"]),
        ("fal-ai/flux/schnell", {"prompt": "a", "num_images": 99}, ["body", "num_images"]),
        ("fal-ai/flux/schnell", {"prompt": "a", "image_size": "huge"}, ["body", "image_size"]),
        ("fal-ai/birefnet", {}, ["body", "image_url"]),
        ("fal-ai/birefnet", {"image_url": "data:image/png;base64,AAAA"}, ["body", "image_url"]),
        ("fal-ai/birefnet", {"image_url": "https://example.com/a.png"}, ["body", "image_url"]),
        ("fal-ai/veo3.1", {"prompt": "a", "duration": "long"}, ["body", "duration"]),
        ("fal-ai/minimax/speech-02-hd", {"prompt": "a"}, ["body", "text"]),
    ],
)
def test_a_model_refuses_an_input_that_it_cannot_use(
    fal: httpx.Client, endpoint: str, asked: dict[str, Any], field: list[str]
) -> None:
    [problem] = run(fal, endpoint, asked)["detail"]
    assert problem["loc"] == field
    assert problem.keys() == {"loc", "msg", "type"}


def _pixel(source: Image.Image, at: tuple[int, int]) -> tuple[int, ...]:
    pixel = source.getpixel(at)
    assert isinstance(pixel, tuple)
    return tuple(int(channel) for channel in pixel)
