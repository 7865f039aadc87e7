"""Keeps a lease while its render is worked on: reports the frames so far, whatever else goes on.

A report is the total of the lease's epoch, so that it may be lost, late or repeated. One that was not
acknowledged is made again, soon, with what the total has become.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from oanim import errors
from oanim.retries import backoff_s

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from oanim import Client
    from openanimate.metering.v1.render_service_pb2 import RenderLease

log = logging.getLogger(__name__)

# What no report under this lease, or with this key, will ever be answered otherwise.
_FINAL = (errors.StaleLease, errors.KeyInvalid, errors.WrongRole, errors.NotFound)


class Times(NamedTuple):
    """How often a worker does what it does, in seconds."""

    # Between two reports.
    heartbeat: float = 10.0
    # How long one report may wait for its answer.
    answer: float = 10.0
    # How long the service keeps a question for work open: a worker that is to end does so within this time.
    asking: int = 5
    # After a fault of this machine's, before its slot takes other work; after the next one in a row longer.
    recovery: float = 30.0
    longest_recovery: float = 300.0
    # How long a worker that is to end goes on saying so.
    leaving: float = 10.0


TIMES = Times()


class Lost(Exception):
    """The lease has ended: whatever it was for is another's, or nobody's."""


class Heart:
    """Reports on one lease until it is closed or the lease is lost."""

    def __init__(
        self, client: Client, lease: RenderLease, *, on_lost: Callable[[], None], times: Times
    ) -> None:
        self._client = client
        self._lease = lease
        self._on_lost = on_lost
        self._times = times
        self._changed = threading.Condition()
        self._frames = 0
        self._acknowledged = -1
        self._hurried = False
        self._let_go = False
        self._closed = False
        self.lost = False
        self._thread = threading.Thread(target=self._beat, name=f"heart of {lease.render_id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        # A report that is under way is not waited for: nobody needs its answer any more.

    def frames_done(self, frames: int) -> None:
        """Note how many frames are done, for the next report."""
        with self._changed:
            self._frames = max(self._frames, frames)

    def let_go(self) -> None:
        """Keep nobody waiting any more."""
        with self._changed:
            self._let_go = True
            self._changed.notify_all()

    def report(self, frames: int) -> None:
        """Return when so many frames were acknowledged, however long that takes, or when it is let go.

        :raises Lost: when the lease has ended.
        """
        with self._changed:
            self._frames = max(self._frames, frames)
            self._hurried = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.lost or self._let_go or self._acknowledged >= frames)
            if self.lost:
                raise Lost

    def _beat(self) -> None:
        failures = 0
        while self._waited(min(backoff_s(failures) if failures else math.inf, self._times.heartbeat)):
            with self._changed:
                frames, self._hurried = self._frames, False
            try:
                answer = self._client.heartbeat(
                    render_id=self._lease.render_id,
                    epoch=self._lease.epoch,
                    frames=frames,
                    timeout_s=self._times.answer,
                )
            except _FINAL as error:
                self._lose(error.message)
                return
            except errors.OanimError as error:
                failures += 1
                if failures == 1:
                    log.warning("%s: a report was not answered: %s", self._lease.render_id, error.message)
                continue
            except Exception:
                failures += 1
                log.exception("%s: a report could not be made", self._lease.render_id)
                continue
            if failures:
                log.info("%s: reports are answered again", self._lease.render_id)
            failures = 0
            if answer.stop:
                self._lose("the service wants it to stop")
                return
            with self._changed:
                self._acknowledged = frames
                self._changed.notify_all()

    def _waited(self, seconds: float) -> bool:
        """Wait until the next report is due; False when there is none."""
        until = time.monotonic() + seconds
        with self._changed:
            while not self._closed and not self._hurried and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            return not self._closed

    def _lose(self, why: str) -> None:
        with self._changed:
            if self._closed:
                return
            self.lost = True
            self._changed.notify_all()
        log.warning("%s: the lease is lost: %s", self._lease.render_id, why)
        self._on_lost()
