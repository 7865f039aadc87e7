"""Where the rows of a wallet's journal are, by their wallet_seq.

On PostgreSQL their key says it. On SQLite an index by the wallet would be written in nearly as many pages as
there are rows: where there are many wallets, each has a page of its own in it. So SQLite's journal appends,
and each wallet keeps a list of the places (row ids) of its rows: the latest in its own row, which is written
with every one of them anyway, and before those `journal_runs`, a row for each RUN of them.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import Boolean, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from oanim_server.database.tables import transactions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement

RUN = 16


def place_of(wallet_id: str, seq: str) -> str:
    """SQLite's words for the place of a row, null where there is none: expressions in, an expression out."""
    run, nth = f"({seq} - 1) / {RUN}", f"(({seq} - 1) % {RUN})"
    return (
        f"coalesce((SELECT kept.places ->> {nth} FROM journal_runs AS kept"
        f" WHERE kept.wallet_id = {wallet_id} AND kept.run = {run}),"
        f" (SELECT ('[' || substr(latest.places, 2) || ']') ->> {nth} FROM wallets AS latest"
        f" WHERE latest.wallet_id = {wallet_id} AND latest.seq / {RUN} = {run}))"
    )


class AtSeq(FunctionElement[bool]):
    """That a row of `transactions` is the one of a wallet's seq, as a condition for both databases."""

    type = Boolean()
    inherit_cache = True

    def self_group(self, against: object = None) -> AtSeq:  # noqa: ARG002 - as of every element
        """As it is: `... = 1`, which SQLite's dialect makes of a boolean, would be looked for by no index."""
        return self


def at_seq(wallet_id: ColumnElement[int] | int, seq: ColumnElement[int] | int) -> AtSeq:
    """The row of a wallet's journal with that wallet_seq."""
    t = transactions.c
    return AtSeq(
        t.place, t.wallet_id, t.seq, *(literal(n) if isinstance(n, int) else n for n in (wallet_id, seq))
    )


@compiles(AtSeq)
def _by_key(element: AtSeq, compiler: Any, **how: Any) -> str:
    _, kept_wallet, kept_seq, wallet_id, seq = (compiler.process(each, **how) for each in element.clauses)
    return f"({kept_wallet} = {wallet_id} AND {kept_seq} = {seq})"


@compiles(AtSeq, "sqlite")
def _by_place(element: AtSeq, compiler: Any, **how: Any) -> str:
    place, kept_wallet, kept_seq, wallet_id, seq = (compiler.process(each, **how) for each in element.clauses)
    return f"({place} = {place_of(wallet_id, seq)} AND {kept_wallet} = {wallet_id} AND {kept_seq} = {seq})"


class Places:
    """Where the rows that a group writes are kept: each after the one before it.

    :param last_place: of the latest row that is there.
    :param former: how many rows each of their wallets had.
    """

    def __init__(self, last_place: int, rows: Sequence[Sequence[Any]], former: Mapping[int, int]) -> None:
        self.last_place = last_place + len(rows)
        # Rows of `journal_runs`: before its places, whether those in the wallet's row belong to them.
        self.runs: list[tuple[int, int, bool, str]] = []
        self._latest: dict[int, tuple[bool, str]] = {}
        made: defaultdict[int, list[int]] = defaultdict(list)
        for place, row in enumerate(rows, last_place + 1):
            made[row[0]].append(place)
        for wallet_id, places in made.items():
            self._add(wallet_id, former[wallet_id], places)

    def latest(self, wallet_id: int) -> tuple[bool, str]:
        """Whether a wallet's row keeps the places that it has, and what it has besides."""
        return self._latest.get(wallet_id, (True, ""))

    def _add(self, wallet_id: int, former: int, places: list[int]) -> None:
        run, there = divmod(former, RUN)
        start, end = 0, RUN - there
        while end <= len(places):
            self.runs.append((wallet_id, run, there > 0, _text(places[start:end])))
            run, there, start, end = run + 1, 0, end, end + RUN
        self._latest[wallet_id] = (start == 0, _text(places[start:]))


def _text(places: Sequence[int]) -> str:
    return "".join([f",{place}" for place in places])
