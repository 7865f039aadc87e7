"""RenderService's messages: the shape of what users and workers say, and renders as they are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from oanim_server.ledger.refusals import InvalidField
from oanim_server.rendering.values import (
    MAX_BUNDLE_BYTES,
    MAX_VIDEO_BYTES,
    Claim,
    Codec,
    Lease,
    Render,
    Spec,
    Submission,
)
from oanim_server.rpc import messages, shape, uploads
from openanimate.metering.v1 import render_service_pb2 as pb
from openanimate.metering.v1.error_reason_pb2 import ErrorReason

if TYPE_CHECKING:
    from oanim_server.rpc.call import Call

MAX_SIDE = 7_680
MIN_SIDE = 16
MAX_FPS = 120
MAX_FRAMES = 1_000_000
MAX_COMPOSITION_BYTES = 128
MAX_PROPS_BYTES = 65_536
MAX_WAIT_SECONDS = 30
MAX_WORDS_BYTES = 1_000
WHAT = "render"

_CODECS = {codec.value: codec for codec in Codec}
_SPEC = "submission.spec"


# Requests -------------------------------------------------------------------------------------------


def submission(asked: pb.RenderSubmission, call: Call) -> Submission:
    """What a user wants rendered."""
    key = shape.text("submission.idempotency_key", asked.idempotency_key, shape.MAX_KEY_BYTES)
    return Submission(
        account_id=call.caller.account_id,
        api_key_id=call.caller.key_id,
        idempotency_key=key,
        spec=_spec_asked(asked.spec),
        bundle_bytes=uploads.size_bytes("submission.bundle_bytes", asked.bundle_bytes, MAX_BUNDLE_BYTES),
        bundle_sha256=uploads.sha256("submission.bundle_sha256", asked.bundle_sha256),
        spend_scopes=shape.spend_scopes(asked.spend_scopes, "submission."),
        labels=shape.labels(asked.labels, "submission."),
    )


def _spec_asked(asked: pb.RenderSpec) -> Spec:
    return Spec(
        composition=shape.text(f"{_SPEC}.composition", asked.composition, MAX_COMPOSITION_BYTES),
        width=_side(f"{_SPEC}.width", asked.width),
        height=_side(f"{_SPEC}.height", asked.height),
        fps=whole(f"{_SPEC}.fps", asked.fps, 1, MAX_FPS),
        frames=whole(f"{_SPEC}.frames", asked.frames, 1, MAX_FRAMES),
        codec=shape.one_of(f"{_SPEC}.codec", asked.codec, _CODECS),
        props_json=shape.text(f"{_SPEC}.props_json", asked.props_json, MAX_PROPS_BYTES, least=0),
    )


def _side(field: str, value: int) -> int:
    side = whole(field, value, MIN_SIDE, MAX_SIDE)
    if side % 2:
        raise InvalidField(field=field, description=f"it is {side} and must be even")
    return side


def whole(field: str, value: int, least: int, most: int) -> int:
    """A whole number within its range."""
    if not least <= value <= most:
        raise InvalidField(field=field, description=f"it is {value} and must be from {least} to {most:,}")
    return value


def claim(field: str, render_id: str, epoch: int, call: Call) -> Claim:
    """The lease that a worker says it has; `field` is where the epoch stands."""
    if epoch < 1:
        raise InvalidField(field=field, description=f"it is {epoch} and must be a lease's")
    return Claim(*call.reservation(render_id, WHAT), epoch, call.caller.account_id)


def video_bytes(asked: pb.RenderCompletion) -> int:
    """How long a video is said to be."""
    return uploads.size_bytes("completion.video_bytes", asked.video_bytes, MAX_VIDEO_BYTES)


# Answers --------------------------------------------------------------------------------------------


def render(found: Render) -> pb.Render:
    """A render."""
    failure = found.failure
    return pb.Render(
        render_id=messages.reservation_text(*found.key),
        account_id=messages.account_text(found.wallet_id),
        spec=_spec(found.spec),
        state=cast("pb.RenderState.ValueType", found.state.value),
        quoted_micros=found.quoted_micros,
        charged_micros=found.charged_micros,
        frames_done=found.frames_done,
        attempts=found.attempts,
        queue_position=found.queue_position,
        failure=failure
        and pb.RenderFailure(
            reason=ErrorReason.Value(f"ERROR_REASON_{failure.reason}"), message=failure.message
        ),
        created_at=messages.timestamp(found.created_at),
        finished_at=messages.maybe_timestamp(found.finished_at),
        video_bytes=found.video.size_bytes if found.video else 0,
        video_expires_at=messages.maybe_timestamp(found.video_expires_at),
        labels=found.labels,
    )


def lease(found: Lease) -> pb.RenderLease:
    """A lease."""
    return pb.RenderLease(
        render_id=messages.reservation_text(*found.claim.key),
        account_id=messages.account_text(found.claim.wallet_id),
        epoch=found.claim.epoch,
        spec=_spec(found.spec),
        bundle_bytes=found.bundle_bytes,
        bundle_sha256=found.bundle_sha256,
        expires_at=messages.timestamp(found.expires_at),
        time_limit_seconds=found.time_limit // 1_000_000,
        attempt=found.attempt,
    )


def _spec(spec: Spec) -> pb.RenderSpec:
    return pb.RenderSpec(
        composition=spec.composition,
        width=spec.width,
        height=spec.height,
        fps=spec.fps,
        frames=spec.frames,
        codec=cast("pb.RenderCodec.ValueType", spec.codec.value),
        props_json=spec.props_json,
    )
