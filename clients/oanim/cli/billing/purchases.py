"""Shows what was bought, and what came back of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim.cli.failures import Failure
from oanim.cli.messages import plain, time, word
from oanim.cli.money import dollars, usd
from oanim.cli.paging import items
from oanim.cli.showing import Answer, table
from oanim.errors import NotFound, WrongRole
from openanimate.metering.v1.checkout_service_pb2 import CheckoutState, ReversalKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oanim.client import Client
    from openanimate.metering.v1.checkout_service_pb2 import Checkout, Receipt

_TITLES = ("Credited (UTC)", "Price", "Bonus", "Credits", "Taken back", "Purchase")
_KINDS = {
    ReversalKind.REVERSAL_KIND_REFUND: "Refunded",
    ReversalKind.REVERSAL_KIND_DISPUTE: "Disputed",
}
_WIDTH = 12


def latest(client: Client, count: int) -> list[Checkout]:
    """Answer the last purchases; none for a key whose role buys nothing."""
    try:
        return list(client.list_purchases(page_size=count).purchases)
    except WrongRole:
        return []


def listed(purchases: Sequence[Checkout]) -> list[str]:
    """Line purchases up."""
    rows = [
        (
            time(purchase.credited_at),
            dollars(purchase.amount_micros),
            dollars(purchase.bonus_micros) if purchase.bonus_micros else "-",
            dollars(purchase.credits_micros),
            dollars(purchase.reversed_micros) if purchase.reversed_micros else "-",
            purchase.checkout_id,
        )
        for purchase in purchases
    ]
    return table(_TITLES, rows, right=(1, 2, 3, 4))


def history(client: Client, *, limit: int) -> Answer:
    """List purchases, newest first."""
    found = items(client.list_purchases, "purchases", limit=limit)
    return Answer(
        data={"purchases": [plain(purchase) for purchase in found]},
        lines=listed(found) if found else ["Nothing was bought yet: oanim billing buy"],
    )


def receipt(client: Client, checkout_id: str) -> Answer:
    """Show what was paid for a purchase; of one that was not paid, how it stands."""
    try:
        found = client.get_receipt(checkout_id=checkout_id).receipt
    except NotFound:
        raise _unpaid(client.get_checkout(checkout_id=checkout_id).checkout) from None
    return Answer(data=plain(found), lines=_written(found))


def credits_of(checkout: Checkout) -> str:
    """Say how many credits, and how many of them are a bonus."""
    bonus = f", {dollars(checkout.bonus_micros)} of it a bonus" if checkout.bonus_micros else ""
    return f"{dollars(checkout.credits_micros)}{bonus}"


def _written(receipt: Receipt) -> list[str]:
    purchase = receipt.purchase
    owner = f"{purchase.account_id} ({receipt.email})" if receipt.email else purchase.account_id
    facts = [
        ("Purchase", purchase.checkout_id),
        ("Account", owner),
        ("Credited", f"{time(purchase.credited_at)} (UTC)"),
        ("Credits", credits_of(purchase)),
        ("Price", dollars(purchase.amount_micros)),
    ]
    if receipt.tax_micros:
        facts.append(("Tax", dollars(receipt.tax_micros)))
    facts.append(("Paid", dollars(receipt.paid_micros)))
    for reversal in receipt.reversals:
        counts = "" if reversal.counts else ", does not count"
        state = f"{reversal.state.replace('_', ' ')}{counts}"
        said = f"{dollars(reversal.amount_micros)}  {state}  {reversal.provider_id}"
        facts.append((_KINDS.get(reversal.kind, "Came back"), said))
    if purchase.reversed_micros:
        facts.append(("Taken back", f"{dollars(purchase.reversed_micros)} of the credits"))
    if receipt.receipt_url:
        facts.append(("Receipt", receipt.receipt_url))
    return [f"{name.ljust(_WIDTH)}{fact}" for name, fact in facts]


def _unpaid(checkout: Checkout) -> Failure:
    """Say why there is no receipt, and what can be done."""
    match checkout.state:
        case CheckoutState.CHECKOUT_STATE_OPEN:
            said = (
                f"it is not paid yet. Until {time(checkout.expires_at)} (UTC) it is paid here: {checkout.url}"
            )
        case CheckoutState.CHECKOUT_STATE_PROCESSING:
            said = "it is paid, and the money is on its way: the credits come when it arrives."
        case CheckoutState.CHECKOUT_STATE_PAID:
            said = "it was paid this very moment. Ask again."
        case CheckoutState.CHECKOUT_STATE_FAILED | CheckoutState.CHECKOUT_STATE_EXPIRED:
            anew = f"oanim billing buy --amount {usd(checkout.amount_micros)}"
            said = f"{ended_unpaid(checkout)} Begin anew: {anew}"
        case _:
            said = f"it is {word(CheckoutState.DESCRIPTOR, checkout.state)}."
    return Failure(f"there is no receipt: {said}")


def ended_unpaid(checkout: Checkout) -> str:
    """Say how a checkout ended that was not paid."""
    if checkout.state == CheckoutState.CHECKOUT_STATE_EXPIRED:
        return "the time to pay ran out, and nothing was paid."
    return "the payment failed, and nothing was credited."
