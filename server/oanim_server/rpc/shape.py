"""The shape of requests: what each field may hold, whatever the business.

Every check names its field in the refusal and returns the value as the capabilities take it.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, TypeVar

from oanim_server.ledger.refusals import InvalidField
from oanim_server.ledger.values import DEFAULT_TTL, MAX_AMOUNT_MICROS, MAX_QUANTITY, SECOND, Scope

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

    from openanimate.metering.v1.reservation_pb2 import SpendScope

T = TypeVar("T")

MAX_KEY_BYTES = 255
MAX_MODEL_BYTES = 128
MAX_INPUT_BYTES = 65_536
MAX_TTL_SECONDS = 86_400
MAX_SCOPES = 4
MAX_LABELS = 8
MAX_PAGE = 1_000
DEFAULT_PAGE = 100
# The largest that both databases take.
_MAX_NUMBER = 2**63 - 1
_MAX_OFFSET = 2**31 - 1

_EPOCH_DAY = date(1970, 1, 1).toordinal()
_FIRST_DAY = date.min.toordinal() - _EPOCH_DAY
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
# What Timestamp may hold: the years 1 to 9999.
_FIRST_SECOND = -62_135_596_800
_LAST_SECOND = 253_402_300_799


def text(field: str, value: str, most: int, *, least: int = 1) -> str:
    """A text of so many bytes, without NUL."""
    if not least <= len(value.encode()) <= most or "\0" in value:
        raise InvalidField(field=field, description=f"it must have {least} to {most} bytes and no NUL")
    return value


def idempotency_key(value: str) -> str:
    """1 to 255 bytes."""
    return text("idempotency_key", value, MAX_KEY_BYTES)


def amount(field: str, value: int, *, least: int = 1) -> int:
    """Micro-USD."""
    if not least <= value <= MAX_AMOUNT_MICROS:
        raise InvalidField(
            field=field, description=f"it is {value} and must be from {least} to 10^12 micro-USD"
        )
    return value


def quantity(field: str, value: int, *, least: int = 1) -> int:
    """Units of a model's price."""
    if not least <= value <= MAX_QUANTITY:
        raise InvalidField(field=field, description=f"it is {value} and must be from {least} to 10^9")
    return value


def model(field: str, value: str) -> str:
    """The name of a model."""
    return text(field, value, MAX_MODEL_BYTES)


def reservation_ttl(seconds: int) -> int:
    """How long a reservation lasts, in microseconds; 0 is the default."""
    return ttl(seconds) or DEFAULT_TTL


def ttl(seconds: int) -> int | None:
    """A ttl in microseconds; None for 0."""
    if not 0 <= seconds <= MAX_TTL_SECONDS:
        raise InvalidField(
            field="ttl_seconds", description=f"it is {seconds} and must be from 1 to 86,400 seconds, or 0"
        )
    return seconds * SECOND or None


def capture(number: int) -> int:
    """The number of a capture; unset is the first."""
    if number < 0:
        raise InvalidField(field="capture", description=f"it is {number} and must be from 1")
    return number or 1


def chosen(field: str, which: str | None) -> str:
    """The member of a oneof that is set."""
    if which is None:
        raise InvalidField(field=field, description="one of its members must be set")
    return which


def spend_scopes(scopes: Sequence[SpendScope], within: str = "") -> tuple[Scope, ...]:
    """At most four scopes, no name twice; `within` is what the path of the field begins with."""
    if not scopes:
        return ()
    found: dict[str, Scope] = {}
    for index, scope in enumerate(scopes):
        field = f"{within}spend_scopes[{index}]"
        if index == MAX_SCOPES:
            raise InvalidField(
                field=f"{within}spend_scopes", description=f"there may be {MAX_SCOPES} at most"
            )
        name = text(f"{field}.scope", scope.scope, 64)
        if name in found:
            raise InvalidField(field=f"{field}.scope", description=f"{name} is named twice")
        limit = None
        if scope.HasField("limit_micros"):
            limit = amount(f"{field}.limit_micros", scope.limit_micros, least=0)
        found[name] = Scope(name, limit)
    return tuple(found.values())


def labels(given: Mapping[str, str], within: str = "") -> dict[str, str]:
    """At most eight labels; `within` is what the path of the field begins with."""
    if not given:
        return {}
    field = f"{within}labels"
    if len(given) > MAX_LABELS:
        raise InvalidField(field=field, description=f"there may be {MAX_LABELS} at most")
    return {
        text(field, name, 64): text(f"{field}[{name}]", value, 128, least=0) for name, value in given.items()
    }


def input_json(value: str) -> str:
    """A model's input; that it is an object is found by whoever reads it."""
    return text("input_json", value, MAX_INPUT_BYTES)


def page_size(asked: int) -> int:
    """How many to answer at most."""
    if not 0 <= asked <= MAX_PAGE:
        raise InvalidField(field="page_size", description=f"it is {asked} and must be from 1 to 1,000, or 0")
    return asked or DEFAULT_PAGE


def page_before(token: str) -> int | None:
    """The number that a page lies before; None for the first page."""
    return _page_number(token, _MAX_NUMBER) if token else None


def page_offset(token: str) -> int:
    """How many lie before a page, where nothing numbers them."""
    return _page_number(token, _MAX_OFFSET) if token else 0


def _page_number(token: str, most: int) -> int:
    try:
        number = base64.urlsafe_b64decode(token.encode("ascii") + b"==")
        if not number.isdigit() or page_token(int(number)) != token or int(number) > most:
            raise ValueError(token)
    except (ValueError, binascii.Error):
        raise InvalidField(
            field="page_token", description="it is not the next_page_token of a former page"
        ) from None
    return int(number)


def page_token(last: int) -> str:
    """The token of the page that lies before a number."""
    return base64.urlsafe_b64encode(str(last).encode()).decode().rstrip("=")


def next_page(numbers: Sequence[int], limit: int) -> str:
    """The token after a page of which one row more than asked for was read; empty when it was the last."""
    return page_token(numbers[limit - 1]) if len(numbers) > limit else ""


def one_of(field: str, value: int, known: Mapping[int, T]) -> T:
    """The meaning of an enum's value; one that a newer contract has is not guessed."""
    if value not in known:
        raise InvalidField(field=field, description=f"{value} is not one of its values")
    return known[value]


def maybe_instant(field: str, request: Message) -> int | None:
    """A point in time that need not be given."""
    return instant(field, getattr(request, field)) if request.HasField(field) else None


def instant(field: str, value: Timestamp) -> int:
    """A point in time, in microseconds since 1970."""
    if not _FIRST_SECOND <= value.seconds <= _LAST_SECOND or not 0 <= value.nanos < 1_000_000_000:
        raise InvalidField(field=field, description="it is no point in time from the year 1 to 9999")
    return value.seconds * SECOND + value.nanos // 1_000


def days(first: str, last: str, default_span: int) -> tuple[int, int]:
    """A range of UTC days since 1970, both ends included; an empty end has its default."""
    to = _day("last_day", last) if last else datetime.now(UTC).date().toordinal() - _EPOCH_DAY
    since = _day("first_day", first) if first else max(to - default_span, _FIRST_DAY)
    if since > to:
        raise InvalidField(field="first_day", description="it is after the last day")
    return since, to


def day_text(day: int) -> str:
    """A day since 1970 as people write it."""
    return date.fromordinal(day + _EPOCH_DAY).isoformat()


def _day(field: str, value: str) -> int:
    try:
        if not _DAY.fullmatch(value):
            raise ValueError(value)
        return date.fromisoformat(value).toordinal() - _EPOCH_DAY
    except ValueError:
        raise InvalidField(field=field, description="it is no day such as 2026-11-23") from None
