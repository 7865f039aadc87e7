"""The words of `oanim assets`: each command turns its options into what it asks for; `paid` has it done."""

from __future__ import annotations

import functools
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oanim.cli import credentials, progress, session
from oanim.cli.assets import asking
from oanim.cli.assets.files import Destination
from oanim.cli.assets.work import Work
from oanim.cli.command import answering, key_option, opened
from oanim.cli.failures import Failure
from oanim.cli.money import MICROS_PER_USD, dollars
from oanim.cli.showing import Answer
from oanim_models.quantities import MAX_QUANTITY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from oanim.cli.assets.work import Asked, Quote, Studio

_FAL_KEY_VARIABLE = "ANIMATE_FAL_KEY"
_FAL_URL_VARIABLE = "ANIMATE_FAL_URL"
_ASKED_ABOVE_MICROS = MICROS_PER_USD

_out = click.option("--out", help="The file for what is made, or a folder: newdir/")
_model = click.option("--model", help="The model, instead of the usual one: oanim pricing")
_prompt = click.option("--prompt", required=True, help="What to make.")
_picture = click.option(
    "--in", "pictures", type=click.Path(path_type=Path), required=True, help="A picture: PNG, JPEG or WebP."
)
_count = click.option(
    "--count", type=click.IntRange(1, MAX_QUANTITY), help="How many: out-1.png, out-2.png, ..."
)
_size = click.option("--size", help="1280x720, or square_hd, landscape_16_9 and the like.")
_duration = click.option("--duration", type=click.IntRange(1, MAX_QUANTITY), help="How long, in seconds.")


@contextmanager
def studio() -> Iterator[Studio]:
    """Open whoever does the work: fal.ai where there is a key for it, else the service."""
    fal_key = os.environ.get(_FAL_KEY_VARIABLE, "").strip()
    if fal_key:
        from oanim.cli.assets.direct import Direct

        yield Direct(fal_key, url=os.environ.get(_FAL_URL_VARIABLE, "").strip())
        return
    with opened(credentials.api_key()) as client:
        from oanim.cli.assets.platform import Platform

        yield Platform(client)


def paid(function: Callable[..., Asked]) -> Callable[..., None]:
    """Quote, ask above $1, and have done what a function asks for."""

    @_out
    @click.option("--quote", "only_quote", is_flag=True, help="Show the price; nothing is made or spent.")
    @click.option("--yes", is_flag=True, help="Do not ask, whatever it costs.")
    @key_option
    @answering
    @functools.wraps(function)
    def run(*, out: str | None, only_quote: bool, yes: bool, key: str | None, **options: Any) -> Answer:
        from oanim.keys import new_key

        present = session.current()
        asked = function(**options)
        with studio() as open_studio:
            if only_quote:
                return _shown(open_studio.quote(asked), asked)
            if not yes and sys.stdin.isatty():
                _ask(open_studio.quote(asked), asked)
            destination = Destination.named(out, numbered=asked.count > 1)
            destination.prepare()
            work = Work(asked, destination, key or new_key(), key_is_given=key is not None)
            with progress.shown() as shown:
                return open_studio.make(work, present, shown)

    return run


@click.group()
def assets() -> None:
    """Make pictures, films and sounds, and get what was made."""


@assets.command("gen-image")
@_prompt
@_model
@_count
@_size
@paid
def gen_image(*, prompt: str, model: str | None, count: int | None, size: str | None) -> Asked:
    """Make a picture from words."""
    return asking.image(model, prompt=prompt, count=count, size=size)


@assets.command("edit-image")
@_prompt
@click.option(
    "--in",
    "pictures",
    type=click.Path(path_type=Path),
    required=True,
    multiple=True,
    help="A picture: PNG, JPEG or WebP; several for a model that takes several.",
)
@_model
@_count
@_size
@paid
def edit_image(
    *, prompt: str, pictures: tuple[Path, ...], model: str | None, count: int | None, size: str | None
) -> Asked:
    """Change a picture as words say."""
    return asking.edit(model, pictures, prompt=prompt, count=count, size=size)


@assets.command("remove-bg")
@_picture
@_model
@paid
def remove_bg(*, pictures: Path, model: str | None) -> Asked:
    """Cut what a picture shows out of its background."""
    return asking.background(model, pictures)


@assets.command()
@_picture
@click.option("--factor", type=click.IntRange(1), help="How many times larger, for a model that takes it.")
@_model
@paid
def upscale(*, pictures: Path, factor: int | None, model: str | None) -> Asked:
    """Make a picture larger."""
    return asking.upscale(model, pictures, factor=factor)


@assets.command("gen-video")
@_prompt
@_model
@_duration
@paid
def gen_video(*, prompt: str, model: str | None, duration: int | None) -> Asked:
    """Make a film from words."""
    return asking.video(model, prompt=prompt, duration=duration)


@assets.command("gen-audio")
@_prompt
@_model
@_duration
@paid
def gen_audio(*, prompt: str, model: str | None, duration: int | None) -> Asked:
    """Make music, a sound or speech from words."""
    return asking.audio(model, prompt=prompt, duration=duration)


@assets.command()
@click.argument("model")
@click.option(
    "--input", "source", required=True, help="The model's input: JSON, @file, or - for standard input."
)
@paid
def run(*, model: str, source: str) -> Asked:
    """Run any model with its own JSON input."""
    return asking.raw(model, source)


@assets.command()
@click.argument("generation_id", metavar="ID")
@_out
@answering
def get(*, generation_id: str, out: str | None) -> Answer:
    """Wait for work that was started before, and download what it made."""
    destination = Destination.named(out)
    destination.prepare()
    with studio() as open_studio, progress.shown() as shown:
        return open_studio.get(generation_id, destination, shown)


def _shown(quote: Quote, asked: Asked) -> Answer:
    lines = [f"{dollars(quote.amount_micros)} with {asked.model}"]
    return Answer(data=quote.data, lines=lines, notes=quote.notes)


def _ask(quote: Quote, asked: Asked) -> None:
    """Ask whoever sits at the terminal before more than a dollar is spent."""
    if quote.amount_micros <= _ASKED_ABOVE_MICROS:
        return
    question = f"This costs {dollars(quote.amount_micros)} with {asked.model}. Go on?"
    if not click.confirm(question, err=True):
        raise Failure("nothing was made, and nothing was spent.")
