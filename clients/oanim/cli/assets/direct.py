"""Has work done by fal.ai itself, with the caller's key: the service is not contacted, nor looked up.

fal.ai has no idempotency keys. What must not be bought twice is remembered here before it is sent.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from oanim.cli.assets import spending
from oanim.cli.assets.body import Body, fingerprint
from oanim.cli.assets.fetching import Gone, fetch, is_loopback
from oanim.cli.assets.files import Named, how_to_get, misnamed
from oanim.cli.assets.following import Following, lost
from oanim.cli.assets.work import Quote
from oanim.cli.failures import INTERRUPTED, USAGE, Failure
from oanim.cli.interruption import interruption
from oanim.cli.money import MAX_AMOUNT_MICROS, dollars
from oanim.cli.showing import Answer
from oanim_models import catalogue, fal, inputs
from oanim_models.quantities import InvalidInput, charge_micros, parse_input, quantity_of

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from oanim.cli.assets.files import Destination
    from oanim.cli.assets.work import Asked, Work
    from oanim.cli.progress import Progress
    from oanim.cli.session import Session


class Direct:
    """fal.ai's queue at `url` (empty: fal.ai's own), with a key that pays for it."""

    def __init__(self, key: str, *, url: str) -> None:
        self._key = key
        self._url = url or fal.DEFAULT_URL

    def quote(self, asked: Asked) -> Quote:
        """Price the work at the published prices; what fal.ai bills is fal.ai's business."""
        price, quantity, amount = _priced(asked)
        data = {"model": price.model, "amount_micros": amount, "quantity": quantity, "unit": price.unit}
        note = "this is the list price; fal.ai bills the work to you, at its own."
        return Quote(amount, {**data, "billed_by": "fal"}, notes=(note,))

    def make(self, work: Work, session: Session, progress: Progress) -> Answer:
        """Have the work done, once, and download what it made."""
        # Everything that could refuse has its say before anything is booked.
        price, _, amount = _priced(work.asked)
        body, queue = Body(work.asked), self._queue()
        job, is_new = spending.book(
            key=work.key,
            fingerprint=fingerprint(work.asked),
            model=price.model,
            amount_micros=amount,
            session=session,
        )
        if not is_new and not job.request_id:
            raise Failure(f"work with this --key was sent before, or is being sent now. {lost(job)}")
        following = Following(queue, job, progress)

        async def done() -> Answer:
            async with queue:
                if is_new:
                    await following.submit(price.endpoint, body)
                return await self._delivered(following, work.destination, progress)

        return _run(done(), following, work.destination)

    def get(self, generation_id: str, destination: Destination, progress: Progress) -> Answer:
        """Wait for a job that was sent before, and download what it made."""
        job = spending.find(generation_id)
        if job is None:
            raise Failure(
                f"no job {generation_id} was sent to fal.ai from here. "
                "For a generation of the service: unset ANIMATE_FAL_KEY"
            )
        queue = self._queue()
        following = Following(queue, job, progress)

        async def done() -> Answer:
            async with queue:
                return await self._delivered(following, destination, progress)

        return _run(done(), following, destination)

    def _queue(self) -> fal.FalQueue:
        try:
            return fal.FalQueue(key=self._key, url=self._url)
        except ValueError as error:
            raise Failure(f"{error}: see ANIMATE_FAL_KEY and ANIMATE_FAL_URL.", USAGE) from error

    async def _delivered(self, following: Following, destination: Destination, progress: Progress) -> Answer:
        """Wait for the job to end, and download what it made."""
        job = following.job
        progress.note(f"accepted as {job.request_id}")
        result = await following.result()
        try:
            outputs = inputs.outputs(result.output)
        except ValueError as error:
            raise Failure(f"fal.ai's result cannot be read: {error}") from error
        kinds = [Named(output.content_type, output.file_name) for output in outputs]
        files = destination.paths(job.request_id, kinds)
        for output, path in zip(outputs, files, strict=True):
            progress.now(f"downloading {path}")
            await fetch(output.url, path, from_loopback=is_loopback(self._url))
        return Answer(
            data={
                "request_id": job.request_id,
                "model": job.model,
                "files": [str(path) for path in files],
                "list_price_micros": job.charged_micros,
                "billed_by": "fal",
                "output": result.output,
            },
            lines=[
                *map(str, files),
                f"Billed to you by fal.ai; the list price is {dollars(job.charged_micros)}.",
                f"Job {job.request_id}",
            ],
            notes=_notes(result, files, kinds),
            if_unread=f"Job {job.request_id} is made, and fal.ai bills it.",
        )


def _run(done: Coroutine[None, None, Answer], following: Following, destination: Destination) -> Answer:
    job = following.job
    try:
        return asyncio.run(_cancelled_by_interruption(done))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise _interrupted(following, destination) from None
    except Gone as error:
        error.add_note("It was made, and fal.ai bills it all the same.")
        raise
    except (Failure, OSError) as error:
        if job.request_id and not following.has_failed:
            error.add_note(how_to_get(job.request_id, destination))
        raise


async def _cancelled_by_interruption(done: Coroutine[None, None, Answer]) -> Answer:
    """An exception in the middle of the event loop, or of what it calls, could be lost."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(done)
    with interruption.calls(lambda: loop.call_soon_threadsafe(task.cancel)):
        return await task


def _priced(asked: Asked) -> tuple[catalogue.Price, int, int]:
    """Price the work: the price, the quantity, and the amount in micro-USD."""
    prices = catalogue.load()
    try:
        price = prices.price(asked.model) or prices.fallback(asked.model)
        quantity = quantity_of(price, parse_input(asked.quotable_input()))
    except InvalidInput as error:
        raise Failure(f"{error}.", USAGE) from error
    amount = charge_micros(price.amount_micros, price.base_quantity, quantity)
    if amount > MAX_AMOUNT_MICROS:
        raise Failure(
            f"this would cost {dollars(amount)}, and {dollars(MAX_AMOUNT_MICROS)} is the most at once.", USAGE
        )
    return price, quantity, amount


def _notes(result: fal.Result, files: list[Path], kinds: list[Named]) -> list[str]:
    notes = misnamed(files, kinds) if files else ["the model made no file."]
    # Our own stand-in for fal.ai says so in its results.
    return [*notes, "a sandbox made this, not the model."] if result.output.get("sandbox") else notes


def _interrupted(following: Following, destination: Destination) -> Failure:
    job = following.job
    if job.request_id:
        said = f"interrupted; the work goes on. {how_to_get(job.request_id, destination)}"
    elif following.may_be_sent:
        said = f"interrupted. {lost(job)}"
    else:
        spending.forget(job)
        said = "interrupted; nothing was sent."
    return Failure(said, INTERRUPTED)
