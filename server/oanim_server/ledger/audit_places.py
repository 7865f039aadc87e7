"""The audit of where SQLite keeps the rows of a journal: that each is where its wallet looks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from oanim_server.database.places import RUN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oanim_server.ledger.audit_findings import Findings


class Places:
    """Checks a wallet's list of places.

    :param filed: the wallet's rows of `journal_runs`, in order.
    :param latest: what its own row has after those; None on PostgreSQL, which finds rows by their keys.
    """

    def __init__(self, filed: Iterator[Any], latest: str | None, findings: Findings) -> None:
        self._findings = findings
        self._expected = self._listed(filed, latest)
        self._off = False

    def row(self, seq: int, place: int | None) -> None:
        """Follow the journal by one row, which has no place on PostgreSQL."""
        if place is not None and place != next(self._expected, None) and not self._off:
            # From here on all that follow may be off by one.
            self._off = True
            self._findings.off(f"row {seq}: it is not where its wallet looks for it")

    def end(self) -> None:
        """The journal has no more rows."""
        more = sum(1 for _ in self._expected)
        if more and not self._off:
            self._findings.off("its wallet looks for more rows than there are")

    def _listed(self, filed: Iterator[Any], latest: str | None) -> Iterator[int]:
        for number, (_, run, places) in enumerate(filed):
            found = self._read(f"run {run} of its places", places)
            if (run, len(found)) != (number, RUN):
                self._findings.off(f"run {run} of its places: it is not run {number} of {RUN}")
            yield from found
        if latest:
            found = self._read("its latest places", f"[{latest[1:]}]")
            if len(found) >= RUN:
                self._findings.off(f"its latest places: there are {len(found)}, and {RUN} are a run")
            yield from found

    def _read(self, what: str, text: str) -> list[int]:
        found: object = None
        with self._findings.reading(what):
            found = orjson.loads(text)
        if isinstance(found, list) and all(type(place) is int for place in found):
            return found
        if found is not None:
            self._findings.off(f"{what} cannot be read")
        return []
