"""The other end of a stream, by script: it has each effect once a key, and breaks where a test says."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc

from openanimate.metering.v1 import wallet_service_pb2 as pb
from openanimate.metering.v1.reservation_pb2 import Reservation
from tests.sdk.scripted import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GONE = Refusal(grpc.StatusCode.UNAVAILABLE)
OVERLOADED = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after_s=0.05)
NOT_FOUND = Refusal(grpc.StatusCode.NOT_FOUND, "NOT_FOUND", {"what": "reservation"})


def refused(refusal: Refusal) -> pb.MeterOutcome:
    """A refusal, as a stream tells it."""
    ((_, status),) = refusal.trailing()
    return pb.MeterOutcome(refused=pb.Refusal(status=status))


class MeterEnd:
    """Answers a Meter stream as the server does, as far as its order and its keys go.

    Before message `n`, counted over all streams from 1, it asks `breaks` for what ends the stream and after
    how many of its operations; without an answer they are done and answered. `refuse` may refuse an
    operation, whose number of tries, from 1, it is told.
    """

    def __init__(self) -> None:
        self.breaks: Callable[[int], tuple[Refusal, int] | None] = lambda _: None
        self.refuse: Callable[[pb.MeterOperation, int], Refusal | None] = lambda *_: None
        # How many operations each message had, each operation as it was done, and each stream's first key.
        self.messages: list[int] = []
        self.done: list[str] = []
        self.streams = 0
        # Held up until it is set.
        self.going = threading.Event()
        self.going.set()
        self._done: set[str] = set()
        self._reserved: set[str] = set()
        self._tries: Counter[str] = Counter()

    def __call__(self, requests: Iterator[pb.MeterRequest]) -> Iterator[Any]:
        """Serve one stream."""
        self.streams += 1
        for request in requests:
            self.going.wait(30)
            self.messages.append(len(request.operations))
            broken = self.breaks(len(self.messages))
            outcomes = [self._outcome(each) for each in request.operations[: broken[1] if broken else None]]
            if broken:
                yield broken[0]
            yield pb.MeterResponse(outcomes=outcomes)

    def _outcome(self, operation: pb.MeterOperation) -> pb.MeterOutcome:
        which = str(operation.WhichOneof("operation"))
        key = getattr(operation, which).idempotency_key
        self._tries[key] += 1
        refusal = self.refuse(operation, self._tries[key])
        if refusal is not None:
            return refused(refusal)
        replayed = key in self._done
        if operation.reserve_key and operation.reserve_key not in self._reserved:
            return refused(NOT_FOUND)
        if not replayed:
            self.done.append(key)
            self._done.add(key)
        if which == "reserve":
            self._reserved.add(key)
            reservation = Reservation(reservation_id=f"r-{key}")
            return pb.MeterOutcome(reserve=pb.ReserveResponse(reservation=reservation, replayed=replayed))
        if which == "commit":
            charged = operation.commit.amount_micros
            return pb.MeterOutcome(commit=pb.CommitResponse(charged_micros=charged, replayed=replayed))
        return pb.MeterOutcome(release=pb.ReleaseResponse(replayed=replayed))
