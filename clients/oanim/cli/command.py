"""Makes a command of a function from client and arguments to an answer: opens the channel, prints, explains.

This is the only place that opens a channel to the service.
"""

from __future__ import annotations

import functools
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Concatenate, ParamSpec

import click
from click.core import ParameterSource

from oanim.cli import credentials
from oanim.cli.failures import USAGE, Failure
from oanim.cli.showing import Answer, show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from oanim.client import Client

Arguments = ParamSpec("Arguments")

_AS_JSON = "oanim.as_json"
# What the contract allows an idempotency key.
MAX_KEY_BYTES = 255


def _remember(context: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001
    if value:
        context.meta[_AS_JSON] = True


json_option = click.option(
    "--json",
    is_flag=True,
    expose_value=False,
    callback=_remember,
    help="Answer in JSON, amounts in micro-USD.",
)


def _one_key(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not 1 <= len(os.fsencode(value)) <= MAX_KEY_BYTES:
        raise click.BadParameter(f"a key is 1 to {MAX_KEY_BYTES} bytes.")
    return value


key_option = click.option(
    "--key",
    callback=_one_key,
    help="Names this attempt: repeated with the same key it is done, and paid, once.",
)


def as_json() -> bool:
    """Whether the command that is running is to answer in JSON."""
    wanted: bool = click.get_current_context().meta.get(_AS_JSON, False)
    return wanted


def answering(function: Callable[Arguments, Answer]) -> Callable[Arguments, None]:
    """Print what a function answers; as a group's own command only when no other follows."""

    @json_option
    @functools.wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        context = click.get_current_context()
        if context.invoked_subcommand is not None:
            _refuse_what_is_given_too_early(context)
        else:
            show(function(*args, **kwargs), as_json=as_json())

    return run


def _refuse_what_is_given_too_early(context: click.Context) -> None:
    """A group's own options are its own command's: another command would not see them."""
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if given and parameter.expose_value:
            what, command = parameter.opts[0], f"{context.command_path} {context.invoked_subcommand}"
            raise click.UsageError(f"{what} goes after: {command}", context)


def with_client(function: Callable[Concatenate[Client, Arguments], Answer]) -> Callable[Arguments, None]:
    """Give a function a client with the caller's key, and print what it answers."""

    @answering
    @functools.wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        with opened(credentials.api_key()) as client:
            return function(client, *args, **kwargs)

    return run


def with_public_client(
    function: Callable[Concatenate[Client, Arguments], Answer],
) -> Callable[Arguments, None]:
    """Give a function a client without a key, and print what it answers."""

    @answering
    @functools.wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        with opened("") as client:
            return function(client, *args, **kwargs)

    return run


@contextmanager
def opened(api_key: str) -> Iterator[Client]:
    """Open a channel to the service, and explain what it says when it refuses."""
    from oanim.cli.refusals import failure_of
    from oanim.client import Client
    from oanim.errors import OanimError

    url = credentials.api_url()
    try:
        client = Client(api_key, url=url or None)
    except ValueError as error:
        variables = f"{credentials.KEY_VARIABLE} and {credentials.URL_VARIABLE}"
        raise Failure(f"{error}. See {variables}.", USAGE) from error
    except OSError as error:
        # The one file that is read to open a channel.
        raise Failure(f"OANIM_CA_FILE: {error.filename} cannot be read: {error.strerror}.", USAGE) from error
    with client:
        try:
            yield client
        except OanimError as error:
            raise failure_of(error, url=url or "the service") from error
