"""A refusal as a status with google.rpc details, the way every client reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import (  # type: ignore[import-untyped]
    BadRequest,
    ErrorInfo,
    PreconditionFailure,
    RetryInfo,
)
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from grpc import StatusCode

from oanim_server.ledger.refusals import (
    BlockedLimit,
    BlockedScope,
    LimitExceeded,
    NotYourHold,
    SpendLimitExceeded,
)
from oanim_server.rpc.refusals import TABLE, Row, blocked_limit, blocked_scope, opener
from openanimate.metering.v1 import wallet_service_pb2 as pb
from openanimate.metering.v1.error_reason_pb2 import ErrorReason

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from oanim_server.ledger.refusals import Refusal

DOMAIN = "open-animate.com"
DETAILS = "grpc-status-details-bin"
RETRY_SECONDS = 1.0


class Answer(NamedTuple):
    """What a refused call gets: arguments of `context.abort`."""

    code: StatusCode
    message: str
    trailing: tuple[tuple[str, bytes], ...]


def answer(refusal: Refusal) -> Answer:
    """The status of a refusal of a class that has a row."""
    row = TABLE[type(refusal)]
    message = row.sentence(refusal)
    status = Status(code=row.code.value[0], message=message)
    info = ErrorInfo(reason=row.reason, domain=DOMAIN, metadata=_metadata(refusal, row))
    details: list[Message] = [info, *_more(refusal, row, message)]
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return Answer(row.code, message, ((DETAILS, status.SerializeToString()),))


def in_stream(refusal: Refusal) -> pb.Refusal:
    """A refusal of one operation of a stream, whole: what a unary call would have failed with.

    :raises Refusal: of a class that has no row: a fault of ours, which ends the stream.
    """
    row = TABLE.get(type(refusal))
    if row is None:
        raise refusal
    _, message, ((_, status),) = answer(refusal)
    return pb.Refusal(
        reason=ErrorReason.Value(f"ERROR_REASON_{row.reason}"),
        message=message,
        metadata=_metadata(refusal, row),
        status=status,
    )


def _metadata(refusal: Refusal, row: Row) -> dict[str, str]:
    metadata = {name: str(getattr(refusal, name)) for name in row.fields}
    if isinstance(refusal, NotYourHold):
        metadata["opened_by"] = opener(refusal.opened_by)
    first: BlockedScope | BlockedLimit | None = None
    if isinstance(refusal, SpendLimitExceeded) and refusal.blocked:
        first = refusal.blocked[0]
    if isinstance(refusal, LimitExceeded) and refusal.limits:
        first = refusal.limits[0]
    if first is not None:
        metadata = {name: str(getattr(first, name)) for name in first.__dataclass_fields__}
    if refusal.wallet_seq is not None:
        metadata["wallet_seq"] = str(refusal.wallet_seq)
    return metadata


def _more(refusal: Refusal, row: Row, message: str) -> list[Message]:
    """What goes with the ErrorInfo."""
    if row.code is StatusCode.INVALID_ARGUMENT:
        field = getattr(refusal, "field", "model")
        violation = BadRequest.FieldViolation(
            field=field, description=getattr(refusal, "description", message), reason=row.reason
        )
        return [BadRequest(field_violations=[violation])]
    if isinstance(refusal, SpendLimitExceeded | LimitExceeded):
        return [PreconditionFailure(violations=_violations(refusal))]
    if row.retry:
        retry = RetryInfo()
        retry.retry_delay.FromNanoseconds(
            int(getattr(refusal, "retry_after_seconds", RETRY_SECONDS) * 1_000_000_000)
        )
        return [retry]
    return []


def _violations(refusal: SpendLimitExceeded | LimitExceeded) -> list[Message]:
    """One for each limit and spend scope that blocks."""
    limits = refusal.limits if isinstance(refusal, LimitExceeded) else []
    found = [("LIMIT_EXCEEDED", f"{limit.subject} {limit.period}", blocked_limit(limit)) for limit in limits]
    found += [("SPEND_LIMIT_EXCEEDED", scope.scope, blocked_scope(scope)) for scope in refusal.blocked]
    return [
        PreconditionFailure.Violation(type=reason, subject=subject, description=f"{sentence}.")
        for reason, subject, sentence in found
    ]
