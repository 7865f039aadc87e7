"""Buys credits: begins a purchase, shows where it is paid, and waits until the credits are in.

Nothing that happens here loses a payment: it is made elsewhere, and credited whoever waits for it.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from oanim.calls.checkout import watch_checkout
from oanim.cli import progress
from oanim.cli.billing.balance import low_balance
from oanim.cli.billing.purchases import credits_of, ended_unpaid
from oanim.cli.failures import AWAY, INTERRUPTED, USAGE, Failure
from oanim.cli.messages import plain
from oanim.cli.money import dollars, usd
from oanim.cli.repeating import note_key, with_key
from oanim.cli.showing import Answer, say
from oanim.errors import InvalidField, OanimError
from openanimate.metering.v1.checkout_service_pb2 import CheckoutState

if TYPE_CHECKING:
    from oanim.client import Client
    from openanimate.metering.v1.checkout_service_pb2 import (
        Checkout,
        CreateCheckoutResponse,
        WatchCheckoutResponse,
    )
    from openanimate.metering.v1.pricing_service_pb2 import PurchaseTerms

_UNPAID = (CheckoutState.CHECKOUT_STATE_EXPIRED, CheckoutState.CHECKOUT_STATE_FAILED)
_PERCENT = 100
# How long a service that does not answer is waited for.
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Order:
    """What to buy, and the key that names this attempt, the caller's own or not."""

    amount_micros: int
    key: str
    key_is_given: bool


def offer(client: Client, amount_micros: int | None) -> Answer:
    """Explain what can be bought, or what an amount would buy; nothing is spent."""
    terms = _terms(client)
    if amount_micros is None:
        return Answer(data={"purchase_terms": plain(terms)}, lines=_explained(terms))
    if not terms.minimum_micros <= amount_micros <= terms.maximum_micros:
        raise _out_of_range(terms)
    bonus_micros = _bonus_micros(terms, amount_micros)
    credits_micros = amount_micros + bonus_micros
    bonus = f", {dollars(bonus_micros)} of it a bonus" if bonus_micros else ""
    return Answer(
        data={
            "amount_micros": amount_micros,
            "bonus_micros": bonus_micros,
            "credits_micros": credits_micros,
        },
        lines=[f"{dollars(amount_micros)} buys {dollars(credits_micros)} of credits{bonus}."],
    )


def buy(client: Client, order: Order, *, opens_browser: bool) -> Answer:
    """Begin a purchase, or take up the one that the key named before, and wait until it has ended."""
    begun = _begun(client, order)
    ended = _awaited(client, begun.checkout, order, opens_browser=opens_browser)
    if ended.checkout.state in _UNPAID:
        raise Failure(f"{ended_unpaid(ended.checkout)} {_anew(order)}")
    return Answer(
        data={
            "checkout": plain(ended.checkout),
            "wallet": plain(ended.wallet),
            "replayed": begun.replayed,
        },
        lines=[
            f"Credited {credits_of(ended.checkout)}. The balance is {dollars(ended.wallet.balance_micros)}.",
            f"Receipt: oanim billing receipt {ended.checkout.checkout_id}",
        ],
        notes=low_balance(ended.wallet),
        if_unread=f"It is paid and credited: oanim billing receipt {ended.checkout.checkout_id}",
    )


def _begun(client: Client, order: Order) -> CreateCheckoutResponse:
    try:
        with note_key(order.key):
            return client.create_checkout(amount_micros=order.amount_micros, idempotency_key=order.key)
    except InvalidField as error:
        if error.field != "amount_micros":
            raise
        raise _out_of_range(_terms(client)) from error


def _awaited(
    client: Client, checkout: Checkout, order: Order, *, opens_browser: bool
) -> WatchCheckoutResponse:
    """Show where a purchase is paid, and follow it to its end."""
    look_again = (
        "What is paid is credited all the same. Look again: oanim billing, or "
        f"oanim billing receipt {checkout.checkout_id}. Wait again: {with_key(order.key)}"
    )
    try:
        if checkout.url:
            say(f"Pay {dollars(checkout.amount_micros)} for {credits_of(checkout)}, here: {checkout.url}")
            if opens_browser:
                _open(checkout.url)
        with progress.shown() as shown:

            def ask_again(_: OanimError, silent_s: float) -> None:
                if silent_s > _PATIENCE_S:
                    why = f"the service has not answered for {silent_s:.0f} s. {look_again}"
                    raise Failure(why, AWAY)
                shown.now("the service does not answer; asking again")

            call = replace(watch_checkout(checkout_id=checkout.checkout_id), on_break=ask_again)
            for told in client.connection.stream(call):
                if told.checkout.state in (*_UNPAID, CheckoutState.CHECKOUT_STATE_PAID):
                    return told
                shown.now(_said(told.checkout))
    except KeyboardInterrupt:
        raise Failure(f"interrupted. {look_again}", INTERRUPTED) from None
    except OanimError as error:
        error.add_note(look_again)
        raise
    raise Failure(f"the service ended its report before the purchase. {look_again}")


def _said(checkout: Checkout) -> str:
    if checkout.state == CheckoutState.CHECKOUT_STATE_PROCESSING:
        return "paid by a way that takes hours or days; the credits come with the money, whoever waits"
    return "waiting for the payment"


def _anew(order: Order) -> str:
    key = ", with a new --key" if order.key_is_given else ""
    return f"Try again{key}: oanim billing buy --amount {usd(order.amount_micros)}"


def _open(url: str) -> None:
    """Open a page in the user's browser, in a process of its own: what it has to say is not our answer.

    Isolated, so that no file of the folder we run in is taken for the module.
    """
    if url.startswith(("https://", "http://")):
        with suppress(OSError):
            subprocess.Popen(
                [sys.executable, "-I", "-m", "webbrowser", url],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )


def _terms(client: Client) -> PurchaseTerms:
    prices = client.list_prices()
    if not prices.HasField("purchase_terms"):
        raise Failure("this server sells no credits. With a key of your own: export ANIMATE_FAL_KEY=your-key")
    return prices.purchase_terms


def _out_of_range(terms: PurchaseTerms) -> Failure:
    least, most = dollars(terms.minimum_micros), dollars(terms.maximum_micros)
    return Failure(f"--amount: a purchase is whole cents, from {least} to {most}.", USAGE)


def _bonus_micros(terms: PurchaseTerms, amount_micros: int) -> int:
    # Whole cents have a whole percentage in micro-USD: there is nothing to round.
    has_bonus = amount_micros >= terms.bonus_threshold_micros
    return amount_micros * terms.bonus_percent // _PERCENT if has_bonus else 0


def _explained(terms: PurchaseTerms) -> list[str]:
    lines = [
        "$1 buys $1 of credits.",
        f"Minimum  {dollars(terms.minimum_micros)}",
        f"Maximum  {dollars(terms.maximum_micros)} at once",
    ]
    if terms.bonus_percent:
        least = max(terms.minimum_micros, terms.bonus_threshold_micros)
        whole = least + _bonus_micros(terms, least)
        lines.append(
            f"Bonus    {terms.bonus_percent}% of the whole amount, from {dollars(least)} on: "
            f"{dollars(least)} buys {dollars(whole)}"
        )
    return [*lines, "Buy: oanim billing buy --amount 25"]
