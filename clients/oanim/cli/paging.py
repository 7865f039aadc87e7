"""Reads lists that come in pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_LARGEST_PAGE = 1_000


def items(
    call: Callable[..., Any], field: str, *, limit: int | None = None, **arguments: object
) -> list[Any]:
    """Read every item of a list, or the first `limit` of them."""
    found: list[Any] = []
    token = ""
    while limit is None or len(found) < limit:
        size = _LARGEST_PAGE if limit is None else min(_LARGEST_PAGE, limit - len(found))
        page = call(page_size=size, page_token=token, **arguments)
        found.extend(getattr(page, field))
        token = page.next_page_token
        if not token:
            break
    return found
