"""Runs a command to its end: prints why it failed, and answers its exit code, whatever happened."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from click.exceptions import NoArgsIsHelpError

from oanim.cli.failures import FAILED, USAGE, explained
from oanim.cli.program import program
from oanim.cli.showing import say

if TYPE_CHECKING:
    from collections.abc import Sequence


def run(arguments: Sequence[str] | None) -> int:
    """Run a command, and answer its exit code."""
    try:
        code = program.main(arguments, prog_name="oanim", standalone_mode=False)
        sys.stdout.flush()
    except NoArgsIsHelpError as error:
        say(error.format_message())
        return USAGE
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  (nothing ever shows a traceback)
        _give_up_output()
        if isinstance(error, BrokenPipeError):
            # Whoever reads no further has seen enough.
            return FAILED
        sentence, exit_code = explained(error)
        say(f"oanim: {sentence}")
        return exit_code
    return code if isinstance(code, int) else 0


def _give_up_output() -> None:
    """What could not be printed stays so: the interpreter must not try again, and complain, while it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
