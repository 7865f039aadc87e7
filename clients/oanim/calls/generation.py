"""The calls of GenerateService.

A generation goes on without its caller: taking its stream up again, with the same key, starts nothing new.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim.calls.call import Call, StreamedCall, UploadCall, key_or_new
from openanimate.metering.v1.generate_service_pb2 import (
    CancelGenerationRequest,
    CancelGenerationResponse,
    DownloadOutputRequest,
    DownloadOutputResponse,
    GenerateRequest,
    GenerateResponse,
    GetGenerationRequest,
    GetGenerationResponse,
    ListGenerationsRequest,
    ListGenerationsResponse,
    UploadInputRequest,
    UploadInputResponse,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from oanim.chunks import Content
    from openanimate.metering.v1.reservation_pb2 import SpendScope

# The server ends a generation after 24 hours.
_GENERATION_TIMEOUT_S = 24 * 3600.0
_TRANSFER_TIMEOUT_S = 600.0


def generate(
    *,
    model: str,
    input_json: str = "{}",
    idempotency_key: str | None = None,
    spend_scopes: Iterable[SpendScope] = (),
    labels: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> StreamedCall[GenerateResponse]:
    """Have a model make something and report until it has ended; the call is made at the first iteration."""
    request = GenerateRequest(
        model=model,
        input_json=input_json,
        idempotency_key=key_or_new(idempotency_key),
        spend_scopes=spend_scopes,
        labels=labels,
    )
    timeout_s = _GENERATION_TIMEOUT_S if timeout_s is None else timeout_s
    return StreamedCall(
        "GenerateService/Generate", request, GenerateResponse, timeout_s, _is_no_second_accepted
    )


def _is_no_second_accepted(former: GenerateResponse | None, message: GenerateResponse) -> bool:
    return former is None or message.WhichOneof("event") != "accepted"


def get_generation(*, generation_id: str, timeout_s: float | None = None) -> Call[GetGenerationResponse]:
    """Answer one generation as it stands now."""
    request = GetGenerationRequest(generation_id=generation_id)
    return Call("GenerateService/GetGeneration", request, GetGenerationResponse, timeout_s)


def list_generations(
    *, account_id: str = "", page_size: int = 0, page_token: str = "", timeout_s: float | None = None
) -> Call[ListGenerationsResponse]:
    """List an account's generations, newest first."""
    request = ListGenerationsRequest(account_id=account_id, page_size=page_size, page_token=page_token)
    return Call("GenerateService/ListGenerations", request, ListGenerationsResponse, timeout_s)


def cancel_generation(
    *, generation_id: str, timeout_s: float | None = None
) -> Call[CancelGenerationResponse]:
    """Stop a generation that the provider has not been given yet."""
    request = CancelGenerationRequest(generation_id=generation_id)
    return Call("GenerateService/CancelGeneration", request, CancelGenerationResponse, timeout_s)


def upload_input(*, content: Content, timeout_s: float | None = None) -> UploadCall[UploadInputResponse]:
    """Send a picture to work on, from a path, an open binary file, bytes or an iterable of bytes."""
    return UploadCall(
        "GenerateService/UploadInput",
        content,
        lambda chunk: UploadInputRequest(chunk=chunk),
        UploadInputResponse,
        _TRANSFER_TIMEOUT_S if timeout_s is None else timeout_s,
    )


def download_output(
    *, generation_id: str, index: int = 0, timeout_s: float | None = None
) -> StreamedCall[DownloadOutputResponse]:
    """Receive one output of a generation piece by piece; a download that breaks off is not taken up again."""
    request = DownloadOutputRequest(generation_id=generation_id, index=index)
    timeout_s = _TRANSFER_TIMEOUT_S if timeout_s is None else timeout_s
    return StreamedCall("GenerateService/DownloadOutput", request, DownloadOutputResponse, timeout_s)
