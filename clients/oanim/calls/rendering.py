"""The calls of RenderService.

Files are named by their paths: what a stream begins with, length and SHA-256 of what it brings, is found out
here, and a file that arrives is compared with what was said of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from oanim.calls.call import Call, DownloadCall, StreamedCall, UploadCall, key_or_new
from openanimate.metering.v1.render_service_pb2 import (
    CancelRenderRequest,
    CancelRenderResponse,
    CompleteRenderRequest,
    CompleteRenderResponse,
    DownloadBundleRequest,
    DownloadBundleResponse,
    DownloadRenderRequest,
    DownloadRenderResponse,
    FailRenderRequest,
    FailRenderResponse,
    GetRenderRequest,
    GetRenderResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    LeaseRenderRequest,
    LeaseRenderResponse,
    ListRendersRequest,
    ListRendersResponse,
    RenderCompletion,
    RenderSpec,
    RenderSubmission,
    SubmitRenderRequest,
    SubmitRenderResponse,
    WatchRenderRequest,
    WatchRenderResponse,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from oanim.chunks import Measured, Rereadable
    from openanimate.metering.v1.reservation_pb2 import SpendScope

# A video has up to 2 GB, and what breaks off is sent again from its start.
_TRANSFER_TIMEOUT_S = 3600.0
_ANSWER_TIMEOUT_S = 30.0


def submit_render(
    *,
    bundle: Rereadable,
    spec: RenderSpec,
    idempotency_key: str | None = None,
    spend_scopes: Iterable[SpendScope] = (),
    labels: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> UploadCall[SubmitRenderResponse]:
    """Hold the quote of a spec and send the bundle, from a path, a file that can seek or bytes."""
    submission = RenderSubmission(
        spec=spec,
        idempotency_key=key_or_new(idempotency_key),
        spend_scopes=spend_scopes,
        labels=labels,
    )

    def first(bundle: Measured) -> SubmitRenderRequest:
        submission.bundle_bytes, submission.bundle_sha256 = bundle.size_bytes, bundle.sha256
        return SubmitRenderRequest(submission=submission)

    return UploadCall(
        "RenderService/SubmitRender",
        bundle,
        lambda chunk: SubmitRenderRequest(chunk=chunk),
        SubmitRenderResponse,
        _TRANSFER_TIMEOUT_S if timeout_s is None else timeout_s,
        first,
        submission.idempotency_key,
    )


def get_render(*, render_id: str, timeout_s: float | None = None) -> Call[GetRenderResponse]:
    """Answer one render as it stands now."""
    request = GetRenderRequest(render_id=render_id)
    return Call("RenderService/GetRender", request, GetRenderResponse, timeout_s)


def watch_render(*, render_id: str, timeout_s: float | None = None) -> StreamedCall[WatchRenderResponse]:
    """Answer a render now and after every change, across restarts of the server, until it has ended."""
    request = WatchRenderRequest(render_id=render_id)
    timeout_s = math.inf if timeout_s is None else timeout_s
    return StreamedCall("RenderService/WatchRender", request, WatchRenderResponse, timeout_s, _is_other_state)


def _is_other_state(former: WatchRenderResponse | None, message: WatchRenderResponse) -> bool:
    return message != former


def list_renders(
    *, account_id: str = "", page_size: int = 0, page_token: str = "", timeout_s: float | None = None
) -> Call[ListRendersResponse]:
    """List an account's renders, newest first."""
    request = ListRendersRequest(account_id=account_id, page_size=page_size, page_token=page_token)
    return Call("RenderService/ListRenders", request, ListRendersResponse, timeout_s)


def cancel_render(*, render_id: str, timeout_s: float | None = None) -> Call[CancelRenderResponse]:
    """Stop a render; the frames reported by then are charged, the rest is given back."""
    request = CancelRenderRequest(render_id=render_id)
    return Call("RenderService/CancelRender", request, CancelRenderResponse, timeout_s)


def download_render(
    *, render_id: str, path: str | os.PathLike[str], timeout_s: float | None = None
) -> DownloadCall[DownloadRenderResponse]:
    """Keep the video at a path, whole or not at all; answers what the server says of it."""
    request = DownloadRenderRequest(render_id=render_id)
    timeout_s = _TRANSFER_TIMEOUT_S if timeout_s is None else timeout_s
    return DownloadCall(
        "RenderService/DownloadRender", request, DownloadRenderResponse, timeout_s, target=path
    )


def lease_render(
    *, idempotency_key: str | None = None, wait_seconds: int = 0, timeout_s: float | None = None
) -> Call[LeaseRenderResponse]:
    """Take the oldest render that waits, to work on it; without one, wait so long for one."""
    request = LeaseRenderRequest(idempotency_key=key_or_new(idempotency_key), wait_seconds=wait_seconds)
    timeout_s = _ANSWER_TIMEOUT_S + wait_seconds if timeout_s is None else timeout_s
    return Call("RenderService/LeaseRender", request, LeaseRenderResponse, timeout_s)


def download_bundle(
    *,
    render_id: str,
    epoch: int,
    bundle_sha256: bytes,
    path: str | os.PathLike[str],
    timeout_s: float | None = None,
) -> DownloadCall[DownloadBundleResponse]:
    """Keep the bundle of a leased render at a path, whole or not at all."""
    request = DownloadBundleRequest(render_id=render_id, epoch=epoch)
    timeout_s = _TRANSFER_TIMEOUT_S if timeout_s is None else timeout_s
    return DownloadCall(
        "RenderService/DownloadBundle",
        request,
        DownloadBundleResponse,
        timeout_s,
        target=path,
        sha256=bundle_sha256,
    )


def heartbeat(
    *, render_id: str, epoch: int, frames: int, timeout_s: float | None = None
) -> Call[HeartbeatResponse]:
    """Keep a lease, and report how many frames its epoch has rendered in all."""
    request = HeartbeatRequest(render_id=render_id, epoch=epoch, frames=frames)
    return Call("RenderService/Heartbeat", request, HeartbeatResponse, timeout_s)


def complete_render(
    *, render_id: str, epoch: int, frames: int, video: Rereadable, timeout_s: float | None = None
) -> UploadCall[CompleteRenderResponse]:
    """Deliver the video of a leased render, which ends it and charges its frames."""
    completion = RenderCompletion(render_id=render_id, epoch=epoch, frames=frames)

    def first(video: Measured) -> CompleteRenderRequest:
        completion.video_bytes, completion.video_sha256 = video.size_bytes, video.sha256
        return CompleteRenderRequest(completion=completion)

    return UploadCall(
        "RenderService/CompleteRender",
        video,
        lambda chunk: CompleteRenderRequest(chunk=chunk),
        CompleteRenderResponse,
        _TRANSFER_TIMEOUT_S if timeout_s is None else timeout_s,
        first,
    )


def fail_render(
    *,
    render_id: str,
    epoch: int,
    message: str = "",
    handed_back: bool = False,
    timeout_s: float | None = None,
) -> Call[FailRenderResponse]:
    """End a lease without a video: the render failed, or is handed back untried."""
    request = FailRenderRequest(render_id=render_id, epoch=epoch, message=message, handed_back=handed_back)
    return Call("RenderService/FailRender", request, FailRenderResponse, timeout_s)
