"""The words of `oanim billing`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from oanim.cli import credentials
from oanim.cli.command import answering, as_json, key_option, opened, with_client
from oanim.cli.failures import USAGE, Failure
from oanim.cli.money import dollars
from oanim.cli.showing import Answer, table
from oanim.cli.values import Instant, Usd

if TYPE_CHECKING:
    from datetime import datetime

    from oanim.client import Client

_COUNT = click.IntRange(1, 100_000)
_ROWS = 20


@click.group(invoke_without_command=True)
@with_client
def billing(client: Client) -> Answer:
    """Show the balance, what work holds, what expires, and purchases; buy more."""
    from oanim.cli.billing.balance import overview

    return overview(client)


@billing.command()
@click.option("--amount", "amount_micros", type=Usd(in_cents=True), help="How much to pay, whole cents.")
@click.option("--quote", "only_quote", is_flag=True, help="Show what it would buy; nothing is spent.")
@click.option("--no-browser", is_flag=True, help="Print the page where it is paid, and open no browser.")
@key_option
@answering
def buy(*, amount_micros: int | None, only_quote: bool, no_browser: bool, key: str | None) -> Answer:
    """Buy credits: pay in the browser, and see them arrive.

    Without an amount it explains what can be bought, and what comes on top.
    """
    from oanim.cli.billing import buying
    from oanim.keys import new_key

    if amount_micros is None or only_quote:
        with opened("") as client:
            return buying.offer(client, amount_micros)
    order = buying.Order(amount_micros, key or new_key(), key_is_given=key is not None)
    with opened(credentials.api_key()) as client:
        return buying.buy(client, order, opens_browser=not no_browser and sys.stdin.isatty())


@billing.command()
@with_client
def holds(client: Client) -> Answer:
    """List what is held now, and by what."""
    from oanim.cli.messages import plain, time
    from oanim.cli.paging import items

    held = items(client.list_reservations, "reservations", active=True)
    rows = [
        (
            hold.reservation_id,
            dollars(hold.held_micros),
            hold.price.model or "-",
            hold.opened_by,
            time(hold.created_at),
            time(hold.expires_at) if hold.HasField("expires_at") else "with its work",
        )
        for hold in held
    ]
    titles = ("Hold", "Held", "Model", "Opened by", "Since (UTC)", "Ends (UTC)")
    return Answer(
        data={"reservations": [plain(hold) for hold in held]},
        lines=table(titles, rows, right=(1,)) if rows else ["Nothing is held."],
    )


@billing.command()
@click.option("--limit", "-l", type=_COUNT, default=_ROWS, show_default=True, help="How many.")
@with_client
def history(client: Client, *, limit: int) -> Answer:
    """List purchases, newest first, with what was taken back."""
    from oanim.cli.billing import purchases

    return purchases.history(client, limit=limit)


@billing.command()
@click.option("--as-of", type=Instant(), help="As it stood then: a time, or the end of a day, UTC.")
@click.option("--csv", "as_csv", is_flag=True, help="Write a spreadsheet (RFC 4180), all rows of it.")
@click.option("--limit", "-l", type=_COUNT, help=f"How many rows.  [default: {_ROWS}; of --csv: all]")
@with_client
def statement(client: Client, *, as_of: datetime | None, as_csv: bool, limit: int | None) -> Answer:
    """Show every row of the journal, with the balance after it.

    Newest first, in UTC.
    """
    from oanim.cli.billing import statement as written

    if as_csv and as_json():
        raise Failure("give one of --csv and --json.", USAGE)
    if as_csv:
        return written.spreadsheet(client, as_of=as_of, limit=limit)
    return written.statement(client, as_of=as_of, limit=limit or _ROWS)


@billing.command()
@click.argument("purchase_id", metavar="ID")
@with_client
def receipt(client: Client, *, purchase_id: str) -> Answer:
    """Show what was paid for a purchase, and what came back.

    Of a purchase that is not paid yet it says how it stands.
    """
    from oanim.cli.billing import purchases

    return purchases.receipt(client, purchase_id)
