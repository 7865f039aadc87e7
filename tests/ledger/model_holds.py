"""What the ledger must do with holds, in the small: written from the guarantees, for one wallet.

It shares no code with the ledger but the names of its values and refusals.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

from msgspec import structs

from oanim_server.ledger.operations import (
    Commit,
    Extend,
    OnReservation,
    Operation,
    Release,
    Reserve,
    SettleDue,
)
from oanim_server.ledger.usage import Report
from oanim_server.ledger.values import Method, State
from tests.ledger.model_values import (
    DAY,
    REMEMBERED,
    Accepted,
    Answer,
    Capture,
    MHold,
    MLot,
    No,
    Refused,
    WalletFacts,
    price,
    request_of,
)

if TYPE_CHECKING:
    from typing import Self


class Holds:
    """One wallet: its lots and holds, what time does to them, and what keys remember."""

    def __init__(self) -> None:
        self.lots: list[MLot] = []
        self.debt = 0
        self.holds: dict[int, MHold] = {}
        self.spent: dict[str, int] = {}
        self.charges: dict[int, list[int]] = {}
        self.frozen = False
        # What expired of which lots in the row that is written now.
        self.lapsed_now: list[tuple[int, int]] = []
        self.seq = 0
        self.at = 0
        self.effects: dict[tuple[str, int, int], tuple[tuple[object, ...], Accepted]] = {}
        self.refusals: dict[tuple[str, int, int], tuple[tuple[object, ...], Refused, int]] = {}

    # What is seen

    @property
    def balance(self) -> int:
        return sum(lot.remaining for lot in self.lots) - self.debt

    @property
    def held(self) -> int:
        return sum(lot.held for lot in self.lots)

    def facts(self) -> WalletFacts:
        return WalletFacts(self.balance, self.held, self.debt, self.seq, self.frozen)

    def seen_at(self, now: int) -> Self:
        """The wallet as a reader sees it: what is due counts as written."""
        # As deep as copy.deepcopy, which takes ten times as long.
        seen: Self = pickle.loads(pickle.dumps(self))  # noqa: S301 - our own
        seen.settle(now)
        return seen

    def held_under(self, subject: str) -> int:
        return sum(
            hold.reserved - hold.captured
            for hold in self.holds.values()
            if hold.state is State.ACTIVE and subject in dict(hold.scopes)
        )

    def next_instants(self) -> list[int]:
        """When something is due, or can be settled late no more."""
        lots = [lot.expires_at for lot in self.lots if lot.expires_at is not None and lot.remaining]
        holds = [
            hold.expires_at
            for hold in self.holds.values()
            if hold.state is State.ACTIVE and hold.expires_at is not None
        ]
        late = [
            hold.ended_at + DAY
            for hold in self.holds.values()
            if hold.state is State.EXPIRED and hold.ended_at is not None
        ]
        return sorted(lots + holds + late)

    # What time does

    def settle(self, now: int) -> None:
        now = max(now, self.at)
        while True:
            due = [
                (lot.expires_at, 0, lot.number)
                for lot in self.lots
                if lot.expires_at is not None and lot.expires_at <= now and lot.free
            ]
            due += [
                (hold.expires_at, 1, hold.number)
                for hold in self.holds.values()
                if hold.state is State.ACTIVE and hold.expires_at is not None and hold.expires_at <= now
            ]
            if not due:
                return
            instant, is_hold, number = min(due)
            if is_hold:
                self._run_out(self.holds[number], State.EXPIRED, instant)
            else:
                lot = self._lot(number)
                self._lapse(lot, lot.free)
            self._row(instant)
            self._make_up(instant)

    # What operations do

    def submit(self, operation: Operation, now: int) -> Answer:
        self.settle(now)
        if isinstance(operation, SettleDue):
            return Accepted(self.facts(), None, 0, 0, 0, replayed=False)
        if isinstance(operation, Report):
            return self._report(operation)
        operation = self._by_number(operation)
        key = (operation.idempotency_key, operation.caller, int(operation.method))
        request = request_of(operation)
        known = self._known(key, now)
        if known is not None:
            first, answer = known
            if first == request:
                return answer._replace(replayed=True)
            return Refused("IdempotencyKeyReused", (operation.idempotency_key,), self.seq, replayed=False)
        before = self.seq
        try:
            accepted = self._decide(operation, max(now, self.at))
        except No as no:
            refused = Refused(no.reason, no.facts, self.seq, replayed=False)
            if isinstance(operation, Reserve) and no.reason in REMEMBERED:
                self.refusals[key] = (request, refused, now)
            return refused
        self._make_up(self.at)
        if self.seq > before:  # what has no effect uses no key up
            self.effects[key] = (request, accepted)
        return accepted

    def _known(self, key: tuple[str, int, int], now: int) -> tuple[tuple[object, ...], Answer] | None:
        if key in self.effects:
            return self.effects[key]
        if key in self.refusals and now - self.refusals[key][2] < 30 * DAY:
            return self.refusals[key][:2]
        return None

    def _decide(self, operation: Operation, now: int) -> Accepted:
        match operation:
            case Reserve():
                return self._reserve(operation, now)
            case Commit():
                return self._commit(operation, now)
            case Release():
                return self._release(operation, now)
            case Extend():
                return self._extend(operation, now)
            case _:
                return self._other(operation, now)

    def _other(self, operation: Operation, now: int) -> Accepted:
        raise NotImplementedError

    def _report(self, report: Report) -> Answer:
        raise NotImplementedError

    def _commit_reported(self, hold: MHold, commit: Commit, now: int, *, late: bool) -> Accepted:
        """The Commit of a hold that has a counter."""
        raise NotImplementedError

    def _charge_reported(self, hold: MHold, at: int) -> tuple[int, int]:
        """What a hold is charged that ends without a Commit, and what nobody is."""
        raise NotImplementedError

    def limits_blocking(self, key: str, at: int, amount: int) -> tuple[list[tuple[object, ...]], int]:
        """The limits that an amount would pass, and what they leave, at the least."""
        raise NotImplementedError

    def _reserve(self, reserve: Reserve, now: int) -> Accepted:
        if self.frozen:
            raise No("AccountFrozen")
        self._covered(reserve.amount_micros)
        self._within(reserve.spend_scopes, reserve.api_key_id, now, reserve.amount_micros)
        parts = self._draw(reserve.amount_micros)
        self._keep(parts)
        self._row(now)
        hold = MHold(
            number=self.seq,
            opener=reserve.opener,
            parts=parts,
            reserved=reserve.amount_micros,
            expires_at=None if reserve.ttl is None else now + reserve.ttl,
            scopes=reserve.spend_scopes,
            line=reserve.line,
            api_key_id=reserve.api_key_id,
            created_at=now,
        )
        self.holds[hold.number] = hold
        for subject, _ in hold.scopes:
            self.spent.setdefault(subject, 0)
        return self._accepted(hold)

    def _extend(self, extend: Extend, now: int) -> Accepted:
        hold = self._hold(extend.reservation, extend.caller)
        if hold.state is not State.ACTIVE:
            raise self._ended(hold)
        if extend.amount_micros:
            if self.frozen:
                raise No("AccountFrozen")
            self._covered(extend.amount_micros)
            self._within(hold.scopes, hold.api_key_id, hold.created_at, extend.amount_micros)
        parts = self._draw(extend.amount_micros)
        self._keep(parts)
        hold.parts = sorted(hold.parts + parts, key=lambda part: self._draw_order(self._lot(part[0])))
        hold.reserved += extend.amount_micros
        if extend.ttl is not None and hold.expires_at is not None:
            hold.expires_at = max(hold.expires_at, now + extend.ttl)
        self._row(now)
        return self._accepted(hold)

    def _commit(self, commit: Commit, now: int) -> Accepted:
        hold = self._hold(commit.reservation, commit.caller)
        if commit.capture <= len(hold.captures):
            return self._made(hold, commit)
        late = hold.state is State.EXPIRED
        if not late and hold.state is not State.ACTIVE:
            raise self._ended(hold)
        if late and now >= (hold.ended_at or 0) + DAY:
            raise self._ended(hold)
        if commit.capture > len(hold.captures) + 1:
            raise No("InvalidField", "capture")
        if hold.reported:
            return self._commit_reported(hold, commit, now, late=late)
        amount = self._price(hold, commit)
        left = hold.reserved - hold.captured
        if amount > left:
            raise No("ExceedsReservation", amount, 0 if late else left)
        if late:
            charged = self._settle_late(hold, amount, amount, now)
        else:
            charged = self._capture(hold, amount, now, keep_rest=commit.keep_rest)
        return self._charged(hold, commit, now, charged, amount - charged)

    def _made(self, hold: MHold, commit: Commit) -> Accepted:
        """A capture that was made already: the same again is answered the same."""
        made = hold.captures[commit.capture - 1]
        if commit.quantity is None:
            same = made.amount == commit.amount_micros
        else:
            asked = max(commit.quantity, hold.reported)
            same = made.quantity == asked and (made.by_quantity or made.amount == 0)
        if not same:
            raise No("AlreadyCommitted", hold.state.name, hold.reserved, hold.captured)
        return made.answer._replace(replayed=True)

    def _settle_late(self, hold: MHold, amount: int, owed: int, now: int) -> int:
        hold.state = State.SETTLED_LATE
        hold.ended_at = now
        fits = amount <= max(self.balance - self.held, 0)
        hold.uncollected += owed - amount if fits else owed
        if not fits:
            return 0
        for number, micros in self._draw(amount):
            self._lot(number).remaining -= micros
        return amount

    def _capture(self, hold: MHold, amount: int, now: int, *, keep_rest: bool) -> int:
        self._consume_held(hold, amount)
        if not keep_rest:
            self._give_back(hold.parts, now)
            hold.parts = []
            hold.state = State.COMMITTED
            hold.ended_at = now
        return amount

    def _charged(self, hold: MHold, commit: Commit, now: int, charged: int, uncollected: int) -> Accepted:
        self._pays(hold, charged, now)
        if commit.quantity is not None:
            hold.quantity = max(commit.quantity, hold.reported)
            hold.reported = hold.quantity if hold.reported else 0
        self._row(now)
        facts = hold.answered()._replace(captures=len(hold.captures) + 1)
        answer = Accepted(self.facts(), facts, charged, uncollected, 0, replayed=False)
        hold.captures.append(
            Capture(charged + uncollected, hold.quantity, commit.quantity is not None, answer)
        )
        return answer

    def _release(self, release: Release, now: int) -> Accepted:
        hold = self._hold(release.reservation, release.caller)
        if hold.state in (State.COMMITTED, State.SETTLED_LATE):
            raise self._ended(hold)
        if hold.state is not State.ACTIVE:
            return self._accepted(hold)
        charged, uncollected = self._run_out(hold, State.RELEASED, now)
        self._row(now)
        released = hold.reserved - hold.captured
        return self._accepted(hold, released=released)._replace(charged=charged, uncollected=uncollected)

    def _run_out(self, hold: MHold, state: State, at: int) -> tuple[int, int]:
        charged = self._charge_reported(hold, at) if hold.reported else (0, 0)
        self._give_back(hold.parts, at)
        hold.parts = []
        hold.state = state
        hold.ended_at = at
        return charged

    # Pieces

    def _pays(self, hold: MHold, charged: int, at: int) -> None:
        hold.captured += charged
        for subject, _ in hold.scopes:
            self.spent[subject] += charged
        self._charge_day(charged, at)

    def _charge_day(self, charged: int, at: int) -> None:
        if charged:
            day = self.charges.setdefault(at // DAY, [0, 0])
            day[0] += 1
            day[1] += charged

    def _by_number(self, operation: Operation) -> Operation:
        """An operation that names its Reserve, by the number of what that made; 0 is nothing."""
        if not isinstance(operation, OnReservation) or not operation.reserve_key:
            return operation
        made = self.effects.get((operation.reserve_key, operation.caller, int(Method.RESERVE)))
        hold = made[1].hold if made is not None else None
        return structs.replace(operation, reservation=hold.number if hold else 0, reserve_key="")

    def _accepted(self, hold: MHold | None, *, released: int = 0) -> Accepted:
        facts = hold.answered() if hold is not None else None
        return Accepted(self.facts(), facts, 0, 0, released, replayed=False)

    def _row(self, at: int) -> None:
        assert at >= self.at
        self.seq += 1
        self.at = at

    def _lot(self, number: int) -> MLot:
        return self.lots[number - 1]

    def _hold(self, number: int, caller: int) -> MHold:
        hold = self.holds.get(number)
        if hold is None:
            raise No("NotFound", "reservation")
        if hold.opener != caller:
            raise No("NotYourHold", hold.opener)
        return hold

    def _ended(self, hold: MHold) -> No:
        reason = {State.RELEASED: "AlreadyReleased", State.EXPIRED: "ReservationExpired"}.get(
            hold.state, "AlreadyCommitted"
        )
        return No(reason, hold.state.name, hold.reserved, hold.captured)

    def _covered(self, amount: int) -> None:
        available = self.balance - self.held
        if amount > available:
            raise No("InsufficientCredits", amount, available)

    def _within(self, scopes: tuple[tuple[str, int | None], ...], key: str, at: int, amount: int) -> None:
        """All that blocks is named; what is affordable is what all of them and the wallet leave."""
        used = {subject: (self.spent.get(subject, 0), self.held_under(subject)) for subject, _ in scopes}
        given = {subject: limit for subject, limit in scopes if limit is not None}
        rooms = {subject: limit - sum(used[subject]) for subject, limit in given.items()}
        blocked = [
            (subject, given[subject], *used[subject], amount)
            for subject, room in rooms.items()
            if amount > room
        ]
        limits, room = self.limits_blocking(key, at, amount)
        affordable = max(0, min([room, self.balance - self.held, *rooms.values()]))
        if limits:
            raise No("LimitExceeded", *((*limit[:6], affordable, limit[6]) for limit in limits), *blocked)
        if blocked:
            raise No("SpendLimitExceeded", *blocked)

    def _price(self, hold: MHold, commit: Commit) -> int:
        if commit.amount_micros is not None:
            return commit.amount_micros
        assert commit.quantity is not None
        if hold.line is None or commit.quantity < hold.quantity:
            raise No("InvalidField", "quantity")
        return price(hold.line, commit.quantity) - price(hold.line, hold.quantity)

    def drawn(self) -> list[MLot]:
        return sorted(self.lots, key=self._draw_order)

    @staticmethod
    def _draw_order(lot: MLot) -> tuple[float, ...]:
        expiry = float("inf") if lot.expires_at is None else lot.expires_at
        return (lot.priority, expiry, 0 if lot.promotional else 1, lot.number)

    def _draw(self, amount: int) -> list[tuple[int, int]]:
        parts = []
        for lot in self.drawn():
            micros = min(lot.free, amount)
            if micros:
                parts.append((lot.number, micros))
                amount -= micros
        assert amount == 0
        return parts

    def _keep(self, parts: list[tuple[int, int]]) -> None:
        for number, micros in parts:
            self._lot(number).held += micros

    def _consume_held(self, hold: MHold, amount: int) -> None:
        rest = []
        for number, micros in hold.parts:
            taken = min(micros, amount)
            amount -= taken
            self._lot(number).held -= taken
            self._lot(number).remaining -= taken
            if micros > taken:
                rest.append((number, micros - taken))
        hold.parts = rest
        assert amount == 0

    def _lapse(self, lot: MLot, micros: int) -> None:
        lot.remaining -= micros
        lot.lapsed += micros
        self.lapsed_now.append((lot.number, micros))

    def _paid_debt(self, number: int, micros: int) -> None:
        """What follows from what a held part has paid: nothing, of credits that nobody bought."""

    def _make_up(self, at: int) -> None:
        """What follows from what expired: nothing, of credits that nobody bought."""

    def _give_back(self, parts: list[tuple[int, int]], now: int) -> None:
        """Pay the debt first, with what would lapse before the rest; only then it lapses or is free."""
        gone = {n for n, _ in parts if (self._lot(n).expires_at or now + 1) <= now}
        for number, micros in sorted(parts, key=lambda part: part[0] not in gone):
            lot = self._lot(number)
            lot.held -= micros
            paid = min(self.debt, micros)
            self.debt -= paid
            lot.remaining -= paid
            self._paid_debt(number, paid)
            if number in gone:
                self._lapse(lot, micros - paid)
