"""Reads lists that come in pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LARGEST_PAGE = 1_000


def items(
    call: Callable[..., Any], field: str, *, limit: int | None = None, **arguments: object
) -> list[Any]:
    """Read every item of a list, or the first `limit` of them."""
    found = pages(call, field, limit=limit, **arguments)
    return [item for page in found for item in getattr(page, field)]


def pages(
    call: Callable[..., Any], field: str, *, limit: int | None = None, **arguments: object
) -> Iterator[Any]:
    """Read the pages that hold every item of a list, or the first `limit` of them."""
    found = 0
    token = ""
    while limit is None or found < limit:
        size = _LARGEST_PAGE if limit is None else min(_LARGEST_PAGE, limit - found)
        page = call(page_size=size, page_token=token, **arguments)
        yield page
        found += len(getattr(page, field))
        token = page.next_page_token
        if not token:
            break
