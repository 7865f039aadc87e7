"""The hot statements on SQLite: lists are asked for as one JSON parameter and come back as one JSON text.

They run on the driver's own connection: SQLAlchemy's results cost more than a small group's statements. The
same names and signatures are in `postgresql.py`. SQLite ignores FOR UPDATE; the single writer's
BEGIN IMMEDIATE is the lock.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import chain
from operator import ne
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from oanim_server.database.columns import (
    LOT_COLUMNS,
    REFUSAL_COLUMNS,
    RESERVATION_COLUMNS,
    TRANSACTION_COLUMNS,
    USAGE_ITEM_COLUMNS,
    WALLET_COLUMNS,
    Asked,
    Loaded,
    in_json,
    listed,
    loaded,
    prefixed,
)
from oanim_server.database.places import Places, place_of

if TYPE_CHECKING:
    import sqlite3
    from contextlib import AbstractContextManager

Rows = Sequence[Any]
_HEX = "hex({})"


def clock(driver: sqlite3.Connection) -> int:  # noqa: ARG001 - one signature for both databases
    """Microseconds since 1970, by the process's clock: one process writes."""
    return time.time_ns() // 1_000


# No later than the snapshot, when it is asked before the first row.
snapshot_clock = clock


def lock_wallets(driver: sqlite3.Connection, wallet_ids: Sequence[int]) -> None:
    """Nothing: BEGIN IMMEDIATE is the lock of the one writer."""


def lock_and_load(driver: sqlite3.Connection, asked: Asked) -> Loaded:
    """What a group needs, in one step: each one lets go of the interpreter and waits for it again."""
    now = clock(driver)
    attempts = [asked.identities, asked.starting, asked.reserves]
    by_key: list[Any] = [{key: wallet_id for key, wallet_id, _, _ in some} for some in attempts]
    statement = _LOAD
    if any(map(ne, map(len, by_key), map(len, attempts))):
        # Wallets share a key, or a wallet's methods do.
        by_key, statement = attempts, _LOAD_SHARED
    identities, starting, reserves = map(_json, by_key)
    values = (_json(asked.wallet_ids), identities, starting, _json(asked.reservations), reserves)
    *found, last_place = driver.execute(statement, values).fetchone()
    return loaded(now, found, last_place)


def _load(key: str, wallet: str) -> str:
    """The statement, where attempts are asked for by those expressions.

    Joins through json_each: for `(a, b) IN (VALUES ...)` SQLite would scan the whole index. The few rows that
    others have under the same key on the same wallet do no harm.
    """
    return f"""
SELECT (
  SELECT json_group_array(json_array({in_json("w", WALLET_COLUMNS, _HEX)}))
  FROM json_each(?1) AS asked CROSS JOIN wallets AS w WHERE w.wallet_id = asked.value
), (
  SELECT json_group_array(json_array({in_json("t", TRANSACTION_COLUMNS, _HEX)}))
  FROM json_each(?2) AS asked CROSS JOIN transactions AS t
  WHERE t.idem_key = {key} AND t.wallet_id = {wallet}
), (
  SELECT json_group_array(json_array({in_json("r", REFUSAL_COLUMNS, _HEX)}))
  FROM json_each(?3) AS asked CROSS JOIN refusals AS r
  WHERE r.idem_key = {key} AND r.wallet_id = {wallet}
), (
  SELECT json_group_array(json_array({prefixed("r", RESERVATION_COLUMNS)}))
  FROM json_each(?4) AS asked CROSS JOIN reservations AS r
  WHERE r.wallet_id = asked.value ->> 0 AND r.number = asked.value ->> 1
), (
  SELECT json_group_array(
    json_array(t.idem_key, t.wallet_id, t.caller, t.method, {prefixed("r", RESERVATION_COLUMNS)})
  )
  FROM json_each(?5) AS asked CROSS JOIN transactions AS t CROSS JOIN reservations AS r
  WHERE t.idem_key = {key} AND t.wallet_id = {wallet}
    AND r.wallet_id = t.wallet_id AND r.number = t.reservation
), (
  SELECT coalesce(max(place), 0) FROM transactions
)
"""


# Of one object by key: to take fields out of an array each costs ten times what the look-up does.
_LOAD = _load("asked.key", "asked.value")
_LOAD_SHARED = _load("asked.value ->> 0", "asked.value ->> 1")


def load_reservations(driver: sqlite3.Connection, ids: Sequence[tuple[int, int]]) -> Rows:
    return _gathered(driver, _LOAD_RESERVATIONS, ids)


_LOAD_RESERVATIONS = f"""
SELECT json_group_array(json_array({prefixed("r", RESERVATION_COLUMNS)}))
FROM json_each(?) AS asked CROSS JOIN reservations AS r
WHERE r.wallet_id = asked.value ->> 0 AND r.number = asked.value ->> 1
"""


def due_reservations(driver: sqlite3.Connection, wallet_id: int, now: int, limit: int) -> Rows:
    return driver.execute(_DUE_RESERVATIONS, (wallet_id, now, limit)).fetchall()


_DUE_RESERVATIONS = f"""
SELECT {listed(RESERVATION_COLUMNS)} FROM reservations
WHERE wallet_id = ? AND state = 1 AND expires_at <= ? ORDER BY expires_at, number LIMIT ?
"""


def next_expiry(driver: sqlite3.Connection, wallet_id: int, now: int) -> int | None:
    row = driver.execute(_NEXT_EXPIRY, (wallet_id, now)).fetchone()
    return row[0] if row else None


_NEXT_EXPIRY = "SELECT min(expires_at) FROM reservations WHERE wallet_id = ? AND state = 1 AND expires_at > ?"


def load_counters(driver: sqlite3.Connection, subjects: Sequence[tuple[int, str, str]]) -> Rows:
    return _gathered(driver, _LOAD_COUNTERS, subjects)


_LOAD_COUNTERS = """
SELECT json_group_array(json_array(c.wallet_id, c.subject, c.window_name, c.charged_micros, c.held_micros))
FROM json_each(?) AS asked CROSS JOIN spend_counters AS c
WHERE c.wallet_id = asked.value ->> 0 AND c.subject = asked.value ->> 1 AND c.window_name = asked.value ->> 2
"""


def fetch_row(driver: sqlite3.Connection, wallet_id: int, seq: int) -> Any:
    return driver.execute(_FETCH_ROW, (wallet_id, seq)).fetchone()


_FETCH_ROW = f"""
SELECT {listed(TRANSACTION_COLUMNS)} FROM transactions
WHERE place = {place_of("?1", "?2")} AND wallet_id = ?1 AND seq = ?2
"""


def fetch_rows(driver: sqlite3.Connection, wallet_id: int, first: int, last: int) -> Rows:
    """Those with a wallet_seq from the first to the last, newest first."""
    return driver.execute(_FETCH_ROWS, (wallet_id, first, last)).fetchall()


def fetch_charges(driver: sqlite3.Connection, wallet_id: int, first: int, last: int) -> Rows:
    """Those of them that charged something."""
    return driver.execute(_FETCH_CHARGES, (wallet_id, first, last)).fetchall()


def fetch_moves(driver: sqlite3.Connection, wallet_id: int, first: int, last: int) -> Rows:
    """What they did to lots."""
    return driver.execute(_FETCH_MOVES, (wallet_id, first, last)).fetchall()


def _between(columns: Sequence[str], also: str = "") -> str:
    # No condition is the journal's alone: for one that is, SQLite would read all of it to make a filter, once
    # it has been told how much there is. So the wallet's id is that of `asked`, and so is the 0 of charges.
    return f"""
WITH RECURSIVE asked (wallet_id, seq) AS (
  VALUES (?1, ?3) UNION ALL SELECT wallet_id, seq - 1 FROM asked WHERE seq > ?2
)
SELECT {prefixed("t", columns)} FROM asked CROSS JOIN transactions AS t
WHERE t.place = {place_of("asked.wallet_id", "asked.seq")} AND t.wallet_id = asked.wallet_id
  AND t.seq = asked.seq {also}
ORDER BY asked.seq DESC
"""


_FETCH_ROWS = _between(TRANSACTION_COLUMNS)
_FETCH_CHARGES = _between(TRANSACTION_COLUMNS, "AND t.charged_micros > 0 * asked.seq")
_FETCH_MOVES = _between(("lots",))


def fetch_capture(driver: sqlite3.Connection, wallet_id: int, reservation: int, capture: int) -> Any:
    return driver.execute(_FETCH_CAPTURE, (wallet_id, reservation, capture)).fetchone()


_FETCH_CAPTURE = f"""
SELECT {listed(TRANSACTION_COLUMNS)} FROM transactions
WHERE wallet_id = ? AND reservation = ? AND captures = ? AND kind = 4 AND (captures > 1 OR state = 1)
"""


def together(driver: sqlite3.Connection) -> AbstractContextManager[object]:  # noqa: ARG001 - as on PostgreSQL
    """Nothing: a statement is not a round trip here."""
    return nullcontext()


class Changed(NamedTuple):
    """How many rows a write changed, and where the last that it inserted is kept."""

    rowcount: int
    last_place: int | None


def places(last_place: int | None, rows: Rows, former: Mapping[int, int]) -> Places | None:
    """Where new rows of the journal will be kept, of wallets that had so many rows."""
    return Places(last_place or 0, rows, former)


def insert_wallets(driver: sqlite3.Connection, rows: Rows, places: Places) -> Changed:
    return _INSERT_WALLETS.run(driver, [(*row, places.latest(row[0])[1]) for row in rows])


def update_wallets(driver: sqlite3.Connection, rows: Rows, places: Places) -> Changed:
    """Rows: balance, held, debt, seq, at, link, open_lots, wallet_id, former seq."""
    return _UPDATE_WALLETS.run(driver, [(*row, *places.latest(row[-2])) for row in rows])


def rewrite_wallets(driver: sqlite3.Connection, rows: Rows, places: Places) -> Changed:
    """Rows: balance, held, debt, seq, at, link, frozen, next_due_at, lots_made, limits, open_lots,
    wallet_id, former seq.
    """
    return _REWRITE_WALLETS.run(driver, [(*row, *places.latest(row[-2])) for row in rows])


def insert_lots(driver: sqlite3.Connection, rows: Rows) -> Changed:
    return _INSERT_LOTS.run(driver, rows)


def insert_reservations(driver: sqlite3.Connection, rows: Rows) -> Changed:
    return _INSERT_RESERVATIONS.run(driver, rows)


def update_reservations(driver: sqlite3.Connection, rows: Rows) -> Changed:
    """Rows: state, reserved, captured, uncollected, captures, captured_quantity, parts, expires_at,
    ended_at, last_seq, reported_quantity, wallet_id, number, former last_seq.
    """
    return _UPDATE_RESERVATIONS.run(driver, rows)


def insert_transactions(driver: sqlite3.Connection, rows: Rows, places: Places) -> Changed:
    """Also what wallets file of their places: after new wallets are inserted, before others are updated.

    :raises ValueError: when SQLite did not keep them one after the other.
    """
    changed = _INSERT_TRANSACTIONS.run(driver, rows)
    _INSERT_RUNS.run(driver, places.runs)
    if changed.last_place != places.last_place:
        message = f"a row is kept in place {changed.last_place} where {places.last_place} was expected"
        raise ValueError(message)
    return changed


def insert_usage_items(driver: sqlite3.Connection, rows: Rows) -> Changed:
    return _INSERT_USAGE_ITEMS.run(driver, rows)


def insert_refusals(driver: sqlite3.Connection, rows: Rows) -> Changed:
    """Rows: wallet_id, caller, method, idem_key, fingerprint, reason, facts, at.

    One that had run out is replaced.
    """
    return _INSERT_REFUSALS.run(driver, rows)


def upsert_counters(driver: sqlite3.Connection, rows: Rows) -> Changed:
    """Rows: wallet_id, subject, window, charged, held."""
    return _UPSERT_COUNTERS.run(driver, rows)


def add_usage(driver: sqlite3.Connection, rows: Rows) -> Changed:
    """Rows: wallet_id, day, model, category, api_key_id, project, charges, charged; they are added."""
    return _ADD_USAGE.run(driver, rows)


# Many rows in one step ------------------------------------------------------------------------------


class _Bulk:
    """A statement over a list of VALUES, run in as few pieces as there are lengths for.

    The driver lets go of the interpreter at every step of a statement and has to wait for it again while
    the event loop is busy; `executemany` is a step a row, this is a step a piece. Few enough lengths that
    each is prepared once.
    """

    LENGTHS = (128, 64, *range(32, 0, -1))

    def __init__(self, before: str, columns: int, after: str = "") -> None:
        row = f"({', '.join('?' * columns)})"
        self._pieces = [(length, f"{before} {', '.join([row] * length)} {after}") for length in self.LENGTHS]

    def run(self, driver: sqlite3.Connection, rows: Rows) -> Changed:
        """Run it for all rows; how many it changed."""
        start = changed = 0
        last_place = None
        for length, statement in self._pieces:
            while len(rows) - start >= length:
                values = list(chain.from_iterable(rows[start : start + length]))
                cursor = driver.execute(statement, values)
                changed += cursor.rowcount
                last_place = cursor.lastrowid
                start += length
        return Changed(changed, last_place)


def _insert(table: str, columns: Sequence[str], after: str = "") -> _Bulk:
    return _Bulk(f"INSERT INTO {table} ({', '.join(columns)}) VALUES", len(columns), after)


def _update(table: str, columns: Sequence[str], keys: Sequence[str], also: str = "", more: int = 0) -> _Bulk:
    """Rows: the new values of the columns, those that the keys must have, and so many more for `also`."""
    changes = ", ".join(f"{column} = n.column{place}" for place, column in enumerate(columns, 1))
    width = len(columns) + len(keys)
    found = " AND ".join(
        f"{table}.{key} = n.column{place}" for place, key in enumerate(keys, len(columns) + 1)
    )
    return _Bulk(f"UPDATE {table} SET {changes}{also} FROM (VALUES", width + more, f") AS n WHERE {found}")


def _update_wallets(*columns: str) -> _Bulk:
    """Rows: the columns, wallet_id, former seq, whether the places that are there stay, those that come."""
    kept, added = len(columns) + 3, len(columns) + 4
    also = f", places = iif(n.column{kept}, wallets.places, '') || n.column{added}"
    return _update("wallets", columns, ("wallet_id", "seq"), also, 2)


_INSERT_WALLETS = _insert("wallets", (*WALLET_COLUMNS, "places"))
_UPDATE_WALLETS = _update_wallets(*WALLET_COLUMNS[1:7], "open_lots")
_REWRITE_WALLETS = _update_wallets(*WALLET_COLUMNS[1:])
_INSERT_LOTS = _insert("lots", LOT_COLUMNS)
_INSERT_RESERVATIONS = _insert("reservations", RESERVATION_COLUMNS)
_UPDATE_RESERVATIONS = _update(
    "reservations",
    ("state", "reserved_micros", "captured_micros", "uncollected_micros", "captures", "captured_quantity",
     "parts", "expires_at", "ended_at", "last_seq", "reported_quantity"),
    ("wallet_id", "number", "last_seq"),
)  # fmt: skip
_INSERT_TRANSACTIONS = _insert("transactions", TRANSACTION_COLUMNS)
# The first part of a run may be in the wallet's row.
_INSERT_RUNS = _Bulk(
    "INSERT INTO journal_runs (wallet_id, run, places) SELECT n.column1, n.column2,"
    " '[' || substr(iif(n.column3, w.places, '') || n.column4, 2) || ']' FROM (VALUES",
    4,
    ") AS n CROSS JOIN wallets AS w WHERE w.wallet_id = n.column1",
)
_INSERT_USAGE_ITEMS = _insert("usage_items", USAGE_ITEM_COLUMNS)
_INSERT_REFUSALS = _insert(
    "refusals",
    ("wallet_id", "caller", "method", "idem_key", "fingerprint", "reason", "facts", "at"),
    "ON CONFLICT (idem_key, wallet_id, caller, method) DO UPDATE SET "
    "fingerprint = excluded.fingerprint, reason = excluded.reason, facts = excluded.facts, at = excluded.at",
)
_UPSERT_COUNTERS = _insert(
    "spend_counters",
    ("wallet_id", "subject", "window_name", "charged_micros", "held_micros"),
    "ON CONFLICT (wallet_id, subject, window_name) DO UPDATE SET "
    "charged_micros = excluded.charged_micros, held_micros = excluded.held_micros",
)
_ADD_USAGE = _insert(
    "usage_days",
    ("wallet_id", "day", "model", "category", "api_key_id", "project", "charges", "charged_micros"),
    "ON CONFLICT (wallet_id, day, model, category, api_key_id, project) DO UPDATE SET "
    "charges = charges + excluded.charges, charged_micros = charged_micros + excluded.charged_micros",
)


def _gathered(driver: sqlite3.Connection, statement: str, asked: object) -> list[list[Any]]:
    """All rows as one, for the same reason: a step a statement, not a step a row."""
    found: list[list[Any]] = orjson.loads(driver.execute(statement, (_json(asked),)).fetchone()[0])
    return found


def _json(values: object) -> str:
    return orjson.dumps(values).decode()
