"""What the parts of rendering share: where they write, what they count, and whom they tell of a change."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from oanim_server.database.engine import Database
    from oanim_server.ledger.ledger import Ledger
    from oanim_server.rendering.counts import Counts
    from oanim_server.rendering.store import Store
    from oanim_server.rendering.values import Key, Times


class Shared(NamedTuple):
    """`changed` is told the key of each render that was changed; `offered`, that there may be work now."""

    database: Database
    ledger: Ledger
    store: Store
    counts: Counts
    times: Times
    changed: Callable[[Key], None]
    offered: Callable[[], None]
