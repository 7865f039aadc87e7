"""The commands that limit what the account, or one of its keys, may spend in a day, a week or a month."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from oanim.cli.command import key_option, with_client
from oanim.cli.failures import USAGE, Failure
from oanim.cli.money import dollars
from oanim.cli.showing import Answer, table
from oanim.cli.values import Usd

if TYPE_CHECKING:
    from oanim.client import Client
    from openanimate.metering.v1.account_service_pb2 import Limit, LimitPeriod

_PERIODS = ("day", "week", "month")

_api_key = click.option("--api-key", "key_id", default="", help="One key's id, instead of the whole account.")


@click.group()
def limits() -> None:
    """Limit what the account, or one of its keys, may spend in a day, a week or a month."""


@limits.command("list")
@with_client
def list_limits(client: Client) -> Answer:
    """List the limits, and what is left of each."""
    from oanim.cli.messages import plain, time

    answer = client.list_limits()
    rows = [
        (
            limit.key_id or "the account",
            _period(limit.period),
            dollars(limit.limit_micros),
            dollars(limit.charged_micros),
            dollars(limit.held_micros),
            dollars(limit.left_micros),
            time(limit.resets_at),
        )
        for limit in answer.limits
    ]
    titles = ("Of", "Per", "Limit", "Used", "Held", "Left", "Resets (UTC)")
    return Answer(
        data=plain(answer),
        lines=table(titles, rows, right=(2, 3, 4, 5))
        if rows
        else ["There is no limit. Set one: oanim limits set --day 5.00"],
    )


@limits.command("set")
@click.option("--day", type=Usd(), help="What may be spent from midnight to midnight, UTC; 0 stops all work.")
@click.option("--week", type=Usd(), help="The same from Monday on.")
@click.option("--month", type=Usd(), help="The same from the first of the month on.")
@_api_key
@key_option
@with_client
def set_limit(client: Client, /, *, key_id: str, key: str | None, **amounts: int | None) -> Answer:
    """Set a limit, or give it another amount.

    What was spent since the period began counts, and so does what is held.
    """
    from oanim.cli.messages import plain
    from oanim.cli.repeating import note_key
    from oanim.keys import new_key

    period, amount_micros = _only({name: amount for name, amount in amounts.items() if amount is not None})
    key = key or new_key()
    with note_key(key):
        answer = client.set_limit(
            key_id=key_id, period=_number(period), limit_micros=amount_micros, idempotency_key=key
        )
    return Answer(data=plain(answer), lines=_said(answer.limit))


@limits.command()
@click.option("--day", is_flag=True, help="The limit of a day.")
@click.option("--week", is_flag=True, help="The limit of a week.")
@click.option("--month", is_flag=True, help="The limit of a month.")
@_api_key
@key_option
@with_client
def delete(client: Client, /, *, key_id: str, key: str | None, **chosen: bool) -> Answer:
    """Take a limit away."""
    from oanim.cli.messages import plain
    from oanim.cli.repeating import note_key
    from oanim.keys import new_key

    period, _ = _only({name: 0 for name, is_chosen in chosen.items() if is_chosen})
    key = key or new_key()
    with note_key(key):
        answer = client.delete_limit(key_id=key_id, period=_number(period), idempotency_key=key)
    return Answer(data=plain(answer), lines=[f"{_owner(key_id)} has no limit per {period} now."])


def _only(given: dict[str, int]) -> tuple[str, int]:
    """Answer the one period that was given: each is a limit of its own, and an action of its own."""
    if len(given) != 1:
        raise Failure("give one of --day, --week and --month.", USAGE)
    return next(iter(given.items()))


def _number(period: str) -> LimitPeriod.ValueType:
    from openanimate.metering.v1.account_service_pb2 import LimitPeriod

    return LimitPeriod.Value(f"LIMIT_PERIOD_{period.upper()}")


def _period(number: LimitPeriod.ValueType) -> str:
    from oanim.cli.messages import word
    from openanimate.metering.v1.account_service_pb2 import LimitPeriod

    return word(LimitPeriod.DESCRIPTOR, number)


def _owner(key_id: str) -> str:
    return f"The key {key_id}" if key_id else "The account"


def _said(limit: Limit) -> list[str]:
    from oanim.cli.messages import time

    now = (
        f"Used {dollars(limit.charged_micros)}, held {dollars(limit.held_micros)}, "
        f"left {dollars(limit.left_micros)} until {time(limit.resets_at)} (UTC)."
    )
    what = f"{_owner(limit.key_id)} may spend {dollars(limit.limit_micros)} per {_period(limit.period)}."
    return [what, now]
