"""What may arrive at the ledger: operations that Hypothesis draws, near to what a model says is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st
from msgspec import structs

from oanim_server.ledger.corrections import Adjust, Freeze, Grant
from oanim_server.ledger.limits import DeleteLimit, SetLimit
from oanim_server.ledger.operations import Commit, Extend, Operation, Release, Reserve, SettleDue
from oanim_server.ledger.usage import Report, Use
from oanim_server.ledger.values import SERVER, Line, Method, Note, Scope, State
from oanim_server.ledger.windows import Period
from tests.ledger.driving import SERVICE, Credit
from tests.ledger.model_values import DAY, SECOND, price
from tests.ledger.selling import Disputed, Event, Paid, Purchase, Refunded, Shop

if TYPE_CHECKING:
    from tests.ledger.model import Model

LINES = (
    Line(1, "by-image", "image", "fal", "image", 7, 1, 1),
    Line(2, "by-second", "video", "fal", "second", 20, 3, 3),
)
SUBJECTS = ("run", "day")
KEYS = tuple(f"k{number}" for number in range(6))

TTLS = st.sampled_from([SECOND, SECOND, 10 * SECOND, 900 * SECOND, DAY])
LIFETIMES = st.sampled_from([None, SECOND, 10 * SECOND, 3 * DAY])
OPERATOR = 98
API_KEYS = ("k", "k", "j")
NOTES = (Note("one", "why"), Note("another", "why"), Note("one", "why not"))
PURCHASES = (
    Purchase("p", 50, 5),
    Purchase("q", 40, 4, paid_micros=47, lifetime=10 * SECOND),
    Purchase("r", 30, lifetime=3 * DAY),
)


def words(purchase: Purchase) -> list[Event]:
    """What may be heard of a purchase: two refunds that may fail, and two disputes that may be won."""
    half = purchase.charged_micros // 2
    heard: list[Event] = [Paid()]
    for name, micros in (("a", half), ("b", purchase.charged_micros - half)):
        heard += [Refunded(name, micros), Refunded(name, micros, failed=True)]
    for name, micros in (("d", purchase.charged_micros), ("e", 7)):
        heard += [Disputed(name, micros), Disputed(name, micros, reinstated=True)]
    return heard


class Drawing:
    """Draws operations, and remembers them to draw some again.

    :param metering: most of them are a service's: priced holds, reports, their ends.
    """

    def __init__(self, models: dict[int, Model], shop: Shop, *, metering: bool) -> None:
        self.models = models
        self._metering = metering
        self.past: list[Operation] = []
        self._shop = shop

    def operation(self, data: st.DataObject, now: int) -> Operation:
        """The next one; mostly new."""
        operation = self._operation(data, now)
        self.past.append(operation)
        return operation

    def _operation(self, data: st.DataObject, now: int) -> Operation:
        again = data.draw(st.integers(0, 9), "again")
        if self.past and again < 2:
            operation = data.draw(st.sampled_from(self.past), "former")
            return operation if again == 0 else self._altered(operation)
        wallet_id = list(self.models)[data.draw(st.integers(0, 1), "wallet")]
        model = self.models[wallet_id]
        kinds = [
            *(self._reserve, self._reserve, self._reserve, self._credit, self._settle),
            *(self._hear, self._hear, self._hear, self._correct, self._limit, self._use),
        ]
        if self._metering:
            kinds = [self._reserve, self._reserve, self._use, self._use, self._limit, self._credit]
        if model.holds or data.draw(st.integers(0, 9), "none") == 0:
            kinds += [self._commit, self._commit, self._commit, self._release, self._extend, self._report]
            kinds += [self._report] * (3 if self._metering else 0)
        made = data.draw(st.sampled_from(kinds), "kind")
        return made(data, wallet_id, model.seen_at(now))

    def _key(self, data: st.DataObject) -> str:
        # Mostly a new one; a few that collide.
        if data.draw(st.integers(0, 9), "key"):
            return f"key-{len(self.past)}"
        return data.draw(st.sampled_from(KEYS), "old key")

    def _altered(self, operation: Operation) -> Operation:
        """Another request under the same key."""
        match operation:
            case Reserve(line=Line()):
                changed: dict[str, object] = {"ttl": 7 * SECOND}
            case Reserve() | Extend() | Credit() | Grant() | Adjust():
                changed = {"amount_micros": operation.amount_micros + 1}
            case Commit():
                changed = {"keep_rest": not operation.keep_rest}
            case Release():
                changed = {"reservation": operation.reservation + 1}
            case Freeze():
                changed = {"frozen": not operation.frozen}
            case Report():
                changed = {"quantity": operation.quantity + 1}
            case Use():
                changed = {"labels": {"project": "another"}}
            case SetLimit():
                changed = {"limit_micros": operation.limit_micros + 1}
            case _:
                changed = {}
        return structs.replace(operation, **changed)

    def _reserve(self, data: st.DataObject, wallet_id: int, model: Model) -> Operation:
        line = data.draw(st.sampled_from([*([] if self._metering else [None, None]), *LINES]), "line")
        if line is not None:
            line = line._replace(quantity=data.draw(st.integers(1, 5), "quantity"))
            amount = price(line, line.quantity)
        else:
            available = max(model.balance - model.held, 1)
            amount = data.draw(
                st.one_of(st.integers(1, 30), st.sampled_from([available, available + 1])), "amount"
            )
        limits = st.sampled_from([None, 0, 20, 60, 200])
        subjects = data.draw(st.sets(st.sampled_from(SUBJECTS)), "scopes")
        scopes = tuple(Scope(subject, data.draw(limits, "limit")) for subject in sorted(subjects))
        # A hold of the account's own, of a service, or of a job, which the server opens and which has no ttl.
        caller, opener = data.draw(
            st.sampled_from(
                [(wallet_id, wallet_id), (wallet_id, wallet_id), (SERVICE, SERVICE), (wallet_id, SERVER)]
            ),
            "caller",
        )
        job = opener == SERVER
        return Reserve(
            wallet_id=wallet_id,
            caller=caller,
            idempotency_key=self._key(data),
            asked=(line.model, line.quantity) if line else None,
            amount_micros=amount,
            opener=opener,
            api_key_id=data.draw(st.sampled_from(API_KEYS), "api key"),
            line=line,
            ttl=None if job else data.draw(TTLS, "ttl"),
            spend_scopes=scopes,
            method=Method.GENERATE if job else Method.RESERVE,
        )

    def _target(self, data: st.DataObject, wallet_id: int, model: Model) -> tuple[int, int]:
        """A reservation, mostly one that is there and seldom ended, and a caller, mostly its opener."""
        numbers = sorted(model.holds)
        live = [n for n in numbers if model.holds[n].state in (State.ACTIVE, State.EXPIRED)]
        reported = [n for n in live if model.holds[n].reported] * 4
        near = [*reported, *numbers, *live, *live, model.seq + 5]
        number = data.draw(st.sampled_from(near), "reservation")
        opener = model.holds[number].opener if number in model.holds else wallet_id
        caller = data.draw(st.sampled_from([opener] * 7 + [wallet_id, SERVICE, SERVER]), "caller")
        return number, caller

    def _commit(self, data: st.DataObject, wallet_id: int, model: Model) -> Operation:
        number, caller = self._target(data, wallet_id, model)
        hold = model.holds.get(number)
        left = hold.reserved - hold.captured if hold else 10
        by_quantity = bool(hold and hold.line) and data.draw(st.booleans(), "by quantity")
        odd = data.draw(st.integers(0, 19), "odd") == 0
        amounts = st.one_of(st.sampled_from([0, left, left + 1]), st.integers(0, max(left, 1)))
        if hold and hold.captures:
            amounts = st.one_of(amounts, st.sampled_from([made.amount for made in hold.captures]))
        quantities = st.integers(0, 6)
        captures = len(hold.captures) if hold else 0
        keeping = [False] * (7 if hold and hold.reported else 1) + [True]
        if hold and hold.reported:
            by_quantity = data.draw(st.sampled_from([*[True] * 7, False]), "by quantity, mostly")
            quantities = st.sampled_from([hold.reported + more for more in (1, 2, 4, 0, -1)])
        caller, reserve_key = self._by_key(data, wallet_id, caller)
        near = [captures + 1] * 6 + [max(captures, 1), 1, captures + 2]
        return Commit(
            wallet_id=wallet_id,
            caller=caller,
            idempotency_key=self._key(data),
            reservation=number,
            amount_micros=None if by_quantity or odd else data.draw(amounts, "amount"),
            quantity=data.draw(quantities, "quantity") if by_quantity or odd else None,
            keep_rest=data.draw(st.sampled_from(keeping), "keep rest"),
            capture=data.draw(st.sampled_from(near), "capture"),
            reserve_key=reserve_key,
        )

    def _release(self, data: st.DataObject, wallet_id: int, model: Model) -> Operation:
        number, caller = self._target(data, wallet_id, model)
        caller, reserve_key = self._by_key(data, wallet_id, caller)
        return Release(
            wallet_id=wallet_id,
            caller=caller,
            idempotency_key=self._key(data),
            reservation=number,
            reserve_key=reserve_key,
        )

    def _by_key(self, data: st.DataObject, wallet_id: int, caller: int) -> tuple[int, str]:
        """Now and then a Reserve's caller and key in place of the number: maybe one of this very group."""
        if data.draw(st.sampled_from([False, False, False, True]), "by key") is False:
            return caller, ""
        reserves = [
            (past.caller, past.idempotency_key)
            for past in self.past[-8:]
            if isinstance(past, Reserve) and past.wallet_id == wallet_id
        ]
        return data.draw(st.sampled_from([*reserves[::-1], (caller, "no such key")]), "reserve")

    def _report(self, data: st.DataObject, wallet_id: int, model: Model) -> Operation:
        number, caller = self._target(data, wallet_id, model)
        priced = {
            n: hold.opener for n, hold in model.holds.items() if hold.line and hold.state is State.ACTIVE
        }
        if priced and data.draw(st.sampled_from([True, True, True, False]), "priced") is True:
            number, caller = data.draw(st.sampled_from(sorted(priced.items())), "which")
        return Report(
            wallet_id=wallet_id,
            caller=caller,
            reservation=number,
            quantity=data.draw(st.sampled_from([2, 1, 3, 5, 8, 0]), "quantity"),
        )

    def _use(self, data: st.DataObject, wallet_id: int, model: Model) -> Operation:
        line = data.draw(st.sampled_from(LINES), "line")
        line = line._replace(quantity=data.draw(st.integers(1, 5), "quantity"))
        return Use(
            wallet_id=wallet_id,
            caller=SERVICE,
            idempotency_key=self._key(data),
            asked=(line.model, line.quantity),
            api_key_id=data.draw(st.sampled_from(API_KEYS), "api key"),
            amount_micros=price(line, line.quantity),
            line=line,
            labels={},
        )

    def _extend(self, data: st.DataObject, wallet_id: int, model: Model) -> Operation:
        number, caller = self._target(data, wallet_id, model)
        return Extend(
            wallet_id=wallet_id,
            caller=caller,
            idempotency_key=self._key(data),
            reservation=number,
            amount_micros=data.draw(st.integers(0, 20), "amount"),
            ttl=data.draw(st.one_of(st.none(), TTLS), "ttl"),
        )

    def _credit(self, data: st.DataObject, wallet_id: int, model: Model) -> Operation:
        return Credit(
            wallet_id=wallet_id,
            caller=SERVER,
            idempotency_key=self._key(data),
            amount_micros=data.draw(st.integers(1, 40), "amount"),
            priority=data.draw(st.integers(-1, 1), "priority"),
            lifetime=data.draw(LIFETIMES, "lifetime"),
        )

    def _settle(self, data: st.DataObject, wallet_id: int, model: Model) -> Operation:
        return SettleDue(wallet_id=wallet_id, caller=SERVER, idempotency_key="")

    # Money in and back, the operator's hand, limits

    def _correct(self, data: st.DataObject, wallet_id: int, model: Model) -> Operation:
        key, note = self._key(data), data.draw(st.sampled_from(NOTES), "note")
        kind = data.draw(st.sampled_from([Grant, Adjust, Adjust, Freeze]), "correction")
        if kind is Grant:
            return Grant(
                wallet_id=wallet_id,
                caller=OPERATOR,
                idempotency_key=key,
                note=note,
                amount_micros=data.draw(st.integers(1, 40), "amount"),
                lifetime=data.draw(LIFETIMES, "lifetime"),
            )
        if kind is Adjust:
            free = max(model.balance - model.held, 0)
            amounts = st.one_of(st.integers(-40, 40), st.sampled_from([-free, -free - 1, -free - 30]))
            return Adjust(
                wallet_id=wallet_id,
                caller=OPERATOR,
                idempotency_key=key,
                note=note,
                amount_micros=data.draw(amounts, "amount"),
            )
        # Mostly thawed, so that there is something to see.
        frozen = not model.frozen and data.draw(st.booleans(), "frozen")
        return Freeze(wallet_id=wallet_id, caller=OPERATOR, idempotency_key=key, note=note, frozen=frozen)

    def _limit(self, data: st.DataObject, wallet_id: int, model: Model) -> Operation:
        api_key_id = data.draw(st.sampled_from(["", "k", "j"]), "whose")
        period = data.draw(st.sampled_from(Period), "period")
        asking = data.draw(st.sampled_from(["owner"] * 5 + ["k", ""]), "asking")
        if data.draw(st.integers(0, 2), "delete") == 0:
            if model.limits:
                api_key_id, period = data.draw(st.sampled_from(sorted(model.limits)), "which")
            return DeleteLimit(
                wallet_id=wallet_id,
                caller=wallet_id,
                idempotency_key=self._key(data),
                api_key_id=api_key_id,
                period=period,
                asking_key_id=asking,
            )
        return SetLimit(
            wallet_id=wallet_id,
            caller=wallet_id,
            idempotency_key=self._key(data),
            api_key_id=api_key_id,
            period=period,
            asking_key_id=asking,
            limit_micros=data.draw(st.sampled_from([0, 10, 25, 60, 100, 200]), "limit"),
        )

    def _hear(self, data: st.DataObject, wallet_id: int, model: Model) -> Operation:
        purchase = data.draw(st.sampled_from(PURCHASES), "purchase")
        known = model.purchases.get(purchase.purchase_id)
        paid = known is not None and known.lots
        events = words(purchase) if paid or data.draw(st.integers(0, 4), "early") == 0 else [Paid()]
        event = data.draw(st.sampled_from(events), "event")
        return self._shop.word(wallet_id, purchase, event, self._key(data))
