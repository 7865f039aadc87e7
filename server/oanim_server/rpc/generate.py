"""GenerateService: the contract's words to generation, and its values back."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, cast

from oanim_server.generation.values import Accepted, Asked, Ended, Progress, Queued, Standing
from oanim_server.rpc import messages, shape
from openanimate.metering.v1 import generate_service_pb2 as pb
from openanimate.metering.v1.error_reason_pb2 import ErrorReason

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from oanim_server.generation.generations import Generations
    from oanim_server.generation.values import Event, Generation
    from oanim_server.rpc.call import Call

_WHAT = "generation"


class GenerateServicer:
    """Answers GenerateService."""

    def __init__(self, generations: Generations) -> None:
        self._generations = generations

    async def Generate(self, request: pb.GenerateRequest, call: Call) -> AsyncGenerator[pb.GenerateResponse]:
        accepted = await self._generations.generate(
            Asked(
                account_id=call.caller.account_id,
                api_key_id=call.caller.key_id,
                model=shape.model("model", request.model),
                input_json=shape.input_json(request.input_json),
                idempotency_key=shape.idempotency_key(request.idempotency_key),
                spend_scopes=shape.spend_scopes(request.spend_scopes),
                labels=shape.labels(request.labels),
            )
        )
        yield _response(accepted)
        async with aclosing(self._generations.follow(accepted.generation)) as events:
            async for event in events:
                yield _response(event)

    async def GetGeneration(self, request: pb.GetGenerationRequest, call: Call) -> pb.GetGenerationResponse:
        found = await self._generations.get(*call.reservation(request.generation_id, _WHAT))
        return pb.GetGenerationResponse(generation=_generation(found))

    async def ListGenerations(
        self, request: pb.ListGenerationsRequest, call: Call
    ) -> pb.ListGenerationsResponse:
        limit = shape.page_size(request.page_size)
        found = await self._generations.page(
            call.account(request.account_id), before=shape.page_before(request.page_token), limit=limit + 1
        )
        return pb.ListGenerationsResponse(
            generations=map(_generation, found[:limit]),
            next_page_token=shape.next_page([generation.number for generation in found], limit),
        )

    async def CancelGeneration(
        self, request: pb.CancelGenerationRequest, call: Call
    ) -> pb.CancelGenerationResponse:
        found = await self._generations.cancel(*call.reservation(request.generation_id, _WHAT))
        return pb.CancelGenerationResponse(generation=_generation(found))

    async def UploadInput(
        self, requests: AsyncIterator[pb.UploadInputRequest], call: Call
    ) -> pb.UploadInputResponse:
        chunks = (request.chunk async for request in requests)
        upload = await self._generations.receive(call.caller.account_id, chunks)
        return pb.UploadInputResponse(
            upload_id=upload.upload_id,
            content_type=upload.content_type,
            size_bytes=upload.size_bytes,
            expires_at=messages.timestamp(upload.expires_at),
        )

    async def DownloadOutput(
        self, request: pb.DownloadOutputRequest, call: Call
    ) -> AsyncGenerator[pb.DownloadOutputResponse]:
        wallet_id, number = call.reservation(request.generation_id, _WHAT)
        async with aclosing(self._generations.read_output(wallet_id, number, request.index)) as pieces:
            async for piece in pieces:
                yield pb.DownloadOutputResponse(
                    content_type=piece.content_type, size_bytes=piece.size_bytes, chunk=piece.chunk
                )


def _generation(found: Generation) -> pb.Generation:
    failure = found.failure
    return pb.Generation(
        generation_id=messages.reservation_text(found.wallet_id, found.number),
        account_id=messages.account_text(found.wallet_id),
        model=found.model,
        state=cast("pb.GenerationState.ValueType", found.standing.value),
        quoted_micros=found.quoted_micros,
        charged_micros=found.charged_micros,
        outputs=[
            pb.Output(index=index, content_type=output.content_type, file_name=output.file_name)
            for index, output in enumerate(found.outputs)
        ],
        failure=failure
        and pb.GenerationFailure(
            reason=ErrorReason.Value(f"ERROR_REASON_{failure.reason}"), message=failure.message
        ),
        created_at=messages.timestamp(found.created_at),
        finished_at=messages.maybe_timestamp(found.finished_at),
        sandbox=found.sandbox,
        cancel_requested=found.cancel_requested,
    )


# Events as messages ---------------------------------------------------------------------------------


def _response(event: Event) -> pb.GenerateResponse:
    return _RESPONSES[type(event)](event)


def _accepted(event: Accepted) -> pb.GenerateResponse:
    return pb.GenerateResponse(
        accepted=pb.GenerationAccepted(
            generation=_generation(event.generation),
            wallet=messages.wallet(event.wallet),
            replayed=event.replayed,
        )
    )


def _queued(event: Queued) -> pb.GenerateResponse:
    return pb.GenerateResponse(queued=pb.GenerationQueued(position=event.position))


def _progress(event: Progress) -> pb.GenerateResponse:
    return pb.GenerateResponse(progress=pb.GenerationProgress(message=event.message))


def _ended(event: Ended) -> pb.GenerateResponse:
    return _LAST[event.generation.standing](event.generation)


def _succeeded(found: Generation) -> pb.GenerateResponse:
    return pb.GenerateResponse(
        succeeded=pb.GenerationSucceeded(generation=_generation(found), wallet=messages.wallet(found.wallet))
    )


def _failed(found: Generation) -> pb.GenerateResponse:
    return pb.GenerateResponse(
        failed=pb.GenerationFailed(generation=_generation(found), wallet=messages.wallet(found.wallet))
    )


def _cancelled(found: Generation) -> pb.GenerateResponse:
    return pb.GenerateResponse(
        cancelled=pb.GenerationCancelled(generation=_generation(found), wallet=messages.wallet(found.wallet))
    )


_RESPONSES: dict[type[object], Callable[..., pb.GenerateResponse]] = {
    Accepted: _accepted,
    Queued: _queued,
    Progress: _progress,
    Ended: _ended,
}
_LAST: dict[Standing, Callable[[Generation], pb.GenerateResponse]] = {
    Standing.SUCCEEDED: _succeeded,
    Standing.FAILED: _failed,
    Standing.CANCELLED: _cancelled,
}
