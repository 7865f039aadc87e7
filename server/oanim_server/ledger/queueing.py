"""What waits for the committer, and how the next group is taken from it.

What waits of a stream's messages is one entry, its lane, however many operations they have: it is never
refused for want of room, because a stream is read no further than one message may go. While calls wait
beside it, it gives a group a portion; else all of it. On each wallet the order is that of arrival, which of
a message is when the turn of its lane begins: what comes later goes past the rest of a turn, but where it
is of one of its wallets.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

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


@dataclass(slots=True)
class Pending:
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

    def give(self, most: int, admits: Callable[[int], bool]) -> list[Pending]:
        """The next of its operations, up to the first whose wallet is full in this group."""
        waiting, cancelled = self._waiting, self.cancelled()
        given: list[Pending] = []
        while waiting and len(given) < most:
            number, work = waiting[0]
            dropped = cancelled and _needless(work)
            if not dropped and not admits(work.wallet_id):
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

    def give(self, most: int, admits: Callable[[int], bool]) -> list[Pending]:
        """The next operations of its turn, up to the first whose wallet is full in this group."""
        turn = self._turn
        given: list[Pending] = []
        while turn and len(given) < most:
            given += turn[0].give(most - len(given), admits)
            if turn[0]:
                break
            turn.popleft()
        return given

    @property
    def has_turn(self) -> bool:
        """Whether something is left of its turn."""
        return bool(self._turn)

    def in_next_turn(self) -> list[Lane]:
        """Itself, with another turn after the one that is over; nothing where nothing waits any more."""
        self._turn, self._coming = self._coming, self._turn
        return [self] if self.has_turn else []

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
    portion = PORTION if 0 < lanes < len(queue) else most
    group: list[Pending] = []
    kept: list[Entry] = []
    # Lanes whose next turn is after all that waits now.
    later: list[Entry] = []
    of_wallet: dict[int, int] = {}
    # Wallets that something kept is of: what comes later waits behind it.
    behind: set[int] = set()

    def admits(wallet_id: int) -> bool:
        """Whether there is room for one more of a wallet, which is counted."""
        taken = of_wallet.get(wallet_id, 0)
        if taken >= PER_WALLET or wallet_id in behind:
            return False
        of_wallet[wallet_id] = taken + 1
        return True

    while queue and len(group) < most:
        entry = queue.popleft()
        if isinstance(entry, Lane):
            group += entry.give(min(portion, most - len(group)), admits)
            if entry.has_turn:
                kept.append(entry)
                behind |= entry.wallets()
            else:
                # Beside calls, it has given its portion.
                (queue if portion == most else later).extend(entry.in_next_turn())
        elif not entry.abandoned:
            wallet_id = entry.wallet_id
            # What is of no wallet has no order to keep.
            if admits(wallet_id) or not wallet_id:
                group.append(entry)
            else:
                kept.append(entry)
                behind.add(wallet_id)
    if kept and len(of_wallet) == 1 and portion == most:
        kept = _fill(group, kept, most)
    queue.extendleft(reversed(kept))
    queue.extend(later)
    return group


def _all(queue: deque[Entry]) -> list[Pending]:
    """Calls that are few enough for one group, whoever's they are."""
    calls = [entry for entry in queue if isinstance(entry, Pending) and not entry.abandoned]
    queue.clear()
    return calls


def _fill(group: list[Pending], kept: list[Entry], most: int) -> list[Entry]:
    """Nobody else waits: take what was kept for others' sake; answers what is kept all the same."""
    left: list[Entry] = []
    waiting = deque(kept)
    while waiting:
        entry = waiting.popleft()
        if len(group) >= most:
            left.append(entry)
        elif isinstance(entry, Pending):
            group.append(entry)
        else:
            group += entry.give(most - len(group), lambda _wallet_id: True)
            if entry.has_turn:
                left.append(entry)
            else:
                waiting.extend(entry.in_next_turn())
    return left
