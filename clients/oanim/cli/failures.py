"""Says why a command failed, in one sentence with the next step in it, and which exit code that is.

The exit codes are a contract: 1 failed, 2 usage, 3 out of credits or over a spending limit, 4 not signed in,
5 the service is away, 130 interrupted.
"""

from __future__ import annotations

import secrets
import traceback
from pathlib import Path

import click

from oanim.cli.money import dollars

FAILED, USAGE, NO_CREDITS, NOT_SIGNED_IN, AWAY, INTERRUPTED = 1, 2, 3, 4, 5, 130


class Failure(Exception):
    """A command ends here: `sentence` says why and what to do, `exit_code` says it to scripts."""

    def __init__(self, sentence: str, exit_code: int = FAILED) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.exit_code = exit_code


def over_session_limit(*, scope: str, needed_micros: int, total_micros: int, limit_micros: int) -> Failure:
    """Refuse work that would take a session over ANIMATE_MAX_USD_PER_RUN."""
    name = scope.removeprefix("session:")
    return Failure(
        f"this needs {dollars(needed_micros)}, and the session {name} has used {dollars(total_micros)} "
        f"of the {dollars(limit_micros)} that ANIMATE_MAX_USD_PER_RUN allows it. "
        f"Raise that, or start a new session: export ANIMATE_SESSION_ID={secrets.token_hex(4)}",
        NO_CREDITS,
    )


def key_reused() -> Failure:
    """Refuse a --key that stands for something else: a new one could buy the same thing twice."""
    return Failure(
        "this --key named another request before, and this one was not made. To find out what became of that "
        "one, repeat it as it was, where it was made; for other work choose another --key."
    )


def explained(error: BaseException) -> tuple[str, int]:
    """Write what ended a command, a line for each note that was made on the way, and its exit code."""
    said, exit_code = _explained(error)
    return "\n".join([" ".join(said.split("\n")), *getattr(error, "__notes__", [])]), exit_code


def stopped(text: str) -> str:
    """End a sentence, unless it has an end."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _explained(error: BaseException) -> tuple[str, int]:
    match error:
        case Failure():
            return error.sentence, error.exit_code
        case click.UsageError():
            path = error.ctx.command_path if error.ctx else "oanim"
            return f"{stopped(error.format_message())} See: {path} --help", USAGE
        case click.Abort() | KeyboardInterrupt():
            return "interrupted.", INTERRUPTED
        case UnicodeEncodeError():
            return "an argument is not UTF-8.", USAGE
        case OSError() if error.strerror:
            return f"{error.filename}: {error.strerror}" if error.filename else error.strerror, FAILED
        case _:
            return _fault(error), FAILED


def _fault(error: BaseException) -> str:
    step = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(step.filename).name}:{step.lineno}"
    return f"a fault in oanim itself, please report it: {type(error).__name__} at {where}: {error}"
