"""Turns the contract's messages into plain values for --json, in the contract's own words.

Numbers stay numbers (protobuf's own JSON makes text of an int64), enum values lose their prefix, times are
RFC 3339 in UTC, and a message or an optional field that is not set is null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from google.protobuf.timestamp_pb2 import Timestamp

if TYPE_CHECKING:
    from google.protobuf.message import Message


def plain(message: Message) -> dict[str, Any]:
    """Turn a message into a dictionary with every field of it."""
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields}


def word(enum: Any, number: int) -> str:
    """Name an enum's value as people do: RESERVATION_STATE_ACTIVE is `active`."""
    value = enum.values_by_number.get(number)
    if value is None:
        return str(number)
    shared = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return str(value.name.removeprefix(shared).lower())


def time(stamp: Timestamp) -> str:
    """Write a time in UTC, to the second, for a table whose title says UTC."""
    return stamp.ToDatetime().strftime("%Y-%m-%d %H:%M:%S")


def day(stamp: Timestamp) -> str:
    """Write the UTC day of a time."""
    return stamp.ToDatetime().strftime("%Y-%m-%d")


def _field(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return [_value(field, item) for item in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _value(field, value)


def _value(field: Any, value: Any) -> Any:
    if field.enum_type is not None:
        return word(field.enum_type, value)
    if field.message_type is None:
        return value
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    return plain(cast("Message", value))
