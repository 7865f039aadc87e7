"""What Stripe tells of one payment, from real objects of the sandbox's, for as many purchases as are wanted.

One payment at the sandbox goes through everything there is; what it was told of is told again of each
purchase, under ids of its own. What that comes to is added up here by I8 alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from oanim_server.checkout import rows, words
from oanim_server.checkout.values import Purchase, State
from tests.checkout.house import USD, event, reference

if TYPE_CHECKING:
    from oanim_server.checkout.values import Event
    from tests.checkout.house import House, Shop

PAID, CREDITED = 50 * USD, 55 * USD


@dataclass
class Told:
    """What each event says, and what all of them come to: dollars by refund and by dispute."""

    refunded: dict[str, int] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    withdrawn: dict[str, int] = field(default_factory=dict)
    reinstated: set[str] = field(default_factory=set)
    paid: bool = False

    def hear(self, name: str) -> None:
        """Take in what an event says; in any order, as often as one likes."""
        match name.split():
            case ["succeeded"]:
                self.paid = True
            case ["refund", which, "failed"]:
                self.failed.add(which)
                self.refunded[which] = int(which)
            case ["refund", which, _]:
                self.refunded[which] = int(which)
            case ["dispute", which, "withdrawn" | "lost"]:
                self.withdrawn[which] = int(which)
            case ["dispute", which, "won" | "reinstated"]:
                self.reinstated.add(which)

    @property
    def left_micros(self) -> int:
        """What I8 leaves of the credits."""
        if not self.paid:
            return 0
        refunded = sum(dollars for which, dollars in self.refunded.items() if which not in self.failed)
        disputed = sum(dollars for which, dollars in self.withdrawn.items() if which not in self.reinstated)
        return CREDITED - CREDITED * min(PAID, (refunded + disputed) * USD) // PAID


def told(names: list[str]) -> Told:
    """What these events come to."""
    found = Told()
    for name in names:
        found.hear(name)
    return found


# Names of events: what is told in `types`, about what of the one payment, in which state.
EVENTS = {
    "completed": ("checkout.session.completed", "", "complete"),
    "succeeded": ("checkout.session.async_payment_succeeded", "", "complete"),
    "expired": ("checkout.session.expired", "", "expired"),
    "refund 11 pending": ("refund.created", 1_100, "pending"),
    "refund 11 succeeded": ("refund.updated", 1_100, "succeeded"),
    "refund 11 failed": ("refund.failed", 1_100, "failed"),
    "refund 10 succeeded": ("refund.created", 1_000, "succeeded"),
    "refund 40 succeeded": ("refund.created", 4_000, "succeeded"),
    "dispute 50 created": ("charge.dispute.created", 5_000, "needs_response"),
    "dispute 50 withdrawn": ("charge.dispute.funds_withdrawn", 5_000, "needs_response"),
    "dispute 50 lost": ("charge.dispute.closed", 5_000, "lost"),
    "dispute 20 created": ("charge.dispute.created", 2_000, "needs_response"),
    "dispute 20 withdrawn": ("charge.dispute.funds_withdrawn", 2_000, "needs_response"),
    "dispute 20 won": ("charge.dispute.closed", 2_000, "won"),
    "dispute 20 reinstated": ("charge.dispute.funds_reinstated", 2_000, "won"),
    "inquiry created": ("charge.dispute.created", 3_000, "warning_needs_response"),
    "inquiry closed": ("charge.dispute.closed", 3_000, "warning_closed"),
}


class History:
    """What happened to the one payment, and purchases that the same is told of."""

    def __init__(self, house: House) -> None:
        """Have everything happen to one payment."""
        till = house.till
        account = house.account()
        abandoned, purchase = house.buy(account), house.buy(account)
        till.deliver(drop=1_000)
        till.tell(f"sessions/{abandoned.session_id}/expire-in", seconds=0)
        house.until(lambda: till.all("sessions")[0]["status"] == "expired")
        paid = purchase.session_id
        till.tell(f"sessions/{paid}/pay-later")
        till.tell(f"payments/{paid}/settle", paid=True)
        failing = till.tell("refunds", of=paid, amount=1_100, status="pending")["id"]
        for status in ("succeeded", "failed"):
            till.tell(f"refunds/{failing}", status=status)
        for cents in (1_000, 4_000):
            till.tell("refunds", of=paid, amount=cents)
        inquiry = till.tell("disputes", of=paid, amount=3_000, inquiry=True)["id"]
        till.tell(f"disputes/{inquiry}/close", status="warning_closed")
        for cents, status in ((5_000, "lost"), (2_000, "won")):
            dispute = till.tell("disputes", of=paid, amount=cents)["id"]
            till.tell(f"disputes/{dispute}/close", status=status)
        [charge] = till.all("charges")
        self._ids = {
            reference(purchase): "reference",
            reference(abandoned): "reference",
            paid: "session",
            abandoned.session_id: "session",
            charge["id"]: "ch",
            charge["payment_intent"]: "pi",
        }
        self._ids |= {one["id"]: f"re{one['amount']}" for one in till.all("refunds")}
        self._ids |= {one["id"]: f"du{one['amount']}" for one in till.all("disputes")}
        happened = till.all("events")
        self._texts = {
            name: next(
                json.dumps(one["data"]["object"])
                for one in happened
                if (one["type"], one["data"]["object"].get("status")) == (kind, status)
                and about in ("", one["data"]["object"].get("amount"))
            )
            for name, (kind, about, status) in EVENTS.items()
        }

    def event(self, purchase: Purchase, name: str) -> Event:
        """What an event says of a purchase."""
        text = self._texts[name]
        for known, role in self._ids.items():
            own = {"reference": reference(purchase), "session": purchase.session_id}
            text = text.replace(known, own.get(role, f"{role}_{purchase.token}"))
        return event(EVENTS[name][0], json.loads(text), f"evt {name} {purchase.token}")


async def sold(shop: Shop, account_id: int, token: str, lifetime: int | None = None) -> Purchase:
    """A purchase of fifty dollars whose page nobody at Stripe has heard of."""
    purchase = Purchase(
        wallet_id=account_id,
        token=token,
        api_key_id="k",
        idem_key=token,
        state=State.CREATING,
        amount_micros=PAID,
        bonus_micros=CREDITED - PAID,
        lifetime=lifetime,
        created_at=0,
        expires_at=0,
    )
    await shop.ledger.write(partial(rows.add, wanted=purchase, page_lifetime=10**12))
    page = {"session_id": f"cs_{token}", "url": "x", "expires_at": 10**16}
    keep = partial(rows.has_page, wallet_id=account_id, token=token, **page)  # type: ignore[arg-type]
    opened = await shop.ledger.write(keep)
    assert opened is not None
    return opened


assert {kind for kind, _, _ in EVENTS.values()} <= set(words.TYPES)
