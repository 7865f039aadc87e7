"""What waits for the committer, and how the next group is taken from it.

What waits of a stream's messages is one entry, its lane, however many operations they have: it is never
refused for want of room, because a stream is read no further than one message may go. While calls wait
beside it, it gives a group a portion; else all of it. On each wallet the order is that of arrival, which of
a message is when the turn of its lane begins: what comes later goes past the rest of a turn, but where it
is of one of its wallets.
"""

from __future__ import annotations

from collections import deque
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import Struct

from oanim_server.ledger.operations import Operation, SettleDue
from oanim_server.ledger.refusals import Refusal

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from oanim_server.ledger.group import Work
    from oanim_server.ledger.values import Outcome

PER_WALLET = 250
# How much of a lane goes into a group that calls wait for, too: some 4 ms of theirs.
PORTION = 100


class Pending(Struct):
    """An operation that waits, and who waits for it; `answer` makes of its outcome what that wants.

    Of a message, `number` says where among its answers that of the operation belongs.
    """

    work: Work
    future: asyncio.Future[Any] | Future[Any] | Message
    loop: asyncio.AbstractEventLoop | None
    answer: Callable[[Outcome], Any] | None = None
    number: int = 0
    # What was made, and of which outcome: a group that is run again has others.
    _made: tuple[Outcome, Any] | None = None

    def make(self, outcome: Outcome) -> None:
        """Make the answer before it is asked for."""
        if self.answer is not None and not self.future.cancelled():
            self._made = (outcome, self.answer(outcome))

    def made(self, outcome: Any) -> Any:
        """The answer, of that outcome and no other."""
        if self.answer is None:
            return outcome
        made = self._made
        return made[1] if made is not None and made[0] is outcome else self.answer(outcome)

    @property
    def starts_work(self) -> bool:
        """Whether it is the first thing to be refused when there is too much to do."""
        return isinstance(self.work, Operation) and self.work.starts_work

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for it and nothing is lost without it."""
        return self.future.cancelled() and _needless(self.work)

    @property
    def wallet_id(self) -> int:
        """Its wallet; 0 without one."""
        return self.work.wallet_id if isinstance(self.work, Operation) else 0


def _needless(work: Work) -> bool:
    """Whether nothing is lost without it when nobody waits for it."""
    return isinstance(work, Operation) and (work.starts_work or isinstance(work, SettleDue))


class Message:
    """Operations that came together, and one future for all their answers: of a refusal, itself."""

    __slots__ = ("_answers", "_left", "_waiting", "future", "lane", "loop")

    def __init__(
        self, works: Sequence[Operation | Refusal], loop: asyncio.AbstractEventLoop, lane: Lane
    ) -> None:
        self.future: asyncio.Future[list[Any]] = loop.create_future()
        self.loop = loop
        self.lane = lane
        self._answers: list[Any] = list(works)
        self._waiting = deque(
            (number, work) for number, work in enumerate(works) if not isinstance(work, Refusal)
        )
        self._left = len(self._waiting)
        if not self._left:
            self.future.set_result(self._answers)

    def __len__(self) -> int:
        return len(self._waiting)

    def give(self, most: int, room: Room | None) -> list[Pending]:
        """The next of its operations, up to the first whose wallet has no room in this group."""
        waiting, cancelled = self._waiting, self.cancelled()
        given: list[Pending] = []
        while waiting and len(given) < most:
            number, work = waiting[0]
            dropped = cancelled and _needless(work)
            if not dropped and room is not None and not room.has(work.wallet_id):
                break
            waiting.popleft()
            if not dropped:
                given.append(Pending(work, self, self.loop, None, number))
        return given

    def wallets(self) -> Iterator[int]:
        """Those that its operations which wait are of."""
        return (work.wallet_id for _, work in self._waiting)

    def cancelled(self) -> bool:
        """Whether nobody waits for its answers any more."""
        return self.future.cancelled()

    def answer(self, number: int, answer: Any) -> tuple[asyncio.Future[list[Any]], list[Any]] | None:
        """Note the answer of one of its operations; with the last, who waits and what for."""
        self._answers[number] = answer
        self._left -= 1
        return None if self._left else (self.future, self._answers)


class Lane:
    """What waits of the messages of one stream, in their order. It is in the queue while something does.

    It has a turn there, as a message alone would have: what joins it while others wait behind it has the next
    turn, behind them, however often it is joined.
    """

    __slots__ = ("_coming", "_turn")

    def __init__(self) -> None:
        self._turn: deque[Message] = deque()
        self._coming: deque[Message] = deque()

    def __bool__(self) -> bool:
        return bool(self._turn or self._coming)

    def __len__(self) -> int:
        return sum(map(len, chain(self._turn, self._coming)))

    def add(self, message: Message, *, at_end: bool) -> None:
        """Put a message of which something waits behind the others; nobody waits behind a lane at the end."""
        if at_end:
            self._turn += self._coming
            self._coming.clear()
            self._turn.append(message)
        else:
            self._coming.append(message)

    def give(self, most: int, room: Room | None) -> list[Pending]:
        """The next operations of its turn, up to the first whose wallet has no room in this group."""
        turn = self._turn
        given: list[Pending] = []
        while turn and len(given) < most:
            given += turn[0].give(most - len(given), room)
            if turn[0]:
                break
            turn.popleft()
        return given

    @property
    def has_turn(self) -> bool:
        """Whether something is left of its turn."""
        return bool(self._turn)

    def begin_turn(self) -> bool:
        """Have another turn after the one that is over; whether there is anything to have one for."""
        self._turn, self._coming = self._coming, self._turn
        return self.has_turn

    def wallets(self) -> set[int]:
        """Those that the operations of its turn are of."""
        return {wallet_id for message in self._turn for wallet_id in message.wallets()}


Entry: TypeAlias = Pending | Lane


def join(queue: deque[Entry], message: Message) -> None:
    """Put a message of which something waits into its lane, and that into the queue unless it is there."""
    lane = message.lane
    if not lane:
        queue.append(lane)
    lane.add(message, at_end=queue[-1] is lane)


def take(queue: deque[Entry], most: int) -> list[Pending]:
    """The next group, in order of arrival, and no more of one wallet than leaves room for others."""
    lanes = sum(isinstance(entry, Lane) for entry in queue)
    if not lanes and len(queue) <= min(PER_WALLET, most):
        return _all(queue)
    taking = _Taking(queue, most, beside_calls=0 < lanes < len(queue))
    taking.run()
    return taking.group


def _all(queue: deque[Entry]) -> list[Pending]:
    """Calls that are few enough for one group, whoever's they are."""
    calls = [entry for entry in queue if isinstance(entry, Pending) and not entry.abandoned]
    queue.clear()
    return calls


class Room:
    """How much of each wallet one group has."""

    __slots__ = ("behind", "of_wallet")

    def __init__(self) -> None:
        self.of_wallet: dict[int, int] = {}
        # Wallets that something kept is of: what comes later waits behind it.
        self.behind: set[int] = set()

    def has(self, wallet_id: int) -> bool:
        """Whether there is room for one more of a wallet, which is counted."""
        taken = self.of_wallet.get(wallet_id, 0)
        if taken >= PER_WALLET or wallet_id in self.behind:
            return False
        self.of_wallet[wallet_id] = taken + 1
        return True


class _Taking:
    """One group, while it is taken from the queue."""

    def __init__(self, queue: deque[Entry], most: int, *, beside_calls: bool) -> None:
        self._queue = queue
        self._most = most
        self._beside_calls = beside_calls
        self._room = Room()
        self._kept: list[Entry] = []
        # Lanes whose next turn is after all that waits now.
        self._later: list[Lane] = []
        self.group: list[Pending] = []

    def run(self) -> None:
        """Take what there is room for; what is left stays in the queue, in its order."""
        queue, group = self._queue, self.group
        while queue and len(group) < self._most:
            entry = queue.popleft()
            if isinstance(entry, Lane):
                self._take_of(entry)
            elif not entry.abandoned:
                self._take(entry)
        if self._kept and len(self._room.of_wallet) == 1 and not self._beside_calls:
            self._fill()
        queue.extendleft(reversed(self._kept))
        queue.extend(self._later)

    def _take_of(self, lane: Lane) -> None:
        left = self._most - len(self.group)
        self.group += lane.give(min(PORTION, left) if self._beside_calls else left, self._room)
        if lane.has_turn:
            self._kept.append(lane)
            if self._queue:
                self._room.behind |= lane.wallets()
        elif lane.begin_turn():
            # Beside calls, it has given its portion.
            (self._later if self._beside_calls else self._queue).append(lane)

    def _take(self, call: Pending) -> None:
        wallet_id = call.wallet_id
        # What is of no wallet has no order to keep.
        if self._room.has(wallet_id) or not wallet_id:
            self.group.append(call)
        else:
            self._kept.append(call)
            self._room.behind.add(wallet_id)

    def _fill(self) -> None:
        """Nobody else waits: take what was kept for others' sake, as far as a group goes."""
        waiting, self._kept = deque(self._kept), []
        while waiting:
            entry = waiting.popleft()
            if len(self.group) >= self._most:
                self._kept.append(entry)
            elif isinstance(entry, Pending):
                self.group.append(entry)
            else:
                self.group += entry.give(self._most - len(self.group), None)
                if entry.has_turn:
                    self._kept.append(entry)
                elif entry.begin_turn():
                    waiting.append(entry)
