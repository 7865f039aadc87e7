"""Reads what a client of Stripe sent: nested parameters in a form's encoding, refused as Stripe refuses.

A `BadParameter` is found before anything is done, so no idempotency key remembers it; a `Refused` is an
answer of the endpoint itself and is remembered.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection

# A resource of Stripe's as JSON, or the parameters of a call.
Thing = dict[str, Any]

_BRACKETS = re.compile(r"\[([^\]]*)\]")
_LARGEST = 99_999_999
_DIGITS = 18


class Refused(Exception):
    """An answer that is an error, in Stripe's shape. `more` are further fields of it."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        more: Thing | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        named = {"code": code, "message": message, "param": param, "type": kind}
        self.body = {"error": {name: value for name, value in named.items() if value} | (more or {})}


class BadParameter(Refused):
    """The parameters themselves make no sense."""


def missing(kind: str, identity: str, param: str = "id") -> Refused:
    """Say that there is no such object."""
    return Refused(f"No such {kind}: '{identity}'", status=404, code="resource_missing", param=param)


def decode(text: str) -> Thing:
    """Turn `a[b][0]=x` into {"a": {"b": ["x"]}}; every value is a text."""
    found: Thing = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        head, bracket, tail = name.partition("[")
        inside = found
        key = head
        for part in _BRACKETS.findall(bracket + tail):
            deeper = inside.setdefault(key, {})
            if not isinstance(deeper, dict):
                raise BadParameter(f"Invalid parameter: {name}", param=name)
            inside, key = deeper, part or str(len(deeper))
        inside[key] = value
    return {name: _listed(value) for name, value in found.items()}


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    content = {key: _listed(item) for key, item in value.items()}
    if content and all(key.isdigit() for key in content):
        return [content[key] for key in sorted(content, key=int)]
    return content


class Params:
    """The parameters of one call, or of one object inside them; `at` is how its errors are prefixed."""

    def __init__(self, content: Any, at: str = "") -> None:
        if not isinstance(content, dict):
            raise BadParameter(f"Invalid object: {at}", param=at)
        self._content = content
        self._at = at

    def __contains__(self, name: str) -> bool:
        return self._content.get(name) not in (None, "")

    def name(self, name: str) -> str:
        return f"{self._at}[{name}]" if self._at else name

    def only(self, names: Collection[str]) -> None:
        """Refuse what Stripe does not know, or this sandbox does not."""
        for name in self._content:
            if name not in names and name != "expand":
                param = self.name(name)
                raise BadParameter(
                    f"Received unknown parameter: {param}", code="parameter_unknown", param=param
                )

    def text(self, name: str, default: str | None = None) -> str | None:
        value = self._content.get(name)
        if value is not None and not isinstance(value, str):
            raise BadParameter(f"Invalid string: {self.name(name)}", param=self.name(name))
        return value or default

    def needed(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            param = self.name(name)
            raise BadParameter(f"Missing required param: {param}.", code="parameter_missing", param=param)
        return value

    def choice(self, name: str, choices: Collection[str], default: str) -> str:
        value = self.text(name) or default
        if value not in choices:
            raise BadParameter(
                f"Invalid {self.name(name)}: must be one of {', '.join(sorted(choices))}",
                param=self.name(name),
            )
        return value

    def integer(self, name: str, default: int | None = None, *, least: int = 0, most: int = _LARGEST) -> int:
        value = self.text(name)
        if value is None:
            if default is None:
                self.needed(name)
            return default or 0
        # int() takes underscores, spaces and digits of every script; Stripe takes none of them.
        if not re.fullmatch(r"-?[0-9]+", value, re.ASCII) or len(value) > _DIGITS:
            raise BadParameter(
                f"Invalid integer: {value}", code="parameter_invalid_integer", param=self.name(name)
            )
        if not least <= int(value) <= most:
            raise BadParameter(
                f"Invalid {self.name(name)}: must be between {least} and {most}",
                code="parameter_invalid_integer",
                param=self.name(name),
            )
        return int(value)

    def flag(self, name: str, *, default: bool = False) -> bool:
        return self.choice(name, ("true", "false"), str(default).lower()) == "true"

    def inside(self, name: str) -> Params:
        return Params(self._content.get(name) or {}, self.name(name))

    def each(self, name: str) -> list[Params]:
        value = self._content.get(name) or []
        if not isinstance(value, list):
            raise BadParameter(f"Invalid array: {self.name(name)}", param=self.name(name))
        return [Params(item, f"{self.name(name)}[{index}]") for index, item in enumerate(value)]

    def texts(self, name: str) -> list[str]:
        value = self._content.get(name) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise BadParameter(f"Invalid array: {self.name(name)}", param=self.name(name))
        return value

    def metadata(self, name: str = "metadata") -> dict[str, str]:
        """Up to 50 pairs, 40 characters to a name and 500 to a value."""
        pairs = self.inside(name)
        for key, value in pairs.raw().items():
            if not isinstance(value, str) or len(key) > 40 or len(value) > 500:
                raise BadParameter("Metadata: 40 characters to a key, 500 to a value", param=pairs.name(key))
        if len(pairs.raw()) > 50:
            raise BadParameter("Metadata can have up to 50 keys", param=self.name(name))
        return dict(pairs.raw())

    def url(self, name: str) -> str | None:
        """An address that a browser can be sent to."""
        value = self.text(name)
        if value is None:
            return None
        try:
            parts = urlsplit(value)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname or not value.isprintable():
            raise BadParameter("Not a valid URL", code="url_invalid", param=self.name(name))
        return value

    def currency(self, name: str = "currency") -> str:
        value = self.needed(name).lower()
        if not re.fullmatch(r"[a-z]{3}", value):
            raise BadParameter(f"Invalid currency: {value}", param=self.name(name))
        return value

    def raw(self) -> Thing:
        """Everything as it was sent."""
        return self._content
