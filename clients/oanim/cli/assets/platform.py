"""Has work done by the service, which holds the price, runs the work to its end and charges it.

Once the service has said `accepted`, nothing that happens here loses the work: every way out names its id.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from oanim.calls import generation as calls
from oanim.cli import attempts, credentials
from oanim.cli.assets.files import Named, how_to_get, misnamed
from oanim.cli.assets.work import Quote
from oanim.cli.attempts import Attempt
from oanim.cli.billing.balance import low_balance
from oanim.cli.failures import AWAY, INTERRUPTED, Failure
from oanim.cli.messages import plain
from oanim.cli.money import dollars
from oanim.cli.placing import whole
from oanim.cli.repeating import unknown
from oanim.cli.showing import Answer
from oanim.errors import OanimError, OutputGone
from oanim.retries import Attempts, Deadline
from openanimate.metering.v1.generate_service_pb2 import GenerationState
from openanimate.metering.v1.reservation_pb2 import SpendScope

if TYPE_CHECKING:
    from pathlib import Path
    from typing import TypeAlias

    from oanim.calls.call import StreamedCall
    from oanim.cli.assets.files import Destination
    from oanim.cli.assets.work import Asked, Work
    from oanim.cli.progress import Progress
    from oanim.cli.session import Session
    from oanim.client import Client
    from openanimate.metering.v1.generate_service_pb2 import (
        GenerateResponse,
        Generation,
        GenerationCancelled,
        GenerationFailed,
        GenerationSucceeded,
    )

    _Ended: TypeAlias = GenerationSucceeded | GenerationFailed | GenerationCancelled

_POLL_S = 1.0
# How long the service may be away while the work runs before we give up watching it.
_PATIENCE_S = 120.0
_RUNNING = (GenerationState.GENERATION_STATE_QUEUED, GenerationState.GENERATION_STATE_RUNNING)


class Platform:
    """The service, through an open client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def quote(self, asked: Asked) -> Quote:
        """Ask the service for the price."""
        answer = self._client.quote(model=asked.model, input_json=asked.quotable_input())
        return Quote(answer.amount_micros, plain(answer))

    def make(self, work: Work, session: Session, progress: Progress) -> Answer:
        """Have the work done, and download what it made."""
        attempt, is_new = self._attempt(work, session, progress)
        given = work.key_is_given
        with (
            attempts.ended(attempt, is_new=is_new, key_is_given=given),
            attempts.refused_again(key_is_given=given),
        ):
            ended, replayed = self._generate(work, attempt, progress)
        files = self._delivered(ended.generation, work.destination, progress)
        generation, wallet = ended.generation, ended.wallet
        return Answer(
            data={
                "generation": plain(generation),
                "files": [str(path) for path in files],
                "wallet": plain(wallet),
                "replayed": replayed,
            },
            lines=[
                *map(str, files),
                f"Charged {dollars(generation.charged_micros)}, {dollars(wallet.available_micros)} is left.",
                f"Generation {generation.generation_id}",
            ],
            notes=[*_notes(generation, files), *low_balance(wallet)],
            if_unread=f"Generation {generation.generation_id} is made and charged.",
        )

    def get(self, generation_id: str, destination: Destination, progress: Progress) -> Answer:
        """Wait for a generation to end, and download what it made."""
        try:
            generation = self._client.get_generation(generation_id=generation_id).generation
            while generation.state in _RUNNING:
                queued = generation.state == GenerationState.GENERATION_STATE_QUEUED
                progress.now("queued" if queued else "working")
                time.sleep(_POLL_S)
                generation = self._looked_at(generation_id, destination, progress)
        except KeyboardInterrupt:
            raise _detached("interrupted", generation_id, destination) from None
        files = self._delivered(generation, destination, progress)
        return Answer(
            data={"generation": plain(generation), "files": [str(path) for path in files]},
            lines=[
                *map(str, files),
                f"It was charged {dollars(generation.charged_micros)} when it was made.",
            ],
            notes=_notes(generation, files),
        )

    def _looked_at(self, generation_id: str, destination: Destination, progress: Progress) -> Generation:
        """Look at work that goes on, again and again while the service is away."""
        looking = Attempts(Deadline(math.inf))
        while True:
            try:
                return self._client.get_generation(generation_id=generation_id).generation
            except OanimError as error:
                pause_s = looking.pause_before_repeating_s(error)
                if pause_s is None:
                    error.add_note(f"The work goes on. {how_to_get(generation_id, destination)}")
                    raise
                if (silent_s := looking.failing_for_s()) > _PATIENCE_S:
                    why = f"the service has not answered for {silent_s:.0f} s"
                    raise _detached(why, generation_id, destination, AWAY) from error
            progress.now("the service does not answer; asking again")
            time.sleep(pause_s)

    def _attempt(self, work: Work, session: Session, progress: Progress) -> tuple[Attempt, bool]:
        """Find what the key stands for; True when it stands for nothing yet, and that is noted.

        Before the work is asked for: from then on a repetition has to name the same session and uploads.
        """
        name = attempts.name_of(work.key, api_key=credentials.api_key(), api_url=credentials.api_url())
        known = attempts.known(name)
        attempt = known or Attempt(name, session)
        missing = [picture for picture in work.asked.pictures if picture.digest not in attempt.uploads]
        for picture in missing:
            progress.now(f"uploading {picture.path}")
            attempt.uploads[picture.digest] = self._client.upload_input(content=picture.path).upload_id
        if known is None or missing:
            attempts.remember(attempt)
        return attempt, known is None

    def _generate(self, work: Work, attempt: Attempt, progress: Progress) -> tuple[_Ended, bool]:
        """Follow the work to its last message, and say whether it was started by an earlier command."""
        accepted: Generation | None = None
        replayed = False

        def ask_again(_: OanimError, silent_s: float) -> None:
            if silent_s > _PATIENCE_S and accepted is not None:
                why = f"the service has not answered for {silent_s:.0f} s"
                raise _detached(why, accepted.generation_id, work.destination, AWAY)
            progress.now("the service does not answer; asking again")

        # Of a stream that is taken up again even a second `accepted` is news: the service answers again.
        call = replace(_call(work, attempt), is_news=lambda *_: True, on_break=ask_again)
        try:
            for report in self._client.connection.stream(call):
                if accepted is None:
                    accepted, replayed = report.accepted.generation, report.accepted.replayed
                    progress.note(_accepted(accepted))
                elif (ended := _last_word(report)) is not None:
                    return ended, replayed
                else:
                    progress.now(_said(report))
        except KeyboardInterrupt:
            if accepted is None:
                raise Failure(f"interrupted. {unknown(work.key)}", INTERRUPTED) from None
            raise _detached("interrupted", accepted.generation_id, work.destination) from None
        except OanimError as error:
            _note_next_step(error, work, accepted)
            raise
        if accepted is None:
            raise Failure(f"the service said nothing. {unknown(work.key)}")
        raise Failure(
            "the service ended its report before the work. "
            f"{how_to_get(accepted.generation_id, work.destination)}"
        )

    def _delivered(self, generation: Generation, destination: Destination, progress: Progress) -> list[Path]:
        """Download what a generation made, or fail as it did."""
        if generation.state == GenerationState.GENERATION_STATE_CANCELLED:
            raise Failure(f"generation {generation.generation_id} was cancelled. Nothing was charged.")
        if generation.state != GenerationState.GENERATION_STATE_SUCCEEDED:
            said = generation.failure.message.rstrip(". ") or "the provider does not say why"
            raise Failure(f"the model made nothing: {said}. Nothing was charged.")
        files = destination.paths(generation.generation_id, _kinds(generation))
        try:
            for output, path in zip(generation.outputs, files, strict=True):
                progress.now(f"downloading {path}")
                self._download(generation.generation_id, output.index, path)
        except KeyboardInterrupt:
            raise Failure(
                f"interrupted. {how_to_get(generation.generation_id, destination)}", INTERRUPTED
            ) from None
        except OutputGone as error:
            error.add_note(f"It was charged {dollars(generation.charged_micros)} when it was made.")
            raise
        except (OanimError, OSError, Failure) as error:
            error.add_note(f"It is made and charged. {how_to_get(generation.generation_id, destination)}")
            raise
        return files

    def _download(self, generation_id: str, index: int, path: Path) -> None:
        with whole(path) as file:
            size = received = 0
            for message in self._client.download_output(generation_id=generation_id, index=index):
                size = size or message.size_bytes
                received += file.write(message.chunk)
            if size and received != size:
                raise Failure(f"the download broke off after {received} of {size} bytes.")


def _call(work: Work, attempt: Attempt) -> StreamedCall[GenerateResponse]:
    references = [f"upload:{attempt.uploads[picture.digest]}" for picture in work.asked.pictures]
    scope = SpendScope(scope=attempt.session.scope, limit_micros=attempt.session.limit_micros)
    return calls.generate(
        model=work.asked.model,
        input_json=work.asked.write_input(references),
        idempotency_key=work.key,
        spend_scopes=[scope],
    )


def _last_word(report: GenerateResponse) -> _Ended | None:
    for event in ("succeeded", "failed", "cancelled"):
        if report.HasField(event):
            ended: _Ended = getattr(report, event)
            return ended
    return None


def _kinds(generation: Generation) -> list[Named]:
    return [Named(output.content_type, output.file_name) for output in generation.outputs]


def _accepted(generation: Generation) -> str:
    return f"accepted as {generation.generation_id}, {dollars(generation.quoted_micros)} held"


def _said(report: GenerateResponse) -> str:
    if report.HasField("queued"):
        return f"queue position {report.queued.position}"
    return report.progress.message or "working"


def _note_next_step(error: OanimError, work: Work, accepted: Generation | None) -> None:
    if accepted is not None:
        error.add_note(f"The work goes on. {how_to_get(accepted.generation_id, work.destination)}")
    elif error.outcome_unknown:
        error.add_note(unknown(work.key))


def _detached(
    why: str, generation_id: str, destination: Destination, exit_code: int = INTERRUPTED
) -> Failure:
    return Failure(f"{why}; the work goes on. {how_to_get(generation_id, destination)}", exit_code)


def _notes(generation: Generation, files: list[Path]) -> list[str]:
    notes = misnamed(files, _kinds(generation)) if generation.outputs else ["the model made no file."]
    return [*notes, "a sandbox made this, not the model."] if generation.sandbox else notes
