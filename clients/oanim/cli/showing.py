"""Prints: the answer to standard output, as text or as JSON, and everything else to standard error.

Nothing that came from elsewhere reaches a terminal with its control characters.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from oanim.cli.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command found: `data` for --json, `lines` for people, `notes` for standard error either way.

    `if_unread` says what was done all the same when the answer cannot be printed. `content`, where there is
    any, is printed instead of `lines`, byte for byte.
    """

    data: dict[str, Any]
    lines: Sequence[str]
    notes: Sequence[str] = field(default=())
    if_unread: str = ""
    content: bytes = b""


def show(answer: Answer, *, as_json: bool) -> None:
    """Print an answer."""
    # Escaped, JSON has no character that could steer a terminal.
    text = json.dumps(answer.data, ensure_ascii=True) if as_json else clean("\n".join(answer.lines))
    try:
        if answer.content and not as_json:
            sys.stdout.buffer.write(answer.content)
            sys.stdout.buffer.flush()
        elif text:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
    except OSError as error:
        if isinstance(error, BrokenPipeError) and not answer.if_unread:
            raise
        raise Failure(f"the answer was not printed: {error.strerror}. {answer.if_unread}".rstrip()) from error
    for note in answer.notes:
        say(f"oanim: {note}")


def say(text: str) -> None:
    """Print a line beside the answer."""
    try:
        sys.stderr.write(f"{clean(text)}\n")
        sys.stderr.flush()
    except OSError:
        # Nobody reads it; that is no reason to end the work.
        return


def clean(text: str) -> str:
    """Replace what could steer a terminal."""
    return _CONTROLS.sub("?", text)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Line rows up under titles; the columns in `right` end at the same place."""
    cells = [list(titles), *([clean(cell).replace("\n", " ") for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
