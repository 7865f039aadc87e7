"""Turns a command's options into the input of a model, and refuses what is wrong before it costs anything."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oanim.cli.assets.pictures import look_at
from oanim.cli.assets.work import Asked
from oanim.cli.failures import USAGE, Failure
from oanim_models import inputs
from oanim_models.catalogue import load
from oanim_models.quantities import InvalidInput, parse_input

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# What the contract allows an input.
_MAX_INPUT_BYTES = 64 * 1024
# Which option a field of an input comes from, where their names differ.
_OPTIONS = {"images": "in", "num_images": "count", "text": "prompt"}
# Which categories a command is for; what is listed under `other` is for whoever asks for it.
_COMMANDS = {
    "image": "gen-image",
    "edit": "edit-image",
    "background": "remove-bg",
    "upscale": "upscale",
    "video": "gen-video",
    "audio": "gen-audio",
}


def image(model: str | None, *, prompt: str, count: int | None, size: str | None) -> Asked:
    """Ask for pictures of what a prompt says."""
    model = _model(model, "image")
    return _asked(model, lambda _: inputs.image(model, prompt=prompt, size=size, count=count), count=count)


def edit(
    model: str | None, pictures: Sequence[Path], *, prompt: str, count: int | None, size: str | None
) -> Asked:
    """Ask for pictures to be changed."""
    model = _model(model, "edit")
    return _asked(
        model,
        lambda names: inputs.edit(model, prompt=prompt, images=names, size=size, count=count),
        pictures=pictures,
        count=count,
    )


def background(model: str | None, picture: Path) -> Asked:
    """Ask for a picture to be cut out."""
    model = _model(model, "background")
    return _asked(model, lambda names: inputs.background(model, picture=names[0]), pictures=[picture])


def upscale(model: str | None, picture: Path, *, factor: int | None) -> Asked:
    """Ask for a picture to be made larger."""
    model = _model(model, "upscale")
    return _asked(
        model, lambda names: inputs.upscale(model, picture=names[0], factor=factor), pictures=[picture]
    )


def video(model: str | None, *, prompt: str, duration: int | None) -> Asked:
    """Ask for a film."""
    model = _model(model, "video")
    return _asked(model, lambda _: inputs.video(model, prompt=prompt, duration=duration))


def audio(model: str | None, *, prompt: str, duration: int | None) -> Asked:
    """Ask for music, a sound or speech."""
    model = _model(model, "audio")
    return _asked(model, lambda _: inputs.audio(model, prompt=prompt, duration=duration))


def raw(model: str, source: str) -> Asked:
    """Ask for what a JSON input says, passed on as it was written."""
    text = _text(source)
    try:
        parse_input(text)
    except InvalidInput as error:
        raise Failure(f"--input: {error.description}.", USAGE) from error
    return Asked(_model(model, ""), lambda _: text)


def _asked(
    model: str,
    build: Callable[[Sequence[str]], dict[str, Any]],
    *,
    pictures: Sequence[Path] = (),
    count: int | None = None,
) -> Asked:
    seen = tuple(look_at(path) for path in pictures)
    asked = Asked(
        model, lambda names: json.dumps(build(names), ensure_ascii=False), pictures=seen, count=count or 1
    )
    try:
        text = asked.quotable_input()
    except InvalidInput as error:
        raise Failure(f"--{_OPTIONS.get(error.field, error.field)}: {error.description}.", USAGE) from error
    if len(text.encode()) > _MAX_INPUT_BYTES:
        raise Failure("--prompt: it is longer than the 64 KB that an input may have.", USAGE)
    return asked


def _model(model: str | None, category: str) -> str:
    """Take the named model, by the name that it is published under, or the usual one of the category."""
    catalogue = load()
    usual = catalogue.default(category)
    if model is None and usual is not None:
        return usual.model
    try:
        name = catalogue.canonical(model or "")
    except InvalidInput as error:
        raise Failure(f"MODEL: {error.description}. The models there are: oanim pricing", USAGE) from error
    listed = catalogue.price(name)
    if category and listed is not None and listed.category in _COMMANDS and listed.category != category:
        raise Failure(f"--model: {name} is for {_COMMANDS[listed.category]}.", USAGE)
    return name


def _text(source: str) -> str:
    """Read JSON from the option itself, a file after @, or standard input for -."""
    try:
        if source in ("-", "@-"):
            content = sys.stdin.buffer.read(_MAX_INPUT_BYTES + 1)
        elif source == "@":
            raise Failure("--input: a file's name goes after @.", USAGE)
        elif source.startswith("@"):
            with Path(source[1:]).open("rb") as file:
                content = file.read(_MAX_INPUT_BYTES + 1)
        else:
            content = source.encode()
    except OSError as error:
        what = source[1:] if source.startswith("@") else "standard input"
        raise Failure(f"--input: {what} cannot be read: {error.strerror}.", USAGE) from error
    except UnicodeEncodeError as error:
        raise Failure("--input: it is not UTF-8.", USAGE) from error
    if len(content) > _MAX_INPUT_BYTES:
        raise Failure("--input: it is longer than the 64 KB that an input may have.", USAGE)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise Failure("--input: it is not UTF-8.", USAGE) from error
