"""Keeps, for work that goes straight to fal.ai, what each session has spent and which jobs it bought.

One file that every command of the user locks, reads, changes and replaces: two commands at once never pass a
limit together. The price is booked before the work is sent and taken back only when nothing can have been
bought, so that a crash at any point counts too much, never too little.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from oanim.cli import home
from oanim.cli.failures import Failure, key_reused, over_session_limit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oanim.cli.session import Session

# A session nobody used for so long is forgotten, as by the service; fal.ai keeps what it made for a week.
_KEPT_S = 30 * 24 * 3600


@dataclass(slots=True)
class Job:
    """One attempt: booked; sent once it has a request id; settled once it has ended."""

    key: str
    fingerprint: str
    model: str
    scope: str
    charged_micros: int
    at: int
    request_id: str = ""
    status_url: str = ""
    response_url: str = ""
    settled: bool = False


@dataclass(slots=True)
class _Book:
    sessions: dict[str, dict[str, Any]]
    jobs: dict[str, Job]


def book(*, key: str, fingerprint: str, model: str, amount_micros: int, session: Session) -> tuple[Job, bool]:
    """Count the price under the session, or answer the job that this key named before, and False.

    Fails when the session's limit would be passed, and when the key named other work.
    """
    digest = hashlib.sha256(fingerprint.encode()).hexdigest()
    with _changing() as content:
        former = content.jobs.get(key)
        if former is not None:
            if former.fingerprint != digest:
                raise key_reused()
            return former, False
        total = content.sessions.get(session.scope, {}).get("charged_micros", 0)
        limit = session.limit_micros
        if limit is not None and total + amount_micros > limit:
            raise over_session_limit(
                scope=session.scope, needed_micros=amount_micros, total_micros=total, limit_micros=limit
            )
        now = int(time.time())
        content.sessions[session.scope] = {"charged_micros": total + amount_micros, "at": now}
        content.jobs[key] = Job(key, digest, model, session.scope, amount_micros, now)
        return content.jobs[key], True


def sent(job: Job) -> None:
    """Keep where to ask about a job that fal.ai has taken."""
    with _changing() as content:
        content.jobs[job.key] = job


def settle(job: Job, charged_micros: int) -> None:
    """Correct what a job counts for, now that it has ended; the first correction stands."""
    with _changing() as content:
        _correct(content, job, charged_micros)
        if job.key in content.jobs:
            content.jobs[job.key].settled = True


def forget(job: Job) -> None:
    """Take back a job that was never bought: its key may be used again."""
    with _changing() as content:
        _correct(content, job, 0)
        content.jobs.pop(job.key, None)


def find(request_id: str) -> Job | None:
    """Find a job by the id that fal.ai gave it."""
    with home.locked("direct"):
        jobs = _read().jobs.values()
    return next((job for job in jobs if job.request_id == request_id), None)


def _correct(content: _Book, job: Job, charged_micros: int) -> None:
    kept = content.jobs.get(job.key)
    session = content.sessions.get(job.scope)
    if kept is None or kept.settled or session is None:
        return
    session["charged_micros"] = max(0, session["charged_micros"] - kept.charged_micros + charged_micros)
    kept.charged_micros = charged_micros


def _path() -> Path:
    return home.folder() / "direct.json"


@contextmanager
def _changing() -> Iterator[_Book]:
    with home.locked("direct"):
        content = _read()
        yield content
        oldest = time.time() - _KEPT_S
        kept = {
            "sessions": {name: entry for name, entry in content.sessions.items() if entry["at"] >= oldest},
            "jobs": [asdict(job) for job in content.jobs.values() if job.at >= oldest],
        }
        home.write(_path(), json.dumps(kept).encode())


def _read() -> _Book:
    try:
        content = json.loads(_path().read_bytes())
        jobs = [Job(**fields) for fields in content["jobs"]]
        sessions = {
            name: {"charged_micros": int(entry["charged_micros"]), "at": int(entry["at"])}
            for name, entry in content["sessions"].items()
        }
    except FileNotFoundError:
        return _Book({}, {})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Failure(f"{_path()} cannot be read. Move it away to start counting anew.") from error
    return _Book(sessions, {job.key: job for job in jobs})
