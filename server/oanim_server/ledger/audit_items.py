"""The audit's walk along one wallet's usage items, beside its journal: an item has the number of its row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oanim_server.ledger import journal, rows
from oanim_server.ledger.values import Kind, UsageItem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oanim_server.ledger.audit_counts import Counts
    from oanim_server.ledger.audit_findings import Findings


class Items:
    """Checks usage items, and counts them.

    :param stored: the wallet's rows of `usage_items`, in order.
    """

    def __init__(self, stored: Iterator[Any], findings: Findings, counts: Counts) -> None:
        self._stored = stored
        self._next = next(stored, None)
        self._findings = findings
        self._counts = counts

    def row(self, row: journal.Row) -> None:
        """Follow the journal by one row."""
        if row.kind != Kind.USAGE:
            return
        self._skip_to(row.seq)
        if self._next is None or self._next[1] != row.seq:
            self._findings.off(f"usage item {row.seq}: the journal knows it, the table does not")
            return
        values, self._next = self._next, next(self._stored, None)
        with self._findings.reading(f"usage item {row.seq}"):
            self._check(rows.item_of(values), row)

    def end(self) -> None:
        """The journal has no more rows."""
        self._skip_to(None)

    def _check(self, item: UsageItem, row: journal.Row) -> None:
        where = f"usage item {item.number}: "
        for what, expected, kept in (
            ("time", row.at, item.at),
            ("quantity", row.quantity, item.line.quantity),
            ("charged", row.charged_micros, item.charged_micros),
            ("uncollected", row.uncollected_micros, item.uncollected_micros),
            (
                "charged and uncollected",
                item.line.cost_micros(item.line.quantity),
                item.charged_micros + item.uncollected_micros,
            ),
        ):
            self._findings.same(where + what, expected, kept)
        if row.seal is None or bytes(row.seal) != journal.seal_of_item(item):
            self._findings.off(f"{where}what never changes was changed")
        self._counts.item(item)

    def _skip_to(self, number: int | None) -> None:
        """Pass what is stored below a number, all of it for None: no row made it."""
        while self._next is not None and (number is None or self._next[1] < number):
            self._findings.off(f"usage item {self._next[1]}: the table knows it, the journal does not")
            self._next = next(self._stored, None)
