"""The commands that show credits: what there is, and what running work holds of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from oanim.cli.command import with_client
from oanim.cli.money import LOW_BALANCE_MICROS, dollars
from oanim.cli.showing import Answer, table

if TYPE_CHECKING:
    from oanim.client import Client
    from openanimate.metering.v1.wallet_pb2 import Wallet


@click.group(invoke_without_command=True)
@with_client
def billing(client: Client) -> Answer:
    """Show the balance, what running work holds of it, and credits that expire."""
    from oanim.cli.messages import day, plain

    # One answer has both: the wallet, and the lots that it is made of.
    statement = client.list_transactions(page_size=1)
    wallet = statement.wallet
    expiring = [lot for lot in statement.lots if lot.HasField("expires_at")]
    lines = [f"Balance    {dollars(wallet.balance_micros)}"]
    if wallet.held_micros:
        lines += [
            f"Held       {dollars(wallet.held_micros)}  by running work: oanim billing holds",
            f"Available  {dollars(wallet.available_micros)}",
        ]
    if wallet.debt_micros:
        lines.append(f"Debt       {dollars(wallet.debt_micros)}  paid first by credits that come in")
    lines += [
        f"Expiring   {dollars(lot.remaining_micros)}  on {day(lot.expires_at)} (UTC)" for lot in expiring
    ]
    if wallet.frozen:
        lines.append("Frozen     no work can be started; ask the operator")
    return Answer(
        data={"wallet": plain(wallet), "expiring": [plain(lot) for lot in expiring]},
        lines=lines,
        notes=low_balance(wallet),
    )


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


def low_balance(wallet: Wallet) -> list[str]:
    """Warn when little is left."""
    if wallet.available_micros >= LOW_BALANCE_MICROS:
        return []
    return [f"only {dollars(wallet.available_micros)} is left. Top up: oanim billing buy --amount 10"]
