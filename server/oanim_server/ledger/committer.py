"""The committer: a queue, one thread, and one database transaction for all that queued up meanwhile.

While one group is being committed, the operations that arrive form the next one, so that durability is
paid once a group instead of once a call. Nothing is answered before its commit. A caller that goes away
takes a Reserve with it that has not begun, so that nothing is held for nobody; everything else is done.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import secrets
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oanim_server.database.engine import CommitUnknownError, driver_of, is_away, is_conflict, is_duplicate
from oanim_server.ledger.group import DEFERRED, Group
from oanim_server.ledger.operations import Operation
from oanim_server.ledger.queueing import Lane, Message, Pending, join, take
from oanim_server.ledger.refusals import (
    Conflict,
    DatabaseAway,
    Draining,
    Faulty,
    OutcomeUnknown,
    Overloaded,
    Refusal,
)
from oanim_server.ledger.values import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlalchemy import Connection

    from oanim_server.database.engine import Database
    from oanim_server.ledger.group import Work
    from oanim_server.ledger.queueing import Entry

log = logging.getLogger(__name__)

GROUP = 1_000
# Messages of streams that no call came beside for so long have larger groups: nobody waits for one operation.
# A wallet's pages are then written once for several of its operations.
BULK = 4
QUIET_SECONDS = 1.0
TRIES = 3
# How long an operation whose commit is unknown waits for the database to say.
PATIENCE_SECONDS = 30.0
# The same, once the server is about to stop: less than the time it has for all of its work.
STOPPING_SECONDS = 5.0
IDLE_SECONDS = 0.25
RETRY_SECONDS = 0.1
# How often an event loop goes around between two groups, and for how long at the most; less when so much of
# what was answered and of what waits is there again.
TURNS = 400
TURNS_SECONDS = 0.02
BACK = 0.9
# How long the turns after one group lend the processor until it is clear that somebody else's work took it,
# and how many times as long nothing is lent then.
LENT_SECONDS = 0.002
REST = 30


@dataclass(slots=True)
class Tally:
    """What the committer has done, for the metrics."""

    groups: int = 0
    operations: int = 0
    conflicts: int = 0
    faults: int = 0
    seconds: float = 0.0
    # Told of every group: how many operations, how many seconds.
    observe: Callable[[int, float], None] | None = None


class Committer:
    """Takes operations from any thread or event loop and answers each after its group's commit.

    :param database: where to.
    :param changed: told the wallets of each group after its commit, on the committer's thread.
    :param queue_limit: how many may wait before operations that start work are refused; commits and releases
        are taken up to twice as many. What waits of a stream's messages counts as one and is never refused:
        its stream bounds it.
    :param group_limit: the most operations of a group that a call may wait for; four times as many while for
        a second there were only messages.
    """

    def __init__(
        self,
        database: Database,
        *,
        changed: Callable[[Iterable[int]], None] | None = None,
        queue_limit: int = 2_000,
        group_limit: int = GROUP,
    ) -> None:
        self._database = database
        self._changed = changed
        self._queue_limit = queue_limit
        self._group_limit = group_limit
        self._called_at = -math.inf
        self._queue: deque[Entry] = deque()
        self._awake = threading.Condition()
        self._waiting = False
        self._stopping = False
        self._give_up_at = math.inf
        self._lent_seconds = 0.0
        self._lends_at = -math.inf
        self._written: set[int] = set()
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._work, name="committer", daemon=True)
        self.tally = Tally()

    def start(self) -> None:
        """Begin to take operations."""
        self._thread.start()

    def stop(self) -> None:
        """Commit what is queued, then end. Later operations are refused with Draining."""
        with self._awake:
            self._stopping = True
            self._give_up_at = time.monotonic() + STOPPING_SECONDS
            self._awake.notify()
        self._thread.join(STOPPING_SECONDS + 1.0)
        if self._thread.is_alive():  # by now it has given up, or waits for a database that hangs
            self._database.cut()
            self._thread.join()

    @property
    def queued(self) -> int:
        """How many operations wait."""
        with self._awake:
            return sum(len(entry) if isinstance(entry, Lane) else 1 for entry in self._queue)

    def submit(self, work: Work, answer: Callable[[Any], Any] | None = None) -> asyncio.Future[Any]:
        """Queue an operation of the running event loop; the future has its outcome or its refusal.

        :param answer: makes of the outcome what the future has instead. The event loop calls it while the
            group is being committed, when it has nothing else to do, and again should that commit fail.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._enqueue(Pending(work, future, loop, answer))
        return future

    def submit_all(self, works: Sequence[Operation | Refusal], lane: Lane) -> asyncio.Future[list[Any]]:
        """Queue operations of the running event loop behind what their lane has; the future has the answers.

        They are never Overloaded: whoever submits them bounds what the lane has, and has no other.
        """
        message = Message(works, asyncio.get_running_loop(), lane)
        if message:
            with self._awake:
                self._require_running()
                join(self._queue, message)
                self._wake()
        return message.future

    def run(self, work: Work) -> Any:
        """Queue an operation and wait for its outcome; raises its refusal."""
        future: Future[Any] = Future()
        self._enqueue(Pending(work, future, None))
        return future.result()

    def _enqueue(self, pending: Pending) -> None:
        limit = self._queue_limit if pending.starts_work else 2 * self._queue_limit
        if pending.wallet_id:
            self._called_at = time.monotonic()
        with self._awake:
            self._require_running()
            if len(self._queue) >= limit:
                raise Overloaded
            self._queue.append(pending)
            self._wake()

    def _require_running(self) -> None:
        if self._stopping:
            raise Draining

    def _wake(self) -> None:
        if self._waiting:
            self._awake.notify()

    # The committer's thread -----------------------------------------------------------------------

    def _work(self) -> None:
        checkpointed = True
        while True:
            with self._awake:
                if not self._queue and not self._stopping:
                    self._waiting = True
                    self._awake.wait(IDLE_SECONDS)
                    self._waiting = False
                group = take(self._queue, self._most())
                if not group and not self._queue and self._stopping:
                    break
            if group:
                with _uncollected() if len(group) > self._group_limit else nullcontext():
                    self._settle(group)
                    group.clear()
                checkpointed = False
            elif not checkpointed:
                self._checkpoint(idle=True)
                checkpointed = True
        self._disconnect()

    def _most(self) -> int:
        quiet = time.monotonic() - self._called_at >= QUIET_SECONDS
        # After a hang of the database, calls may have waited for longer than that.
        alone = quiet and all(isinstance(entry, Lane) for entry in self._queue)
        return BULK * self._group_limit if alone else self._group_limit

    def _checkpoint(self, *, idle: bool) -> None:
        try:
            self._database.checkpoint(self._connection, idle=idle)
        except Exception:
            # A full disk must not end this thread: with it, every caller would wait for ever.
            log.exception("the checkpoint failed and is tried again")
            self._disconnect()

    def _settle(self, group: list[Pending]) -> None:
        began = time.perf_counter()
        try:
            answers = self._commit(group)
        except BaseException as error:  # noqa: BLE001 - a bug here must not leave callers without an answer
            answers = [self._fault(error) for _ in group]
        seconds = time.perf_counter() - began
        self.tally.groups += 1
        self.tally.operations += len(group)
        self.tally.seconds += seconds
        deferred = [pending for pending, answer in zip(group, answers, strict=True) if answer is DEFERRED]
        if deferred:
            with self._awake:
                self._queue.extendleft(reversed(deferred))
        answered = _deliver(group, answers)
        written, self._written = self._written, set()
        try:
            if self.tally.observe is not None:
                self.tally.observe(len(group), seconds)
            if self._changed is not None and written:
                self._changed(written)
        except Exception:
            # Whoever looks on must not end this thread: with it, every caller would wait for ever.
            log.exception("a group is committed, and somebody who looks on failed")
        loop = group[0].loop if len(group) > 1 else None
        with self._give_way(loop, answered) if loop is not None else nullcontext():
            self._checkpoint(idle=False)

    @contextmanager
    def _give_way(self, loop: asyncio.AbstractEventLoop, answered: int) -> Iterator[None]:
        """Let an event loop go on with what was answered and with what has arrived, before the next group.

        What is done inside the block is done meanwhile.

        Both threads want the interpreter. A group that is taken at once is small, and has to wait for the
        loop after every step of a statement; half of the calls a second were lost to that. Whoever was
        answered often asks again: when nearly as much waits as before, there is little more to come. A loop
        with nothing to do is around in a millisecond.
        """
        around = threading.Event()
        enough = BACK * (answered + len(self._queue))
        until = time.monotonic() + TURNS_SECONDS
        self._lent_seconds = 0.0
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(self._turn, loop, TURNS, enough, around)
        yield
        if not loop.is_closed():
            around.wait(until - time.monotonic())
            around.set()

    def _turn(
        self, loop: asyncio.AbstractEventLoop, left: int, enough: float, around: threading.Event
    ) -> None:
        if not left or len(self._queue) >= enough:
            around.set()
        elif not around.is_set():
            self._lend_processor()
            loop.call_soon(self._turn, loop, left - 1, enough, around)

    def _lend_processor(self) -> None:
        """Let whoever asks next do so on this processor: there may be no other, and this loop only looks.

        What keeps it for long does not ask: beside such work a group would wait for a slice of it each turn.
        """
        began = time.monotonic()
        if began >= self._lends_at:
            os.sched_yield()
            self._lent_seconds += time.monotonic() - began
            if self._lent_seconds > LENT_SECONDS:
                self._lends_at = began + REST * self._lent_seconds

    def _commit(self, pendings: Sequence[Pending]) -> list[Any]:
        """Run a group until its fate is known; one answer an operation: a value, or a refusal."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        for attempt in range(TRIES):
            try:
                return self._transact(pendings, deadline)
            except CommitUnknownError:
                self._disconnect()
                return [OutcomeUnknown() for _ in pendings]
            except Exception as error:  # noqa: BLE001 - every fault is told apart here, none is lost
                # Whatever state a failed commit left the connection in, the next group has a new one.
                self._disconnect()
                if is_away(error):
                    return [DatabaseAway() for _ in pendings]
                if not is_conflict(error) or (attempt + 1 == TRIES and is_duplicate(error)):
                    return self._one_by_one(pendings, error)
                self.tally.conflicts += 1
        return [Conflict() for _ in pendings]

    def _transact(self, pendings: Sequence[Pending], deadline: float) -> list[Any]:
        """One database transaction; again when its commit was not answered and is found not to be there.

        :raises CommitUnknownError: when that cannot be found out in time.
        """
        works = [pending.work for pending in pendings]
        again = False
        while True:
            group: Group | None = None
            try:
                connection = self._connected()
                group = Group(connection, self._database.statements, works)
                with connection.begin() as transaction:
                    group.run()
                    if again:
                        # What it found done may have been written by the lost one: wait for the standby.
                        self._database.touch(connection)
                    _have_made(pendings, group.answers)
                    self._database.commit(transaction)
            except CommitUnknownError:
                self._disconnect()
                if group is None or not self._took_effect(group, deadline):
                    if self._out_of_time(deadline):
                        raise
                    again = True
                    continue
            except Exception as error:
                # Once a commit is unknown, nothing that goes wrong afterwards makes it known.
                if not again:
                    raise
                if self._out_of_time(deadline) or not (is_away(error) or is_conflict(error)):
                    raise CommitUnknownError from error
                self._disconnect()
                time.sleep(RETRY_SECONDS)
                continue
            self._written.update(group.working.changed_wallets)
            return group.answers

    def _out_of_time(self, deadline: float) -> bool:
        return time.monotonic() >= min(deadline, self._give_up_at)

    def _one_by_one(self, pendings: Sequence[Pending], error: Exception) -> list[Any]:
        """One operation spoils the group: alone, the others get their answers, each wallet's in order."""
        if len(pendings) == 1:
            return [self._fault(error)]
        answers: list[Any] = []
        waiting: set[int] = set()
        for pending in pendings:
            wallet_id = pending.work.wallet_id if isinstance(pending.work, Operation) else None
            if answers and isinstance(answers[-1], DatabaseAway):
                # Each would wait for the database as long as the one before it.
                answers.append(DatabaseAway())
                continue
            answer = DEFERRED if wallet_id in waiting else self._commit([pending])[0]
            if answer is DEFERRED and wallet_id is not None:
                waiting.add(wallet_id)
            answers.append(answer)
        return answers

    def _fault(self, error: BaseException) -> Faulty:
        self.tally.faults += 1
        fault = Faulty(secrets.token_hex(6))
        log.error("an operation failed", extra={"error_id": fault.error_id}, exc_info=error)
        return fault

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._database.writer()
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.invalidate()
            connection.close()

    def _took_effect(self, group: Group, deadline: float) -> bool:
        """Whether a group whose commit was not answered is there: its last row answers for all of it.

        Asked in a transaction that locks and writes, because that waits for the lost one, and its own
        commit for the standby.
        """
        if not group.working.rows:
            return False
        last = group.working.rows[-1]
        while True:
            try:
                connection = self._connected()
                driver, statements = driver_of(connection), self._database.statements
                with connection.begin() as transaction:
                    statements.lock_wallets(driver, sorted(group.working.changed_wallets))
                    found = statements.fetch_row(driver, last.wallet_id, last.seq)
                    self._database.touch(connection)
                    self._database.commit(transaction)
                # What is in SQLite's log and a disk did not confirm is not written by asking once more, but
                # by being moved.
                self._database.checkpoint(connection, idle=True)
            except Exception as error:
                self._disconnect()
                if self._out_of_time(deadline) or not (is_away(error) or is_conflict(error)):
                    raise CommitUnknownError from error
                time.sleep(RETRY_SECONDS)
            else:
                return found is not None and bytes(found[-1]) == last.link


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the collector from looking through a large group: in vain, since all of it dies by its count."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _have_made(pendings: Sequence[Pending], outcomes: Sequence[Any]) -> None:
    """Have event loops make answers while the commit is written. They are kept, and given after it.

    The interpreter is free then, and so is the loop that waits for this group. For one operation, waking the
    loop once more would cost more than making its answer afterwards.
    """
    batches: dict[asyncio.AbstractEventLoop, list[tuple[Pending, Any]]] = {}
    if len(pendings) > 1:
        for pending, outcome in zip(pendings, outcomes, strict=True):
            if pending.loop is not None and pending.answer is not None and isinstance(outcome, Outcome):
                batches.setdefault(pending.loop, []).append((pending, outcome))
    for loop, batch in batches.items():
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_make, batch)


def _make(batch: Sequence[tuple[Pending, Outcome]]) -> None:
    for pending, outcome in batch:
        with suppress(Exception):  # it is made again when it is given, and whoever asked is told
            pending.make(outcome)


def _deliver(group: Sequence[Pending], answers: Sequence[Any]) -> int:
    """Hand each answer to whoever waits; one wake-up an event loop, not one an answer.

    :returns: how many on event loops have answers and nothing else that waits: calls, and streams.
    """
    batches: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any, Pending]]] = {}
    calls, lanes = 0, set()
    for pending, answer in zip(group, answers, strict=True):
        if answer is DEFERRED:
            continue
        waiting = pending.future
        if isinstance(waiting, Message):
            whole = waiting.answer(pending.number, answer)
            if whole is not None:
                batches.setdefault(waiting.loop, []).append((*whole, pending))
                lanes.add(waiting.lane)
        elif isinstance(waiting, Future):
            _resolve([(waiting, answer, pending)])
        elif pending.loop is not None:
            batches.setdefault(pending.loop, []).append((waiting, answer, pending))
            calls += 1
    for loop, batch in batches.items():
        try:
            loop.call_soon_threadsafe(_resolve, batch)
        except RuntimeError:  # the loop was closed: nobody waits any more
            log.info("answers for a closed event loop: %d", len(batch))
    return calls + sum(not lane for lane in lanes)


def _resolve(batch: Sequence[tuple[Any, Any, Pending]]) -> None:
    for future, answer, pending in batch:
        if future.done():
            continue
        if isinstance(answer, Refusal | OutcomeUnknown):
            future.set_exception(answer)
        else:
            try:
                future.set_result(pending.made(answer))
            except Exception as error:  # noqa: BLE001 - it is its caller's, and spoils nobody else's answer
                future.set_exception(error)
