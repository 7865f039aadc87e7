"""The ledger against a small model, step by step, on both databases.

Each case is a history of groups of operations on two wallets while time jumps about, mostly to the instants
at which something is due. After every step what a reader sees is what the model says.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from oanim_server.ledger.operations import Commit, Extend, Operation, Release, Reserve, SettleDue
from oanim_server.ledger.reads import Grouping
from oanim_server.ledger.refusals import InvalidField, Refusal, SpendLimitExceeded
from oanim_server.ledger.values import SERVER, Line, Method, Outcome, ReservationFacts, Scope, State
from tests.ledger.driving import Credit, Driven, batch
from tests.ledger.model import (
    DAY,
    SECOND,
    Accepted,
    Answer,
    HoldFacts,
    Model,
    Refused,
    WalletFacts,
    price,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from oanim_server.database.engine import Database
    from oanim_server.ledger.values import WalletFacts as LedgerFacts

SERVICE = 99
LINES = (
    Line(1, "by-image", "image", "fal", "image", 7, 1, 1),
    Line(2, "by-second", "video", "fal", "second", 20, 3, 3),
)
SUBJECTS = ("run", "day")
KEYS = tuple(f"k{number}" for number in range(6))

TTLS = st.sampled_from([SECOND, SECOND, 10 * SECOND, 900 * SECOND, DAY])
LIFETIMES = st.sampled_from([None, SECOND, 10 * SECOND, 3 * DAY])


def seen(outcome: Any) -> Answer:
    """An answer of the ledger, as the model gives it."""
    if isinstance(outcome, Refusal):
        return Refused(
            type(outcome).__name__, facts_of(outcome), outcome.wallet_seq or 0, replayed=outcome.replayed
        )
    assert isinstance(outcome, Outcome), outcome
    hold = outcome.reservation
    return Accepted(
        wallet_of(outcome.wallet),
        hold_of(hold) if hold is not None else None,
        outcome.charged_micros,
        outcome.uncollected_micros,
        outcome.released_micros,
        outcome.replayed,
    )


def facts_of(refusal: Refusal) -> tuple[object, ...]:
    if isinstance(refusal, SpendLimitExceeded):
        return tuple(dataclasses.astuple(blocked) for blocked in refusal.blocked)
    if isinstance(refusal, InvalidField):
        return (refusal.field,)
    return tuple(refusal.facts().values())


def wallet_of(facts: LedgerFacts) -> WalletFacts:
    assert facts.debt_micros == 0
    return WalletFacts(facts.balance_micros, facts.held_micros, facts.seq, facts.frozen)


def hold_of(facts: ReservationFacts) -> HoldFacts:
    return HoldFacts(
        facts.number,
        facts.state,
        facts.reserved_micros,
        facts.captured_micros,
        facts.uncollected_micros,
        facts.captures,
        facts.captured_quantity,
        facts.expires_at,
    )


def lots_of(model: Model) -> list[tuple[int, int, int, int, int | None]]:
    """The open lots in draw order."""
    return [
        (lot.number, lot.remaining, lot.held, lot.priority, lot.expires_at)
        for lot in model.drawn()
        if lot.remaining
    ]


class History(RuleBasedStateMachine):
    """One case: two wallets in a database of its own."""

    new_database: ClassVar[Callable[[], Database]]
    # Whether all was as the model says until now: a case that has failed is not looked at again.
    whole = False

    @initialize()
    def begin(self) -> None:
        self.driven = Driven(type(self).new_database()).start()
        clock = self.driven.clock
        self.models: dict[int, Model] = {}
        self.past: list[Operation] = []
        self.known_at: dict[tuple[int, int], Model] = {}
        self.whole = True
        for wallet_id in (1, 2):
            self.driven.open_wallet(60, 10 * DAY, wallet_id=wallet_id)
            model = Model()
            model.submit(
                Credit(
                    wallet_id=wallet_id,
                    caller=SERVER,
                    idempotency_key="sign-up",
                    amount_micros=60,
                    lifetime=10 * DAY,
                ),
                clock.now,
            )
            self.models[wallet_id] = model

    # What happens

    @rule(data=st.data())
    def operations_arrive(self, data: st.DataObject) -> None:
        now = self.driven.clock.now
        works = []
        expected = []
        for _ in range(data.draw(st.integers(1, 6), "how many")):
            operation = self._operation(data, now)
            self.past.append(operation)
            works.append(operation)
            expected.append(self.models[operation.wallet_id].submit(operation, now))
        self.whole = False
        answers = [seen(answer) for answer in batch(self.driven.ledger, works)]
        assert answers == expected
        self._check()

    @rule(data=st.data())
    def time_passes(self, data: st.DataObject) -> None:
        clock = self.driven.clock
        instants: list[int] = sorted(
            {
                instant + around
                for model in self.models.values()
                for instant in model.seen_at(clock.now).next_instants()
                for around in (-1, 0, 1)
                if instant + around > clock.now
            }
        )[:8]
        steps = st.sampled_from([1, SECOND, 10 * SECOND, 900 * SECOND, 3_600 * SECOND, DAY, 30 * DAY])
        if instants and data.draw(st.integers(0, 3), "to an instant") > 0:
            clock.now = instants[data.draw(st.integers(0, len(instants) - 1), "which")]
        else:
            clock.now += data.draw(steps, "micros")
        self._check()

    @rule(step=st.sampled_from([1, 10 * SECOND, 3_600 * SECOND]))
    def the_clock_is_set_back(self, step: int) -> None:
        self.driven.clock.now -= step
        # Whatever was seen beyond the new time is to be decided again.
        self.known_at = {
            (wallet_id, at): view
            for (wallet_id, at), view in self.known_at.items()
            if at <= max(self.driven.clock.now, self.models[wallet_id].at)
        }

    @rule(data=st.data())
    def an_account_is_frozen_or_thawed(self, data: st.DataObject) -> None:
        wallet_id = list(self.models)[data.draw(st.integers(0, 1), "wallet")]
        model = self.models[wallet_id]
        model.frozen = not model.frozen
        self.driven.freeze(wallet_id, frozen=model.frozen)
        self._check()

    # What may arrive

    def _operation(self, data: st.DataObject, now: int) -> Operation:
        again = data.draw(st.integers(0, 9), "again")
        if self.past and again < 2:
            operation = data.draw(st.sampled_from(self.past), "former")
            return operation if again == 0 else self._altered(operation)
        wallet_id = list(self.models)[data.draw(st.integers(0, 1), "wallet")]
        model = self.models[wallet_id]
        kinds = [self._reserve, self._commit, self._commit, self._release, self._extend, self._credit]
        made = data.draw(st.sampled_from([*kinds, self._reserve, self._settle]), "kind")
        return made(data, wallet_id, model.seen_at(now))

    def _key(self, data: st.DataObject) -> str:
        # Mostly a new one; a few that collide.
        if data.draw(st.integers(0, 9), "key"):
            return f"key-{len(self.past)}"
        return data.draw(st.sampled_from(KEYS), "old key")

    def _altered(self, operation: Operation) -> Operation:
        """Another request under the same key."""
        if isinstance(operation, Reserve) and operation.line is not None:
            return dataclasses.replace(operation, ttl=7 * SECOND)
        if isinstance(operation, Reserve | Extend | Credit):
            return dataclasses.replace(operation, amount_micros=operation.amount_micros + 1)
        if isinstance(operation, Commit):
            return dataclasses.replace(operation, keep_rest=not operation.keep_rest)
        if isinstance(operation, Release):
            return dataclasses.replace(operation, reservation=operation.reservation + 1)
        return operation

    def _reserve(self, data: st.DataObject, wallet_id: int, model: Model) -> Operation:
        line = data.draw(st.sampled_from([None, None, *LINES]), "line")
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
            api_key_id="k",
            line=line,
            ttl=None if job else data.draw(TTLS, "ttl"),
            spend_scopes=scopes,
            for_method=Method.GENERATE if job else Method.RESERVE,
        )

    def _target(self, data: st.DataObject, wallet_id: int, model: Model) -> tuple[int, int]:
        """A reservation, mostly one that is there and seldom ended, and a caller, mostly its opener."""
        numbers = sorted(model.holds)
        live = [n for n in numbers if model.holds[n].state in (State.ACTIVE, State.EXPIRED)]
        number = data.draw(st.sampled_from([*numbers, *live, *live, model.seq + 5]), "reservation")
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
        near = [captures + 1] * 6 + [max(captures, 1), 1, captures + 2]
        return Commit(
            wallet_id=wallet_id,
            caller=caller,
            idempotency_key=self._key(data),
            reservation=number,
            amount_micros=None if by_quantity or odd else data.draw(amounts, "amount"),
            quantity=data.draw(quantities, "quantity") if by_quantity or odd else None,
            keep_rest=data.draw(st.booleans(), "keep rest"),
            capture=data.draw(st.sampled_from(near), "capture"),
        )

    def _release(self, data: st.DataObject, wallet_id: int, model: Model) -> Operation:
        number, caller = self._target(data, wallet_id, model)
        return Release(
            wallet_id=wallet_id, caller=caller, idempotency_key=self._key(data), reservation=number
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

    # What must be seen

    def _check(self) -> None:
        self.whole = False
        for wallet_id, model in self.models.items():
            now = max(self.driven.clock.now, model.at)
            view = model.seen_at(now)
            self.known_at[wallet_id, now] = view
            facts = wallet_of(self.driven.wallet(wallet_id))
            assert facts == view.facts()._replace(seq=model.seq)
            assert facts.balance - facts.held >= 0
            self._check_statement(wallet_id, None, view)
            holds = {facts.number: hold_of(facts) for facts in self.driven.reservations(wallet_id)}
            assert holds == {number: hold.facts() for number, hold in view.holds.items()}
            active = [facts.number for facts in self.driven.reservations(wallet_id, active=True)]
            assert active == sorted(
                (number for number, hold in view.holds.items() if hold.state is State.ACTIVE), reverse=True
            )
        self.whole = True

    def _check_statement(self, wallet_id: int, as_of: int | None, view: Model) -> None:
        statement = self.driven.statement(wallet_id, as_of=as_of)
        assert [
            (lot.number, lot.remaining_micros, lot.held_micros, lot.priority, lot.expires_at)
            for lot in statement.lots
        ] == lots_of(view)
        facts = wallet_of(statement.wallet)
        assert facts._replace(frozen=view.frozen) == view.facts()
        assert [row.seq for row in statement.rows] == list(range(view.seq, 0, -1))

    def teardown(self) -> None:
        try:
            if self.whole:
                self._check_all()
        finally:
            self.driven.close()

    def _check_all(self) -> None:
        for wallet_id, model in self.models.items():
            self.driven.settle(wallet_id)
            model.settle(self.driven.clock.now)
            counters = self.driven.rows(
                "SELECT subject, charged_micros, held_micros FROM spend_counters WHERE wallet_id = :id",
                id=wallet_id,
            )
            assert {subject: (charged, held) for subject, charged, held in counters} == {
                subject: (spent, model.held_under(subject)) for subject, spent in model.spent.items()
            }
            days = self.driven.usage(wallet_id, Grouping.DAY)
            assert {day: [charges, micros] for day, charges, micros in days} == model.charges
        # What was seen at a time is what the statement as of that time shows ever after.
        for (wallet_id, at), view in self.known_at.items():
            self._check_statement(wallet_id, at, view)
        assert self.driven.problems() == []


def run(new_database: Callable[[], Database], *, cases: int, steps: int, shrink: bool) -> None:
    machine = type("History", (History,), {"new_database": staticmethod(new_database)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=cases,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            print_blob=True,
            # The short form tries the same cases every time; `make torture` looks for new ones.
            derandomize=not shrink,
            suppress_health_check=list(HealthCheck),
            # To shrink takes minutes: `make torture` has them.
            phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        ),
    )


def test_the_ledger_does_what_the_model_does(
    new_database: Callable[[], Database], request: pytest.FixtureRequest
) -> None:
    on_sqlite = "sqlite" in request.node.name
    run(new_database, cases=80 if on_sqlite else 30, steps=25, shrink=False)


@pytest.mark.torture
def test_the_ledger_does_what_the_model_does_for_long(
    new_database: Callable[[], Database], request: pytest.FixtureRequest
) -> None:
    on_sqlite = "sqlite" in request.node.name
    run(new_database, cases=1_500 if on_sqlite else 500, steps=50, shrink=True)
