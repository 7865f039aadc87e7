"""Generation's front: work is asked for, followed, listed, cancelled, and its files travel.

A generation has the id of the reservation that holds its price.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

from oanim_server.generation import rows
from oanim_server.generation.counts import Counts
from oanim_server.generation.downloads import Downloads
from oanim_server.generation.following import events
from oanim_server.generation.inputs import canonical, checked_uploads
from oanim_server.generation.opening import Opening, number_of
from oanim_server.generation.runner import Runner
from oanim_server.generation.steps import Steps
from oanim_server.generation.uploads import Uploads
from oanim_server.generation.values import TIMES, Accepted, Times
from oanim_server.generation.worker import Worker
from oanim_server.ledger.operations import Refused, Reserve
from oanim_server.ledger.refusals import NotFound, Refusal
from oanim_server.ledger.tasks import Kept
from oanim_server.ledger.values import SERVER, Method
from oanim_server.ledger.watching import Hub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    from oanim_models.fal import FalQueue
    from oanim_server.database.engine import Database
    from oanim_server.generation.values import Asked, Event, Generation, Piece, Upload
    from oanim_server.ledger.ledger import Ledger
    from oanim_server.ledger.values import Outcome
    from oanim_server.pricing.prices import Prices

# The hub knows what is watched by one number.
_NUMBER_BITS = 64
# How long a stop waits for holds that are being opened: a database that hangs must not keep it.
_OPENING_SECONDS = 2.0


class Generations:
    """The generations of every account, and the jobs of this process.

    :param queue: the provider, None where there is no key for it; whoever made it closes it.
    :param uploads_folder: where uploaded inputs are kept, shared by all replicas.
    :param output_hosts: names of hosts that outputs may be read from, subdomains included.
    :param provider_url: the provider's address; on loopback, outputs may be read from it too.
    :param limit: how many generations of one account run at once.
    """

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        prices: Prices,
        queue: FalQueue | None,
        *,
        uploads_folder: Path,
        output_hosts: tuple[str, ...],
        provider_url: str,
        limit: int = 20,
        times: Times = TIMES,
    ) -> None:
        alone = database.dialect == "sqlite"
        self.counts = Counts()
        self._database = database
        self._ledger = ledger
        self._prices = prices
        self._configured = queue is not None
        self._limit = limit
        self._times = times
        self._uploads = Uploads(uploads_folder, database, ledger)
        self._downloads = Downloads(hosts=output_hosts, provider_url=provider_url)
        self._hub = Hub(None if alone else self._look)
        steps = Steps(ledger, self._uploads, lambda key: self._hub.wake([_watched(*key)]), times=times)
        worker = Worker(queue, steps, database, self._uploads, self.counts)
        self._runner = Runner(
            database,
            ledger,
            steps=steps,
            worker=worker,
            uploads=self._uploads,
            counts=self.counts,
            times=times,
            alone=alone,
            workable=self._configured,
        )
        self._opening = Kept()

    async def start(self) -> None:
        """Take over the jobs that a former life left, and begin to work."""
        await self._runner.start()

    async def quieten(self) -> None:
        """Begin no more work; returns when no paid request is on its way. Who follows work may go then."""
        await self._runner.quieten()

    async def stop(self, grace_seconds: float) -> None:
        """Hand the jobs over; after the calls have ended, before the ledger stops.

        :param grace_seconds: how long paid requests that are on their way may still take to be answered.
        """
        await self._opening.wait(_OPENING_SECONDS)
        await self._runner.stop(grace_seconds)
        await self._hub.close()
        await self._downloads.aclose()

    # Work -----------------------------------------------------------------------------------------

    async def generate(self, asked: Asked) -> Accepted:
        """Hold the price of a piece of work and begin it; the same again attaches to the first.

        Raises what Reserve does, UnknownModel, InvalidField, ProviderNotConfigured, TooManyGenerations.
        """
        reserve = await self._reserve(asked)
        # A caller that hangs up now must not leave a hold whose job nobody has begun.
        outcome = await self._opening.do(self._open(reserve))
        generation = await self.get(asked.account_id, number_of(outcome))
        return Accepted(generation, outcome.wallet, outcome.replayed)

    async def follow(self, generation: Generation) -> AsyncGenerator[Event]:
        """What happens to a generation, to its end. Who stops following changes nothing."""
        snapshots = self.watch(generation.wallet_id, generation.number)
        async with aclosing(snapshots):
            async for event in events(snapshots):
                yield event

    async def watch(self, wallet_id: int, number: int) -> AsyncGenerator[Generation]:
        """A generation now and after every change, to its end; NotFound."""
        with self._hub.watching(_watched(wallet_id, number)) as changed:
            shown = -1
            while True:
                changed.clear()
                generation = await self.get(wallet_id, number)
                if generation.revision != shown:
                    shown = generation.revision
                    yield generation
                if generation.ended:
                    return
                await changed.wait()

    async def get(self, wallet_id: int, number: int) -> Generation:
        """One generation now; NotFound."""
        query = partial(rows.generation, wallet_id=wallet_id, number=number)
        generation = await self._database.read(query)
        if generation is None:
            raise NotFound(what="generation")
        return generation

    async def page(self, wallet_id: int, *, before: int | None, limit: int) -> list[Generation]:
        """Generations below a number, newest first; NotFound for no account."""
        await self._ledger.wallet(wallet_id)
        query = partial(rows.page, wallet_id=wallet_id, before=before, limit=limit)
        return await self._database.read(query)

    async def cancel(self, wallet_id: int, number: int) -> Generation:
        """Stop a generation that the provider was not given, or note the wish; NotFound."""
        await self.get(wallet_id, number)
        cancel = partial(
            rows.cancel, lease=self._times.lease, owner=self._runner.owner, wallet_id=wallet_id, number=number
        )
        job = await self._ledger.write(cancel)
        self._hub.wake([_watched(wallet_id, number)])
        settling = self._runner.take(job) if job else None
        if settling:
            await asyncio.wait([settling])
        return await self.get(wallet_id, number)

    # Files ----------------------------------------------------------------------------------------

    async def receive(self, account_id: int, chunks: AsyncIterator[bytes]) -> Upload:
        """Keep an input. Raises InvalidField, InputTooLarge, UploadsFull."""
        return await self._uploads.receive(account_id, chunks)

    async def sweep_uploads(self) -> None:
        """Remove inputs that are past their time; it happens by itself while this runs."""
        await self._uploads.sweep()

    async def read_output(self, wallet_id: int, number: int, index: int) -> AsyncGenerator[Piece]:
        """One output of a generation. Raises NotFound, OutputGone, OutputUnavailable, OutputElsewhere."""
        generation = await self.get(wallet_id, number)
        if not 0 <= index < len(generation.outputs):
            raise NotFound(what="output")
        pieces = self._downloads.read(generation.outputs[index])
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    # Inside ---------------------------------------------------------------------------------------

    async def _reserve(self, asked: Asked) -> Reserve:
        """The hold of a piece of work, with its job; what cannot be priced is refused at its turn."""
        hold = partial(
            Reserve,
            wallet_id=asked.account_id,
            caller=asked.account_id,
            idempotency_key=asked.idempotency_key,
            asked=canonical(asked.model, asked.input_json),
            opener=SERVER,
            api_key_id=asked.api_key_id,
            ttl=None,
            spend_scopes=asked.spend_scopes,
            labels=asked.labels,
            method=Method.GENERATE,
        )
        upload_ids = checked_uploads(asked.input_json)
        try:
            quote = await self._prices.quote_input(asked.model, asked.input_json)
        except Refusal as refusal:
            return hold(amount_micros=1, companion=Refused(refusal))
        opening = Opening(
            wallet_id=asked.account_id,
            line=quote.line,
            endpoint=quote.price.endpoint,
            input_json=asked.input_json,
            upload_ids=upload_ids,
            owner=self._runner.owner,
            provider_configured=self._configured,
            limit=self._limit,
            times=self._times,
        )
        return hold(amount_micros=quote.amount_micros, line=quote.line, companion=opening)

    async def _open(self, reserve: Reserve) -> Outcome:
        outcome = await self._ledger.submit(reserve)
        opening = reserve.companion
        if isinstance(opening, Opening) and opening.job is not None and not outcome.replayed:
            self.counts.started += 1
            self._runner.take(opening.job)
        return outcome

    async def _look(self, watched: list[int]) -> list[tuple[int, int]]:
        keys = {divmod(number, 1 << _NUMBER_BITS) for number in watched}
        found = await self._database.read(partial(rows.revisions, keys=keys))
        return [(_watched(wallet_id, number), revision) for wallet_id, number, revision in found]


def _watched(wallet_id: int, number: int) -> int:
    return wallet_id << _NUMBER_BITS | number
