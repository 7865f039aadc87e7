"""A server's generations as a process of its own, to be killed at a step.

`python -m tests.generation.serving DIALECT WHERE FAL_URL FOLDER [ACCOUNT PROMPT...]` prints `ready`, then
`accepted NUMBER` for a generation of each prompt, whose key is the prompt; it works until it is killed.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from oanim_models import catalogue
from oanim_models.fal import FalQueue
from oanim_server.database.engine import Database
from oanim_server.generation.generations import Generations
from oanim_server.generation.values import Times
from oanim_server.ledger.ledger import Ledger
from oanim_server.ledger.values import SECOND
from oanim_server.pricing.prices import Prices
from tests.generation.house import asked

LEASE = 3 * SECOND


def say(line: str) -> None:
    """Tell the test."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main(dialect: str, where: str, url: str, folder: str, *job: str) -> None:
    """Serve."""
    if dialect == "sqlite":
        database = Database.open_sqlite(Path(where))
    else:
        database = Database.open_postgresql(where, unsafe=True)
    ledger = Ledger(database)
    ledger.start()
    prices = Prices(database, ledger)
    await prices.publish_file(catalogue.load())
    generations = Generations(
        database,
        ledger,
        prices,
        FalQueue(key="id:secret", url=url, answer_timeout_s=300.0),
        uploads_folder=Path(folder) / "uploads",
        output_hosts=(),
        provider_url=url,
        times=Times(lease=LEASE),
    )
    await generations.start()
    say("ready")

    async def begin(prompt: str) -> None:
        accepted = await generations.generate(asked(int(job[0]), prompt, prompt))
        say(f"accepted {accepted.generation.number}")

    await asyncio.gather(*map(begin, job[1:]))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
