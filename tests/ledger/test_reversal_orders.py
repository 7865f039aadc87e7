"""Every order of what is heard of a purchase, while parts of it are held, spent or expired.

What must come out is written here from I8 and the decided cases, not from the ledger: after every word the
balance is what came in, less what was charged, less what expired, less what is reversed; and what had
expired of the purchase's own counts as reversed already.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple

import pytest

from oanim_server.ledger.operations import Commit, OpenWallet, Release, Reserve
from oanim_server.ledger.refusals import InsufficientCredits
from oanim_server.ledger.values import DAY, SERVER, Account, Outcome, State, WalletFacts
from tests.ledger.driving import Driven, batch, open_account
from tests.ledger.selling import Disputed, Event, Paid, Purchase, Refunded, Shop

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

EXPIRY = 10 * DAY


class Scene(NamedTuple):
    """What the wallet has gone through before the words of refunds and disputes come."""

    purchase: Purchase
    # Credits besides the purchase's own, which nobody bought.
    given: int = 0
    # Of the purchase's own: charged, then held until the end, then expired.
    spent: int = 0
    held: int = 0
    expired: int = 0


# They expire sooner than what was given: it is of them that is spent and held.
FIFTY = Purchase("p", 50, 5, lifetime=100 * EXPIRY)
TAXED = Purchase("p", 5_000, 500, paid_micros=5_950, lifetime=100 * EXPIRY)
SHORT = FIFTY._replace(lifetime=EXPIRY)

SCENES = {
    "nothing happened": Scene(FIFTY),
    "with other credits": Scene(FIFTY, given=1_000),
    "charged with tax, rounded": Scene(TAXED, given=777),
    "all of it held": Scene(FIFTY, held=55),
    "a part of it held": Scene(FIFTY, held=20),
    "a part held, with other credits": Scene(FIFTY, given=7, held=30),
    "all of it spent": Scene(FIFTY, spent=55),
    "a part of it spent": Scene(FIFTY, spent=17),
    "spent, with other credits": Scene(FIFTY, given=40, spent=55),
    "all of it expired": Scene(SHORT, expired=55),
    "expired, with other credits": Scene(SHORT, given=40, expired=55),
    "spent and expired": Scene(SHORT, given=12, spent=30, expired=25),
    "spent, held and expired": Scene(SHORT, given=3, spent=13, held=20, expired=22),
}


def words(purchase: Purchase) -> tuple[Event, ...]:
    """Two refunds, one of which fails, and a dispute that is won: they may be heard in any order."""
    half = purchase.charged_micros // 2
    return (
        Refunded("a", half),
        Refunded("b", purchase.charged_micros - half),
        Refunded("b", purchase.charged_micros - half, failed=True),
        Disputed("d", purchase.charged_micros),
        Disputed("d", purchase.charged_micros, reinstated=True),
    )


# What the guarantees say ----------------------------------------------------------------------------


@dataclass
class Expected:
    """A wallet by the text: what the words heard so far make of a scene."""

    scene: Scene
    heard: Sequence[Event]

    @property
    def paid(self) -> bool:
        return Paid() in self.heard

    def _of(self, kind: type[Refunded | Disputed], undone: str) -> int:
        said = {word[0]: word[1] for word in self.heard if isinstance(word, kind)}
        gone = {word[0] for word in self.heard if isinstance(word, kind) and getattr(word, undone)}
        return sum(micros for name, micros in said.items() if name not in gone)

    @property
    def refunded(self) -> int:
        return self._share(self._of(Refunded, "failed"))

    @property
    def reversed(self) -> int:
        """I8: floor(credited x min(paid, refunded + disputed - reinstated) / paid)."""
        return self._share(self._of(Refunded, "failed") + self._of(Disputed, "reinstated"))

    def _share(self, back: int) -> int:
        sold = self.scene.purchase
        part = Fraction(sold.amount_micros + sold.bonus_micros) * min(sold.charged_micros, back)
        return int(part / sold.charged_micros) if self.paid else 0

    @property
    def covered(self) -> int:
        """What expired of the purchase's own lots counts as taken already."""
        return min(self.reversed, self.scene.expired)

    @property
    def balance(self) -> int:
        scene, came = self.scene, self.scene.given
        if self.paid:
            came += scene.purchase.amount_micros + scene.purchase.bonus_micros
        return came - scene.spent - scene.expired - (self.reversed - self.covered)

    @property
    def held(self) -> int:
        return self.scene.held

    @property
    def debt(self) -> int:
        """Parts under a hold are never taken; all that is free is, before anything is owed."""
        return max(0, self.held - self.balance)

    @property
    def books(self) -> dict[str, int]:
        """Stripe and promotions carry what was refunded, disputes the rest."""
        scene, sold, refunded = self.scene, self.scene.purchase, self.refunded
        bonus = sold.bonus_micros * refunded // (sold.amount_micros + sold.bonus_micros)
        sums = {
            "stripe": refunded - bonus - sold.amount_micros,
            "promotions and breakage": bonus - sold.bonus_micros - scene.given + scene.expired - self.covered,
            "disputes": self.reversed - refunded,
            "revenue": scene.spent,
        }
        return {name: micros for name, micros in sums.items() if micros}


# The ledger -----------------------------------------------------------------------------------------


class Case(NamedTuple):
    """One order, in a wallet of its own."""

    wallet_id: int
    order: tuple[Event, ...]


class Cases:
    """All orders of a scene, each step of all of them in one group."""

    def __init__(self, ledger: Driven, scene: Scene, orders: Iterable[tuple[Event, ...]]) -> None:
        self.ledger, self.scene = ledger, scene
        self.shop = Shop(ledger)
        self.cases = [Case(number, order) for number, order in enumerate(orders, start=1)]
        ledger.ledger.run_write(self._open_accounts)
        opened = [
            OpenWallet(wallet_id=case.wallet_id, caller=SERVER, idempotency_key="", grant_micros=scene.given)
            for case in self.cases
        ]
        assert all(isinstance(answer, Outcome) for answer in batch(ledger.ledger, opened))

    def _open_accounts(self, connection: Connection, _now: int) -> None:
        for case in self.cases:
            open_account(connection, case.wallet_id)

    def prepare(self) -> None:
        """Sell, and have the scene happen to what was sold."""
        self.tell([Paid()] * len(self.cases))
        if self.scene.spent:
            self.commit(self.reserve(self.scene.spent))
        if self.scene.held:
            self.holds = self.reserve(self.scene.held)
        if self.scene.expired:
            self.ledger.clock.forward(EXPIRY)

    def reserve(self, micros: int) -> list[int]:
        """Hold so much of each wallet, until it is charged or given back; the reservations' numbers."""
        works = [
            Reserve(
                wallet_id=case.wallet_id,
                caller=SERVER,
                idempotency_key=self.ledger.key(),
                amount_micros=micros,
                opener=SERVER,
                api_key_id="",
                ttl=None,
            )
            for case in self.cases
        ]
        return [outcome.reservation.number for outcome in batch(self.ledger.ledger, works)]

    def commit(self, numbers: Sequence[int]) -> list[Outcome]:
        works = [
            Commit(
                wallet_id=case.wallet_id,
                caller=SERVER,
                idempotency_key=self.ledger.key(),
                reservation=number,
                amount_micros=self.ledger.reservation(case.wallet_id, number).reserved_micros,
            )
            for case, number in zip(self.cases, numbers, strict=True)
        ]
        return batch(self.ledger.ledger, works)

    def release(self, numbers: Sequence[int]) -> list[Outcome]:
        works = [
            Release(
                wallet_id=case.wallet_id,
                caller=SERVER,
                idempotency_key=self.ledger.key(),
                reservation=number,
            )
            for case, number in zip(self.cases, numbers, strict=True)
        ]
        return batch(self.ledger.ledger, works)

    def tell(self, events: Sequence[Event]) -> list[WalletFacts]:
        """Tell each wallet a word; and once more that it is paid, for what was heard before that."""
        told = list(zip(self.cases, events, strict=True))
        wallets: dict[int, WalletFacts] = {}
        for words_of in (told, [(case, event) for case, event in told if event == Paid()]):
            works = [self.shop.word(case.wallet_id, self.scene.purchase, event) for case, event in words_of]
            for answer in batch(self.ledger.ledger, works):
                assert isinstance(answer, Outcome), answer
                wallets[answer.wallet.wallet_id] = answer.wallet
        return [wallets[case.wallet_id] for case in self.cases]

    def books(self, wallet_id: int) -> dict[str, int]:
        names = {Account.PROMOTIONS: "promotions and breakage", Account.BREAKAGE: "promotions and breakage"}
        sums: Counter[str] = Counter()
        for row in self.ledger.journal(wallet_id):
            for number, micros in json.loads(row.entries):
                account = Account(number)
                sums[names.get(account, account.name.lower())] += micros
        del sums["wallet"]
        return {name: micros for name, micros in sums.items() if micros}

    def play(self, before: tuple[Event, ...] = ()) -> list[Expected]:
        """Tell all words, each wallet in its own order, and look after each; what is expected at the end."""
        expected: list[Expected] = []
        for step in range(len(self.cases[0].order)):
            wallets = self.tell([case.order[step] for case in self.cases])
            expected = [Expected(self.scene, (*before, *case.order[: step + 1])) for case in self.cases]
            for facts, case, wanted in zip(wallets, self.cases, expected, strict=True):
                assert facts[1:4] == (wanted.balance, wanted.held, wanted.debt), case.order
        for case, wanted in zip(self.cases, expected, strict=True):
            assert self.books(case.wallet_id) == wanted.books, case.order
        assert len({(wanted.balance, wanted.held, wanted.debt) for wanted in expected}) == 1
        return expected

    def work_is_started_with_what_is_free_and_no_more(self, available: int) -> None:
        asked = max(available, 0) + 1
        works = [self.ledger.reserve(case.wallet_id, asked) for case in self.cases]
        for refused in batch(self.ledger.ledger, works):
            assert isinstance(refused, InsufficientCredits)
            assert refused.facts() == {"required_micros": asked, "available_micros": available}
        if available > 0:
            self.release(self.reserve(available))

    def holds_are_honoured(self, wanted: Expected) -> None:
        """Half of the wallets charge their hold, half give it back: that pays what is owed first."""
        cases, holds = self.cases, self.holds
        half = len(cases) // 2
        self.cases = cases[:half]
        for outcome in self.commit(holds[:half]):
            assert outcome.charged_micros == wanted.held
            assert outcome.wallet[1:4] == (wanted.balance - wanted.held, 0, wanted.debt)
        self.cases = cases[half:]
        for outcome in self.release(holds[half:]):
            assert outcome.reservation is not None
            assert outcome.reservation.state is State.RELEASED
            lapsed = max(0, wanted.held - wanted.debt) if self.scene.expired else 0
            debt = max(0, wanted.debt - wanted.held)
            assert outcome.wallet[1:4] == (wanted.balance - lapsed, 0, debt)
        self.cases = cases


@pytest.mark.parametrize("name", SCENES)
def test_in_every_order_the_balance_is_what_i8_says(ledger: Driven, name: str) -> None:
    scene = SCENES[name]
    cases = Cases(ledger, scene, permutations(words(scene.purchase)))
    cases.prepare()
    wanted = cases.play((Paid(),))[0]
    cases.work_is_started_with_what_is_free_and_no_more(wanted.balance - wanted.held)
    if scene.held:
        cases.holds_are_honoured(wanted)
    assert ledger.problems() == []


def test_in_every_order_of_payment_refunds_and_disputes_too(ledger: Driven) -> None:
    cases = Cases(ledger, Scene(FIFTY, given=9), permutations((Paid(), *words(FIFTY))))
    cases.play()
    assert ledger.problems() == []


@pytest.mark.parametrize(
    "dispute", [(Disputed("d", 50),), (Disputed("d", 50), Disputed("d", 50, reinstated=True))], ids=len
)
@pytest.mark.parametrize("refund", [(Refunded("a", 20),), (Refunded("a", 50),)], ids=repr)
def test_in_every_order_with_each_word_twice(
    ledger: Driven, refund: tuple[Event, ...], dispute: tuple[Event, ...]
) -> None:
    told = (Paid(), *refund, *dispute)
    orders = set(permutations((*told, *told[:2])))
    cases = Cases(ledger, Scene(FIFTY), sorted(orders, key=repr))
    cases.play()
    assert ledger.problems() == []
