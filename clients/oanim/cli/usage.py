"""The commands that show what was charged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from oanim.cli.command import with_client
from oanim.cli.money import dollars
from oanim.cli.showing import Answer, table

if TYPE_CHECKING:
    from oanim.client import Client

_TITLES = {
    "day": "Day (UTC)",
    "model": "Model",
    "category": "Category",
    "api-key": "API key",
    "project": "Project",
}
_DEFAULT_DAYS = 30
_DAYS = click.IntRange(1, 3_650)


@click.group(invoke_without_command=True)
@click.option(
    "--by", type=click.Choice(tuple(_TITLES)), default="day", show_default=True, help="What to add up by."
)
@click.option("--days", "-d", type=_DAYS, default=_DEFAULT_DAYS, show_default=True, help="How many UTC days.")
@with_client
def usage(client: Client, *, by: str, days: int) -> Answer:
    """Add up what was charged, by UTC day, model, category, API key or project."""
    from oanim.cli.messages import plain
    from openanimate.metering.v1.wallet_service_pb2 import UsageGrouping

    grouping = UsageGrouping.Value(f"USAGE_GROUPING_{by.replace('-', '_').upper()}")
    # The usual range is counted by the server's clock; another one starts on a day of ours.
    first_day = "" if days == _DEFAULT_DAYS else f"{datetime.now(UTC) - timedelta(days=days - 1):%Y-%m-%d}"
    totals = client.get_usage(first_day=first_day, group_by=grouping)
    rows = [
        (total.group or "-", str(total.charges), dollars(total.charged_micros)) for total in totals.totals
    ]
    lines = table((_TITLES[by], "Charges", "Charged"), rows, right=(1, 2)) if rows else []
    lines.append(
        f"Charged {dollars(totals.charged_micros)} from {totals.first_day} to {totals.last_day} (UTC)."
    )
    return Answer(data=plain(totals), lines=lines)


@usage.command()
@click.option(
    "--limit", "-l", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many."
)
@click.option(
    "--days", "-d", type=_DAYS, default=_DEFAULT_DAYS, show_default=True, help="How many days back."
)
@with_client
def history(client: Client, *, limit: int, days: int) -> Answer:
    """List charges one by one, newest first."""
    from oanim.cli.messages import plain, time
    from oanim.cli.paging import items

    since = datetime.now(UTC) - timedelta(days=days)
    records = items(client.list_usage, "records", limit=limit, since=since)
    rows = [
        (
            time(record.at),
            record.provider or "-",
            record.model or "-",
            record.category or "-",
            dollars(record.charged_micros),
        )
        for record in records
    ]
    titles = ("Time (UTC)", "Provider", "Model", "Category", "Cost")
    return Answer(
        data={"records": [plain(record) for record in records]},
        lines=table(titles, rows, right=(4,)) if rows else [f"Nothing was charged in {days} days."],
    )
