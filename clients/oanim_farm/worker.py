"""Takes leases and has them worked on, one a slot, until it is told to end.

Told once, it takes nothing more, lets what runs finish for a while, and hands the rest back; told twice, it
hands back at once.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from oanim import errors, new_key
from oanim.retries import backoff_s
from oanim_farm.heart import TIMES
from oanim_farm.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from oanim import Client
    from oanim_farm.heart import Times
    from oanim_farm.job import Tools
    from oanim_farm.slots import Slot
    from openanimate.metering.v1.render_service_pb2 import RenderLease

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.05
_BETWEEN_QUESTIONS_SECONDS = 1.0


class Worker:
    """Works in several slots, with one key."""

    def __init__(
        self, connect: Callable[[], Client], tools: Tools, *, drain_seconds: float, times: Times = TIMES
    ) -> None:
        self._connect = connect
        self._client = connect()
        self._tools = tools
        self._drain_seconds = drain_seconds
        self._times = times
        self._stopping = threading.Event()
        self._told = 0
        self._jobs: set[Job] = set()
        self._refusal: errors.OanimError | None = None

    def stop(self) -> None:
        """End soon; called again, at once. For a signal's handler, which must take no lock."""
        self._told += 1

    def run(self, slots: Sequence[Slot]) -> None:
        """Work until it is stopped.

        :raises OanimError: when the service will not have this key.
        """
        threads = [
            threading.Thread(target=self._serve, args=(slot,), name=f"slot {slot.folder.name}", daemon=True)
            for slot in slots
        ]
        for thread in threads:
            thread.start()
        while not self._is_ending():
            time.sleep(_LOOK_SECONDS)
        self._stopping.set()
        log.info("ending: %d renders are worked on", len(self._jobs))
        self._wait_for(threads, self._drain_seconds, unless=lambda: self._told > 1)
        for job in list(self._jobs):
            job.hand_back()
        self._wait_for(threads, self._times.leaving * 2)
        self._client.close()
        if self._refusal is not None:
            raise self._refusal

    def _wait_for(
        self,
        threads: Sequence[threading.Thread],
        seconds: float,
        *,
        unless: Callable[[], bool] = lambda: False,
    ) -> None:
        until = time.monotonic() + seconds
        while any(thread.is_alive() for thread in threads) and time.monotonic() < until and not unless():
            time.sleep(_LOOK_SECONDS)

    def _serve(self, slot: Slot) -> None:
        """Work on one render after the other."""
        faults = 0
        while (lease := self._next_lease()) is not None:
            faults = 0 if self._worked(slot, lease) else faults + 1
            # A machine that is out of order must not use up the attempts of all that waits.
            self._stopping.wait(min(self._times.recovery * faults, self._times.longest_recovery))

    def _next_lease(self) -> RenderLease | None:
        """Ask until there is work; None when this worker is to end."""
        key, failures = new_key(), 0
        while not self._is_ending():
            asked_at = time.monotonic()
            try:
                # A question whose answer was lost is asked again with its key: the lease that it got is ours.
                answer = self._client.lease_render(idempotency_key=key, wait_seconds=self._times.asking)
            except errors.StaleLease:
                key = new_key()
                continue
            except (errors.KeyInvalid, errors.WrongRole) as error:
                self._refusal = error
                self._stopping.set()
                break
            except errors.OanimError as error:
                failures += 1
                if failures == 1:
                    log.warning("no answer about work: %s", error.message)
                self._stopping.wait(max(backoff_s(failures), error.retry_after_s or 0.0))
                continue
            if failures:
                log.info("the service answers again")
            failures = 0
            if answer.HasField("lease"):
                return answer.lease
            # A service that is about to stop keeps no question open.
            self._stopping.wait(asked_at + _BETWEEN_QUESTIONS_SECONDS - time.monotonic())
        return None

    def _is_ending(self) -> bool:
        return bool(self._told) or self._stopping.is_set()

    def _worked(self, slot: Slot, lease: RenderLease) -> bool:
        """Work on one lease; False when this machine had a fault."""
        job = Job(self._client, self._connect, lease, self._tools, self._times)
        self._jobs.add(job)
        if self._is_ending():
            job.hand_back()
        try:
            job.run(slot)
        except Exception:
            log.exception("%s: this machine had a fault", lease.render_id)
            return False
        finally:
            self._jobs.discard(job)
        return True
