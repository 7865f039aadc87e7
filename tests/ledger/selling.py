"""A small seller of credits: what it hears of its purchases, in a table of its own, and what follows.

It stands where the checkout will: a companion that reads its row under the wallet's lock, adds what it was
told, and says what the ledger is to do.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import text

from oanim_server.ledger.payments import Bought, Reversal, Settle
from oanim_server.ledger.reversals import Targets
from oanim_server.ledger.values import SERVER

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from oanim_server.ledger.payments import Payment
    from oanim_server.ledger.values import Outcome
    from tests.ledger.driving import Driven


class Purchase(NamedTuple):
    """What is sold: the credits, and what the customer is charged for them."""

    purchase_id: str
    amount_micros: int
    bonus_micros: int = 0
    paid_micros: int = 0
    lifetime: int | None = None

    @property
    def credited_micros(self) -> int:
        return self.amount_micros + self.bonus_micros

    @property
    def charged_micros(self) -> int:
        """With tax; without a word about it, the amount."""
        return self.paid_micros or self.amount_micros


class Paid(NamedTuple):
    """The customer has paid."""


class Refunded(NamedTuple):
    """A refund is on its way, or has failed."""

    refund_id: str
    amount_micros: int
    failed: bool = False


class Disputed(NamedTuple):
    """The bank has taken the money, or has given it back."""

    dispute_id: str
    amount_micros: int
    reinstated: bool = False


Event = Paid | Refunded | Disputed


@dataclass
class Facts:
    """All that was heard of one purchase."""

    paid: bool = False
    refunds: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    disputes: dict[str, int] = field(default_factory=dict)
    reinstated: list[str] = field(default_factory=list)

    def hear(self, event: Event) -> None:
        """Add what has happened; nothing that has happened is undone, in whatever order it is told."""
        match event:
            case Paid():
                self.paid = True
            case Refunded(name, amount_micros, failed):
                self.refunds[name] = amount_micros
                if failed and name not in self.failed:
                    self.failed.append(name)
            case Disputed(name, amount_micros, reinstated):
                self.disputes[name] = amount_micros
                if reinstated and name not in self.reinstated:
                    self.reinstated.append(name)

    @property
    def refunded_micros(self) -> int:
        return sum(micros for name, micros in self.refunds.items() if name not in self.failed)

    @property
    def disputed_micros(self) -> int:
        return sum(micros for name, micros in self.disputes.items() if name not in self.reinstated)

    def targets(self, purchase: Purchase) -> Targets:
        """What is to be booked back in all, by I8; refunds first, the rest by disputes."""
        credited, paid = purchase.credited_micros, purchase.charged_micros
        reversed_micros = credited * min(paid, self.refunded_micros + self.disputed_micros) // paid
        by_refunds = credited * min(paid, self.refunded_micros) // paid
        promotions = purchase.bonus_micros * by_refunds // credited
        return Targets(by_refunds - promotions, promotions, reversed_micros - by_refunds)


SOLD = (
    "CREATE TABLE IF NOT EXISTS sold (wallet_id BIGINT, purchase_id TEXT, facts TEXT, credit BIGINT,"
    " PRIMARY KEY (wallet_id, purchase_id))"
)
_LOAD = text("SELECT facts, credit FROM sold WHERE wallet_id = :w AND purchase_id = :p")
_WRITE = text(
    "INSERT INTO sold (wallet_id, purchase_id, facts, credit) VALUES (:w, :p, :facts, :credit)"
    " ON CONFLICT (wallet_id, purchase_id) DO UPDATE SET facts = excluded.facts, credit = excluded.credit"
)


class Word:
    """One event of one purchase, as a companion."""

    def __init__(self, wallet_id: int, purchase: Purchase, event: Event) -> None:
        self.wallet_id = wallet_id
        self.purchase = purchase
        self.event = event
        self._facts = Facts()
        self._credit = 0

    def load(self, connection: Connection, now: int) -> None:
        found = connection.execute(_LOAD, {"w": self.wallet_id, "p": self.purchase.purchase_id}).one_or_none()
        self._facts, self._credit = Facts(), 0
        if found is not None:
            self._facts, self._credit = Facts(**json.loads(found.facts)), found.credit
        self._facts.hear(self.event)

    @property
    def due(self) -> Bought | Reversal | None:
        sold = self.purchase
        if self._credit:
            return Reversal(self._credit, self._facts.targets(sold))
        if self._facts.paid:
            return Bought(sold.purchase_id, sold.amount_micros, sold.bonus_micros, sold.lifetime)
        return None

    def credited(self, credit: int) -> None:
        self._credit = credit

    def write(self, connection: Connection, outcome: Outcome) -> None:
        row = {
            "w": self.wallet_id,
            "p": self.purchase.purchase_id,
            "facts": json.dumps(vars(self._facts)),
            "credit": self._credit,
        }
        connection.execute(_WRITE, row)


if TYPE_CHECKING:
    _is_a_payment: Payment = Word(0, Purchase("", 0), Paid())


class Shop:
    """Sells to the wallets of a ledger."""

    def __init__(self, ledger: Driven) -> None:
        self._ledger = ledger
        ledger.sql(SOLD)

    def word(self, wallet_id: int, purchase: Purchase, event: Event, key: str | None = None) -> Settle:
        """The operation that an event becomes."""
        companion = Word(wallet_id, purchase, event)
        return Settle(
            wallet_id=wallet_id,
            caller=SERVER,
            idempotency_key=key or self._ledger.key(),
            companion=companion,
            payment=companion,
        )

    def tell(self, wallet_id: int, purchase: Purchase, event: Event, key: str | None = None) -> Outcome:
        """Have an event take effect."""
        return self._ledger.run(self.word(wallet_id, purchase, event, key))

    def sell(self, wallet_id: int, purchase: Purchase) -> Outcome:
        """What is bought is paid."""
        return self.tell(wallet_id, purchase, Paid())
