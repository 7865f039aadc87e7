"""Logs as JSON, one line an entry, on stderr. No entry holds a secret: they are built from ids and numbers.

A call's line is put together by hand and written with its neighbours, a few times a second: through the
logging package it would cost as much as the rest of the edge. Everything else goes through logging.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import IO

FLUSH_SECONDS = 0.2
NOISY = ("httpx", "httpcore", "stripe", "alembic", "uvicorn", "asyncio")
# What every record has; the rest of its attributes came as `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """A record as one JSON object: time, level, logger, message, and what was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update((key, value) for key, value in vars(record).items() if key not in _STANDARD)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def configure(level: str, stream: IO[str] | None = None) -> None:
    """Send every log of this process, libraries included, to one stream as JSON."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in NOISY:
        # One level quieter than ours, and never chattier than a warning.
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))


def timestamp(seconds: float) -> str:
    """UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class CallLog:
    """Writes a line for every call, in portions. Its words come from us: nothing in them needs escaping."""

    def __init__(self, stream: IO[str] | None) -> None:
        """`stream` None writes nothing."""
        self._stream = stream
        self._lines: list[str] = []

    def write(
        self, method: str, code: str, seconds: float, *, request_id: str, account: str, key_id: str
    ) -> None:
        """Note one call that has ended."""
        if self._stream is None:
            return
        if not self._lines:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        self._lines.append(
            f'{{"time":"{_now()}","level":"info","logger":"calls","message":"call","method":"{method}",'
            f'"code":"{code}","milliseconds":{seconds * 1000:.3f},"request_id":"{request_id}",'
            f'"account":"{account}","key":"{key_id}"}}\n'
        )

    def flush(self) -> None:
        """Write what was noted; what cannot be written is lost, and nothing else is."""
        # Before they are written: the next line must find none, or nobody flushes any more.
        lines, self._lines = self._lines, []
        if self._stream is not None and lines:
            with contextlib.suppress(OSError, ValueError):
                self._stream.write("".join(lines))
                self._stream.flush()


_second = (0, "")


def _now() -> str:
    """The time as `timestamp` writes it, with the part that changes once a second kept."""
    global _second  # noqa: PLW0603 - a cache of one value
    now = time.time()
    whole = int(now)
    if whole != _second[0]:
        _second = (whole, datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S"))
    return f"{_second[1]}.{int((now - whole) * 1000):03d}Z"
