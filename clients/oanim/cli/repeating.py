"""Says how to repeat an action whose outcome is not known: the same command, with the key that it had."""

from __future__ import annotations

import shlex
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from oanim.cli.failures import INTERRUPTED, Failure

if TYPE_CHECKING:
    from collections.abc import Iterator

_OPTION = "--key"


@contextmanager
def note_key(key: str) -> Iterator[None]:
    """Say of whatever leaves the outcome unknown, an interruption too, how to find it out."""
    from oanim.errors import OanimError

    try:
        yield
    except KeyboardInterrupt:
        raise Failure(f"interrupted. {unknown(key)}", INTERRUPTED) from None
    except OanimError as error:
        if error.outcome_unknown:
            error.add_note(unknown(key))
        raise


def unknown(key: str) -> str:
    """Say how to find out what became of an attempt."""
    return (
        f"Whether it was done is not known; the same key repeats it without doing it twice: {with_key(key)}"
    )


def with_key(key: str) -> str:
    """Write the command that is running, with its key, as it is typed in a shell."""
    kept: list[str] = []
    arguments = iter(sys.argv[1:])
    for argument in arguments:
        if argument == _OPTION:
            next(arguments, None)
        elif not argument.startswith(f"{_OPTION}="):
            kept.append(argument)
    return shlex.join(["oanim", *kept, _OPTION, key])
