"""Says what credits there are: what work holds of them, what lapses, what is owed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from oanim.cli.billing import purchases
from oanim.cli.messages import day, plain
from oanim.cli.money import LOW_BALANCE_MICROS, dollars, top_up
from oanim.cli.showing import Answer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from oanim.client import Client
    from openanimate.metering.v1.wallet_pb2 import Wallet
    from openanimate.metering.v1.wallet_service_pb2 import Lot

_PURCHASES = 5
_DAYS = 3


def overview(client: Client) -> Answer:
    """Show the wallet, the lots of it that lapse, and the last purchases."""
    # One answer has both: the wallet, and the lots that it is made of.
    statement = client.list_transactions(page_size=1)
    wallet = statement.wallet
    expiring = sorted(
        (lot for lot in statement.lots if lot.HasField("expires_at")),
        key=lambda lot: lot.expires_at.ToNanoseconds(),
    )
    bought = purchases.latest(client, _PURCHASES)
    lines = [f"Balance    {dollars(wallet.balance_micros)}"]
    if wallet.held_micros:
        lines.append(f"Held       {dollars(wallet.held_micros)}  by running work: oanim billing holds")
    if wallet.held_micros or wallet.debt_micros:
        lines.append(f"Available  {dollars(wallet.available_micros)}")
    if wallet.debt_micros:
        lines += [
            f"Debt       {dollars(wallet.debt_micros)}  taken back after it was spent: credits that come in",
            "           pay it first, and no work starts until it is paid",
        ]
    lines += _lapsing(expiring)
    if wallet.frozen:
        lines.append("Frozen     no work can be started; ask the operator")
    if bought:
        lines += ["", *purchases.listed(bought)]
    return Answer(
        data={
            "wallet": plain(wallet),
            "expiring": [plain(lot) for lot in expiring],
            "purchases": [plain(purchase) for purchase in bought],
        },
        lines=lines,
        notes=low_balance(wallet),
    )


def low_balance(wallet: Wallet) -> list[str]:
    """Warn when little is left, or less than nothing."""
    left = wallet.available_micros
    if left >= LOW_BALANCE_MICROS:
        return []
    if left < 0:
        return [f"{dollars(-left)} is owed, and no work starts until it is paid. {top_up(-left)}"]
    return [f"only {dollars(left)} is left. {top_up(0)}"]


def _lapsing(lots: Iterable[Lot]) -> list[str]:
    """Add up what lapses by day: the next days, and then the rest."""
    days: Counter[str] = Counter()
    for lot in lots:
        days[day(lot.expires_at)] += lot.remaining_micros
    soonest = list(days.items())
    lines = [f"Expiring   {dollars(micros)}  on {date} (UTC)" for date, micros in soonest[:_DAYS]]
    if later := sum(micros for _, micros in soonest[_DAYS:]):
        lines.append(f"           {dollars(later)}  later")
    return lines
