"""Meters a block of work, for threads: holds before it, charges what was used after it, whatever ends it.

Three parties call: the block's threads (`used`, one at a time under a lock), the renewal thread, which only
adds time and never touches the block's numbers, and the block's end, which waits for the first and ignores
what the second is told afterwards.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import Message

from oanim.block import SETTLING_S, Block, Readings
from oanim.errors import OanimError
from oanim.retries import Attempts, Deadline, backoff_s, is_repeatable

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from oanim.calls.call import Call
    from oanim.connection import Connection
    from openanimate.metering.v1.wallet_service_pb2 import CommitResponse, ReleaseResponse

Answer = TypeVar("Answer", bound=Message)

_LEAVING_S = 1.0


class Meter(Readings):
    """A metered block; made by `Client.metered`, to be entered once."""

    def __init__(self, connection: Connection, block: Block) -> None:
        self._connection = connection
        self._block = block
        self._using = threading.Lock()
        self._leaving = threading.Event()
        self._renewal = threading.Thread(target=self._renew, name="oanim-meter", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._reserve()
            self._renewal.start()
        except OanimError as error:
            raise error.repeatable_with(self.key) from None
        except BaseException:
            self._abandon()
            raise
        return self

    def used(self, units: int = 1) -> None:
        """Count what is used, on top of what was counted before; a hold that is too small is extended first.

        Raises what Extend raises, InsufficientCredits above all, and then counts nothing.
        """
        with self._using:
            missing_micros = self._block.missing_micros(units)
            if missing_micros:
                call = self._block.extend_call(missing_micros)
                self._block.extended(self._patiently(call, self._connection.timeout_s))
            self._block.total += units

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        try:
            with self._using:
                self._block.ended = True
                self._block.settled(self._settle())
        except OanimError as failure:
            if error is None:
                raise
            error.add_note(self._block.not_settled(failure))
        finally:
            self._renewal.join(_LEAVING_S)

    def _reserve(self) -> None:
        answer = self._connection.unary(self._block.reserve_call())
        self._block.reserved(answer)
        if answer.replayed:
            self._block.found(self._connection.unary(self._block.look_again_call()).reservation)

    def _abandon(self) -> None:
        """Give back what an interrupted entry may have set aside; its ttl does where this cannot."""
        with contextlib.suppress(OanimError):
            self._block.reserved(self._connection.unary(self._block.reserve_call()))
            self._connection.unary(self._block.release_call())

    def _settle(self) -> CommitResponse | ReleaseResponse:
        if self.total:
            return self._patiently(self._block.commit_call(), SETTLING_S)
        return self._patiently(self._block.release_call(), SETTLING_S)

    def _patiently(self, call: Call[Answer], patience_s: float) -> Answer:
        """Make a call until it is answered, always under the same key."""
        attempts = Attempts(Deadline(patience_s))
        while True:
            try:
                return self._connection.unary(call)
            except OanimError as error:
                pause_s = attempts.pause_before_repeating_s(error)
                if pause_s is None:
                    raise
            time.sleep(pause_s)

    def _renew(self) -> None:
        """Add time until the block ends; a hold that is lost all the same is settled late."""
        for number in itertools.count(1):
            if self._leaving.wait(self._block.renew_every_s) or not self._renewed(number):
                return

    def _renewed(self, number: int) -> bool:
        call = self._block.renew_call(number)
        for failures in itertools.count(1):
            try:
                self._connection.unary(call)
            except OanimError as error:
                if not is_repeatable(error) or self._leaving.wait(backoff_s(failures)):
                    return False
            else:
                break
        return True
