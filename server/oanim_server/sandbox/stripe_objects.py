"""What the sandbox of Stripe remembers: every object by its id, and every event, oldest first.

An event keeps the object as it stood: whoever reads it later sees the past, as at Stripe.
"""

from __future__ import annotations

import copy
import secrets
import string
import time
from typing import TYPE_CHECKING, Any

import stripe

from oanim_server.sandbox.stripe_forms import Params, Refused, Thing, missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_LETTERS = string.ascii_letters + string.digits
_PAGE = 10
_LARGEST_PAGE = 100
_PREFIXES = {
    "balance_transaction": "txn",
    "charge": "ch",
    "checkout.session": "cs_test",
    "customer": "cus",
    "dispute": "du",
    "event": "evt",
    "invoice": "in",
    "line_item": "li",
    "payment_intent": "pi",
    "payment_method": "pm",
    "price": "price",
    "product": "prod",
    "refund": "re",
    "setup_intent": "seti",
    "webhook_endpoint": "we",
}


class Objects:
    """All objects. `heard` is told of each event."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.heard: Callable[[Thing], None] = lambda _event: None
        # The call that is being answered, for the events it causes.
        self.request: Thing = {"id": None, "idempotency_key": None}
        self._things: dict[str, dict[str, Thing]] = {kind: {} for kind in _PREFIXES}
        self._hidden: dict[tuple[str, str], Callable[[], Thing]] = {}

    def add(self, kind: str, fields: Thing) -> Thing:
        """Make an object of what all have and these fields; nothing is told."""
        thing = {
            "id": new_id(kind),
            "object": "item" if kind == "line_item" else kind,
            "created": int(time.time()),
            "livemode": False,
            **fields,
        }
        if kind != "line_item":
            self._things[kind][thing["id"]] = thing
        return thing

    def hide(self, thing: Thing, name: str, made: Callable[[], Thing]) -> None:
        """Give an object a field that is only there when it is expanded."""
        self._hidden[thing["id"], name] = made

    def get(self, kind: str, identity: str, param: str = "id") -> Thing:
        """Find an object. Raises `Refused`, resource_missing."""
        thing = self._things[kind].get(identity)
        if thing is None or thing.get("deleted"):
            raise missing(kind.rpartition(".")[2], identity, param)
        return thing

    def is_deleted(self, kind: str, identity: str) -> bool:
        return bool(self._things[kind].get(identity, {}).get("deleted"))

    def all(self, kind: str) -> list[Thing]:
        return [thing for thing in self._things[kind].values() if not thing.get("deleted")]

    def emit(self, name: str, thing: Thing, before: Thing | None = None) -> Thing:
        """Record that something happened to an object, as it stands now."""
        data: Thing = {"object": copy.deepcopy(thing)}
        if before is not None:
            data["previous_attributes"] = before
        fields = {"api_version": stripe.api_version, "data": data, "pending_webhooks": 0, "type": name}
        event = self.add("event", {**fields, "request": dict(self.request)})
        self.heard(event)
        return event

    def again(self, event: Thing) -> Thing:
        """Record the same event under another id, as Stripe now and then does."""
        return self.add("event", {**copy.deepcopy(event), "id": new_id("event")})

    def page(self, kind: str, params: Params, url: str, same: Iterable[str] = ()) -> Thing:
        """List objects, newest first. `same` are the parameters that a field must equal."""
        found = self.all(kind)[::-1]
        for name in same:
            if name in params:
                found = [thing for thing in found if thing.get(name) == params.text(name)]
        return self.paged(found, params, url)

    def paged(self, found: list[Thing], params: Params, url: str) -> Thing:
        """Cut the page out of a list that is asked for, of the time that is asked for."""
        found = _created(found, params)
        limit = params.integer("limit", _PAGE, least=1, most=_LARGEST_PAGE)
        after, before = params.text("starting_after"), params.text("ending_before")
        if after:
            found = found[_place(found, after, "starting_after") + 1 :]
        if before:
            found = found[: _place(found, before, "ending_before")]
            return listed(found[-limit:], url, more=len(found) > limit)
        return listed(found[:limit], url, more=len(found) > limit)

    def shown(self, thing: Thing, expand: list[str]) -> Thing:
        """Copy an object, with what was asked for in place of the ids."""
        content = copy.deepcopy(thing)
        for path in expand:
            self._expand(content, path.split("."), path)
        return content

    def _expand(self, content: Any, path: list[str], whole: str) -> None:
        name, *rest = path
        if isinstance(content, dict) and content.get("object") == "list" and name == "data":
            for item in content["data"]:
                self._expand(item, rest, whole)
            return
        hidden = self._hidden.get((content.get("id", ""), name))
        if hidden:
            content[name] = copy.deepcopy(hidden())
        elif name not in content:
            raise _not_expandable(whole)
        elif isinstance(content[name], str):
            content[name] = copy.deepcopy(self._anything(content[name], whole))
        if rest and content[name] is not None:
            self._expand(content[name], rest, whole)

    def _anything(self, identity: str, whole: str) -> Thing:
        for things in self._things.values():
            if identity in things:
                return things[identity]
        raise _not_expandable(whole)


def new_id(kind: str) -> str:
    return f"{_PREFIXES[kind]}_{''.join(secrets.choice(_LETTERS) for _ in range(24))}"


def listed(things: list[Thing], url: str, *, more: bool = False) -> Thing:
    """Make Stripe's list of these."""
    return {"object": "list", "data": things, "has_more": more, "url": url}


def change(thing: Thing, **fields: Any) -> Thing:
    """Set fields, and answer what they were, where they differ."""
    before = {name: thing.get(name) for name, value in fields.items() if thing.get(name) != value}
    thing.update(fields)
    return before


def merge_metadata(thing: Thing, params: Params) -> Thing:
    """Add to an object's metadata what was sent; an empty value takes a name away."""
    if "metadata" not in params.raw():
        return {}
    # `metadata=` alone takes all away.
    sent = params.metadata() if isinstance(params.raw()["metadata"], dict) else {}
    merged = {**thing["metadata"], **sent} if sent else {}
    return change(thing, metadata={name: value for name, value in merged.items() if value})


def _not_expandable(path: str) -> Refused:
    return Refused(f"This property cannot be expanded ({path}).", param="expand")


def _created(found: list[Thing], params: Params) -> list[Thing]:
    if "created" not in params.raw():
        return found
    asked = params.raw()["created"]
    bounds = Params(asked if isinstance(asked, dict) else {"gte": asked, "lte": asked}, "created")
    bounds.only(("gt", "gte", "lt", "lte"))
    tests: dict[str, Callable[[int, int], bool]] = {
        "gt": lambda at, bound: at > bound,
        "gte": lambda at, bound: at >= bound,
        "lt": lambda at, bound: at < bound,
        "lte": lambda at, bound: at <= bound,
    }
    for name in bounds.raw():
        bound = bounds.integer(name, most=2**40)
        found = [thing for thing in found if tests[name](thing["created"], bound)]
    return found


def _place(found: list[Thing], identity: str, param: str) -> int:
    for place, thing in enumerate(found):
        if thing["id"] == identity:
            return place
    raise missing("object", identity, param)
