"""Turns what grpc raises into the SDK's errors, by the google.rpc details that the server sent.

Nothing of grpc's own error goes further than here, except its status code.
"""

from __future__ import annotations

from typing import Protocol, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from oanim import errors
from oanim.errors import OanimError, Violation

_DOMAIN = "open-animate.com"
_DETAILS_KEY = "grpc-status-details-bin"
_NANOSECONDS_PER_SECOND = 1_000_000_000

_BY_REASON: dict[str, type[OanimError]] = {
    error.for_reason: error
    for error in vars(errors).values()
    if isinstance(error, type) and issubclass(error, OanimError) and error.for_reason
}
_BY_CODE: dict[grpc.StatusCode, type[OanimError]] = {
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
}
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_TIMED_OUT = "the server did not answer in time; whether the call took effect is unknown"


def class_of(reason: str) -> type[OanimError]:
    """Answer the class of a reason; OanimError for one that this version does not know."""
    return _BY_REASON.get(reason, OanimError)


def closed() -> OanimError:
    """Make the error of a call through a client that was closed."""
    return OanimError("this client is closed", code=grpc.StatusCode.FAILED_PRECONDITION)


class _Ended(Protocol):
    """What every error of grpc can be asked, be it sync or asyncio."""

    def code(self) -> grpc.StatusCode: ...

    def details(self) -> str | None: ...

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...] | None: ...


def error_of(failure: grpc.RpcError, *, idempotency_key: str = "") -> OanimError:
    """Read a failed call as one of the SDK's errors."""
    ended = cast("_Ended", failure)
    code = ended.code()
    message = ended.details() or code.name.lower().replace("_", " ")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        message = _TIMED_OUT
    return _error(code, message, _status(ended), idempotency_key)


def refusal_of(serialized: bytes, *, idempotency_key: str) -> OanimError:
    """Read the refusal of one operation of a stream, which is a status as a call would have ended with."""
    status = Status.FromString(serialized)
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    return _error(code, status.message, status, idempotency_key)


def timed_out(idempotency_key: str) -> OanimError:
    """Make the error of an operation that nobody waits for any longer."""
    return errors.DeadlineExceeded(
        _TIMED_OUT, code=grpc.StatusCode.DEADLINE_EXCEEDED, idempotency_key=idempotency_key
    )


def _error(code: grpc.StatusCode, message: str, status: Status, idempotency_key: str) -> OanimError:
    info, retry, bad_request, precondition = ErrorInfo(), RetryInfo(), BadRequest(), PreconditionFailure()
    for detail in status.details:
        for known in (info, retry, bad_request, precondition):
            detail.Unpack(known)
    reason = info.reason if info.domain == _DOMAIN else ""
    metadata = dict(info.metadata) if reason else {}
    fields = tuple(Violation(v.field, v.description, v.reason) for v in bad_request.field_violations)
    limits = tuple(Violation(v.subject, v.description, v.type) for v in precondition.violations)
    return _BY_REASON.get(reason, _BY_CODE.get(code, OanimError))(
        message,
        code=code,
        reason=reason,
        metadata=metadata,
        retry_after_s=_seconds(retry),
        violations=fields + limits,
        field=fields[0].subject if fields else metadata.get("field", ""),
        idempotency_key=idempotency_key,
    )


def _status(ended: _Ended) -> Status:
    for key, value in ended.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return Status.FromString(value)
            except DecodeError:
                break
    return Status()


def _seconds(retry: RetryInfo) -> float | None:
    if not retry.HasField("retry_delay"):
        return None
    seconds: float = retry.retry_delay.seconds + retry.retry_delay.nanos / _NANOSECONDS_PER_SECOND
    return seconds
