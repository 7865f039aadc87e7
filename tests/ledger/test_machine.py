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

from oanim_server.ledger.reads import Grouping
from oanim_server.ledger.refusals import InvalidField, LimitExceeded, Refusal, SpendLimitExceeded
from oanim_server.ledger.values import SERVER, Outcome, ReservationFacts, State
from tests.ledger.drawing import Drawing
from tests.ledger.driving import Credit, Driven, batch
from tests.ledger.model import Model
from tests.ledger.model_values import (
    DAY,
    SECOND,
    Accepted,
    Answer,
    HoldFacts,
    LimitUse,
    Refused,
    WalletFacts,
)
from tests.ledger.selling import Shop

if TYPE_CHECKING:
    from collections.abc import Callable

    from oanim_server.database.engine import Database
    from oanim_server.ledger.values import LimitFacts
    from oanim_server.ledger.values import WalletFacts as LedgerFacts


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
    if isinstance(refusal, LimitExceeded):
        limits = tuple(dataclasses.astuple(blocked) for blocked in refusal.limits)
        return limits + tuple(dataclasses.astuple(blocked) for blocked in refusal.blocked)
    if isinstance(refusal, SpendLimitExceeded):
        return tuple(dataclasses.astuple(blocked) for blocked in refusal.blocked)
    if isinstance(refusal, InvalidField):
        return (refusal.field,)
    return tuple(refusal.facts().values())


def wallet_of(facts: LedgerFacts) -> WalletFacts:
    return WalletFacts(facts.balance_micros, facts.held_micros, facts.debt_micros, facts.seq, facts.frozen)


def use_of(facts: LimitFacts) -> LimitUse:
    return LimitUse(*facts.limit, facts.charged_micros, facts.held_micros, *facts.window[1:])


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
        facts.reported_quantity,
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
    metering: ClassVar[bool]
    # Whether all was as the model says until now: a case that has failed is not looked at again.
    whole = False

    @initialize()
    def begin(self) -> None:
        self.driven = Driven(type(self).new_database()).start()
        clock = self.driven.clock
        self.models: dict[int, Model] = {}
        self.drawing = Drawing(self.models, Shop(self.driven), metering=type(self).metering)
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
        for _ in range(data.draw(st.sampled_from([6, 4, 8, 1, 2]), "how many")):
            operation = self.drawing.operation(data, now)
            works.append(operation)
            expected.append(self.models[operation.wallet_id].submit(operation, now))
        self.whole = False
        answers = [seen(answer) for answer in batch(self.driven.ledger, works)]
        assert answers == expected
        self._check()

    @rule(data=st.data())
    def time_passes(self, data: st.DataObject) -> None:
        clock = self.driven.clock
        midnight = (clock.now // DAY + 1) * DAY
        instants: list[int] = sorted(
            {
                instant + around
                for model in self.models.values()
                for instant in (*model.seen_at(clock.now).next_instants(), midnight)
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

    # What must be seen

    def _check(self) -> None:
        self.whole = False
        for wallet_id, model in self.models.items():
            now = max(self.driven.clock.now, model.at)
            view = model.seen_at(now)
            self.known_at[wallet_id, now] = view
            facts = wallet_of(self.driven.wallet(wallet_id))
            assert facts == view.facts()._replace(seq=model.seq)
            # Nothing is owed while anything is free.
            assert facts.debt == max(0, facts.held - facts.balance)
            assert [use_of(limit) for limit in self.driven.limits(wallet_id)] == view.limit_uses(now)
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
        assert facts == view.facts()
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
                "SELECT subject, charged_micros, held_micros FROM spend_counters"
                " WHERE wallet_id = :id AND window_name = ''",
                id=wallet_id,
            )
            assert {subject: (charged, held) for subject, charged, held in counters} == {
                subject: (spent, model.held_under(subject)) for subject, spent in model.spent.items()
            }
            days = self.driven.usage(wallet_id, Grouping.DAY)
            assert {day: [charges, micros] for day, charges, micros in days} == model.charges
            assert [record[1:] for record in self.driven.uncollected(wallet_id)] == model.uncollected()
            charges = self.driven.charges(wallet_id)
            assert sum(charge.charged_micros for charge in charges) == sum(
                micros for _, micros in model.charges.values()
            )
            assert {charge.seq: charge.event_id for charge in charges if charge.event_id} == {
                item.number: item.event_id for item in model.items if item.charged
            }
        # What was seen at a time is what the statement as of that time shows ever after.
        for (wallet_id, at), view in self.known_at.items():
            self._check_statement(wallet_id, at, view)
        # What the server holds here has no job: jobs are other capabilities', and so is what is said of them.
        problems = [said for said in self.driven.problems() if not said.endswith("and no job has it")]
        assert problems == []


def run(
    new_database: Callable[[], Database], *, metering: bool, cases: int, steps: int, shrink: bool
) -> None:
    machine = type("History", (History,), {"new_database": staticmethod(new_database), "metering": metering})
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


@pytest.mark.parametrize("metering", [False, True], ids=["everything", "metering"])
def test_the_ledger_does_what_the_model_does(
    new_database: Callable[[], Database], request: pytest.FixtureRequest, *, metering: bool
) -> None:
    on_sqlite = "sqlite" in request.node.name
    run(new_database, metering=metering, cases=40 if on_sqlite else 16, steps=25, shrink=False)


@pytest.mark.torture
@pytest.mark.parametrize("metering", [False, True], ids=["everything", "metering"])
def test_the_ledger_does_what_the_model_does_for_long(
    new_database: Callable[[], Database], request: pytest.FixtureRequest, *, metering: bool
) -> None:
    on_sqlite = "sqlite" in request.node.name
    run(new_database, metering=metering, cases=1_500 if on_sqlite else 500, steps=50, shrink=True)
