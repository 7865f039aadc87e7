"""Remembers what an attempt asked for beyond its command line: its session, its limit, and its uploads.

All three are part of the request. Without this the same key from another terminal, or with a picture uploaded
again under a new name, would be another request, and be refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from oanim.cli import home
from oanim.cli.failures import Failure, explained
from oanim.cli.session import Session
from oanim.cli.showing import say
from oanim.errors import (
    AccountFrozen,
    InsufficientCredits,
    LimitExceeded,
    OanimError,
    SpendLimitExceeded,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The service answers these again, to the same key, for 30 days.
REMEMBERED = (AccountFrozen, InsufficientCredits, SpendLimitExceeded, LimitExceeded)
_CHOOSE_ANOTHER = "Then choose a new --key: this one gets the same refusal for 30 days."
# As long as the service remembers a refusal; an effect outlives it, its uploads do not.
_KEPT_S = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a caller's key stands for. `uploads` has the upload of each picture by its content's SHA-256."""

    name: str
    session: Session
    uploads: dict[str, str] = field(default_factory=dict)


def name_of(key: str, *, api_key: str, api_url: str) -> str:
    """Name an attempt: a key means something to one caller of one server alone."""
    return hashlib.sha256(os.fsencode(f"{api_url}\n{api_key}\n{key}")).hexdigest()


def known(name: str) -> Attempt | None:
    """Find what a key stood for when it was used first; None for a key that was not used here."""
    try:
        content = json.loads(_path(name).read_bytes())
        return Attempt(name, Session(**content["session"]), dict(content["uploads"]))
    except (OSError, ValueError, TypeError, KeyError, Failure):
        return None


def remember(attempt: Attempt) -> None:
    """Keep an attempt, and forget what is old; where nothing can be kept, say what that means, and go on."""
    content = {"session": asdict(attempt.session), "uploads": attempt.uploads}
    try:
        path = _path(attempt.name)
        home.write(path, json.dumps(content).encode())
    except (OSError, Failure) as error:
        say(f"oanim: this attempt could not be noted, and --key may not repeat it: {explained(error)[0]}")
        return
    for other in path.parent.glob("*.json"):
        # Another command may drop its own meanwhile.
        with suppress(OSError):
            if other.stat().st_mtime < time.time() - _KEPT_S:
                other.unlink()


@contextmanager
def ended(attempt: Attempt, *, is_new: bool, key_is_given: bool) -> Iterator[None]:
    """Drop an attempt that has ended, unless somebody may repeat it, or its answer is one that stays."""
    try:
        yield
    except OanimError as error:
        is_known = key_is_given and (not is_new or isinstance(error, REMEMBERED))
        if not error.outcome_unknown and not is_known:
            forget(attempt)
        raise
    if not key_is_given:
        forget(attempt)


@contextmanager
def refused_again(*, key_is_given: bool) -> Iterator[None]:
    """Say of a refusal that a key of the caller's own gets again what that means."""
    try:
        yield
    except REMEMBERED as error:
        if key_is_given:
            error.add_note(_CHOOSE_ANOTHER)
        raise


def forget(attempt: Attempt) -> None:
    """Drop an attempt that nobody will repeat, or that the service knows nothing of."""
    with suppress(OSError, Failure):
        _path(attempt.name).unlink(missing_ok=True)


def _path(name: str) -> Path:
    return home.folder() / "attempts" / f"{name}.json"
