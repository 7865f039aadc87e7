"""The hot statements on PostgreSQL: lists travel as array literals that Python builds, and are unnested.

The same names and signatures are in `sqlite.py`. Array literals built here cost less than half of what
the driver's own adaptation of lists costs. Each statement has its own snapshot: the lock is taken first,
and what must not be older than it is read after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from oanim_server.database import tables
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

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import psycopg

    from oanim_server.database.engine import Changed
    from oanim_server.database.places import Places

Rows = Sequence[Any]
_HEX = "encode({}, 'hex')"


def clock(driver: psycopg.Connection[Any]) -> int:
    """Microseconds since 1970, by the database's clock. Read after the locks."""
    row = driver.execute(_CLOCK).fetchone()
    return int(row[0]) if row is not None else 0


_CLOCK = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


def snapshot_clock(driver: psycopg.Connection[Any]) -> int:
    """The same at the start of the database transaction: no later than the snapshot of a repeatable read."""
    row = driver.execute(_SNAPSHOT_CLOCK).fetchone()
    return int(row[0]) if row is not None else 0


_SNAPSHOT_CLOCK = "SELECT (extract(epoch FROM transaction_timestamp()) * 1000000)::bigint"


def lock_wallets(driver: psycopg.Connection[Any], wallet_ids: Sequence[int]) -> None:
    """Lock what is to be read and changed: from here to the commit nobody else changes these wallets."""
    driver.execute(_LOCK_WALLETS, (_ints(wallet_ids),))


# Ascending, so that two replicas never wait for each other in a circle.
_LOCK_WALLETS = """
SELECT wallet_id FROM wallets WHERE wallet_id = ANY(%s::bigint[]) ORDER BY wallet_id FOR UPDATE
"""


def lock_and_load(driver: psycopg.Connection[Any], asked: Asked) -> Loaded:
    """What a group needs, in one round trip: the lock, the time, the rows, each in a snapshot of its own."""
    wallet_ids = _ints(asked.wallet_ids)
    numbers = tuple(map(_ints, zip(*asked.reservations, strict=True))) or ("{}", "{}")
    values = (
        wallet_ids,
        *_identities(asked.identities),
        *_identities(asked.starting),
        *numbers,
        *_identities(asked.reserves),
    )
    with driver.pipeline():
        driver.execute(_LOCK_WALLETS, (wallet_ids,))
        told = driver.execute(_CLOCK)
        found = driver.execute(_LOAD, values)
    return loaded((told.fetchone() or (0,))[0], found.fetchone() or ())


# `+ 0`: by its key, not by its wallet. Where wallets are young both find one row, and the plan is kept.
_LOAD = f"""
SELECT (
  SELECT coalesce(json_agg(json_build_array({in_json("w", WALLET_COLUMNS, _HEX)})), '[]')::text
  FROM wallets AS w WHERE w.wallet_id = ANY(%s::bigint[])
), (
  SELECT coalesce(json_agg(json_build_array({in_json("t", TRANSACTION_COLUMNS, _HEX)})), '[]')::text
  FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::integer[])
    AS asked (idem_key, wallet, caller, method)
  JOIN transactions AS t USING (idem_key, caller, method)
  WHERE t.idem_key IS NOT NULL AND t.wallet_id + 0 = asked.wallet
), (
  SELECT coalesce(json_agg(json_build_array({in_json("r", REFUSAL_COLUMNS, _HEX)})), '[]')::text
  FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::integer[])
    AS asked (idem_key, wallet_id, caller, method)
  JOIN refusals AS r USING (idem_key, wallet_id, caller, method)
), (
  SELECT coalesce(json_agg(json_build_array({prefixed("r", RESERVATION_COLUMNS)})), '[]')::text
  FROM unnest(%s::bigint[], %s::bigint[]) AS asked (wallet_id, number)
  JOIN reservations AS r USING (wallet_id, number)
), (
  SELECT coalesce(
    json_agg(json_build_array(idem_key, wallet, caller, method, {prefixed("r", RESERVATION_COLUMNS)})), '[]'
  )::text
  FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::integer[])
    AS asked (idem_key, wallet, caller, method)
  JOIN transactions AS t USING (idem_key, caller, method)
  JOIN reservations AS r ON r.wallet_id = t.wallet_id AND r.number = t.reservation
  WHERE t.idem_key IS NOT NULL AND t.wallet_id + 0 = asked.wallet
)
"""


def load_reservations(driver: psycopg.Connection[Any], ids: Sequence[tuple[int, int]]) -> Rows:
    wallets, numbers = zip(*ids, strict=True)
    return driver.execute(_LOAD_RESERVATIONS, (_ints(wallets), _ints(numbers))).fetchall()


_LOAD_RESERVATIONS = f"""
SELECT {prefixed("r", RESERVATION_COLUMNS)}
FROM unnest(%s::bigint[], %s::bigint[]) AS asked (wallet_id, number)
JOIN reservations AS r USING (wallet_id, number)
"""


def due_reservations(driver: psycopg.Connection[Any], wallet_id: int, now: int, limit: int) -> Rows:
    return driver.execute(_DUE_RESERVATIONS, (wallet_id, now, limit)).fetchall()


_DUE_RESERVATIONS = f"""
SELECT {listed(RESERVATION_COLUMNS)} FROM reservations
WHERE wallet_id = %s AND state = 1 AND expires_at <= %s ORDER BY expires_at, number LIMIT %s
"""


def next_expiry(driver: psycopg.Connection[Any], wallet_id: int, now: int) -> int | None:
    row = driver.execute(_NEXT_EXPIRY, (wallet_id, now)).fetchone()
    return row[0] if row else None


_NEXT_EXPIRY = (
    "SELECT min(expires_at) FROM reservations WHERE wallet_id = %s AND state = 1 AND expires_at > %s"
)


def load_counters(driver: psycopg.Connection[Any], subjects: Sequence[tuple[int, str, str]]) -> Rows:
    wallets, names, windows = zip(*subjects, strict=True)
    return driver.execute(_LOAD_COUNTERS, (_ints(wallets), _texts(names), _texts(windows))).fetchall()


_LOAD_COUNTERS = """
SELECT c.wallet_id, c.subject, c.window_name, c.charged_micros, c.held_micros
FROM unnest(%s::bigint[], %s::text[], %s::text[]) AS asked (wallet_id, subject, window_name)
JOIN spend_counters AS c USING (wallet_id, subject, window_name)
"""


def fetch_row(driver: psycopg.Connection[Any], wallet_id: int, seq: int) -> Any:
    return driver.execute(_FETCH_ROW, (wallet_id, seq)).fetchone()


_FETCH_ROW = f"SELECT {listed(TRANSACTION_COLUMNS)} FROM transactions WHERE wallet_id = %s AND seq = %s"


def fetch_rows(driver: psycopg.Connection[Any], wallet_id: int, first: int, last: int) -> Rows:
    """Those with a wallet_seq from the first to the last, newest first."""
    return driver.execute(_FETCH_ROWS, (wallet_id, first, last)).fetchall()


def fetch_charges(driver: psycopg.Connection[Any], wallet_id: int, first: int, last: int) -> Rows:
    """Those of them that charged something."""
    return driver.execute(_FETCH_CHARGES, (wallet_id, first, last)).fetchall()


def fetch_moves(driver: psycopg.Connection[Any], wallet_id: int, first: int, last: int) -> Rows:
    """What they did to lots."""
    return driver.execute(_FETCH_MOVES, (wallet_id, first, last)).fetchall()


def _between(columns: tuple[str, ...], also: str = "") -> str:
    return f"""
SELECT {listed(columns)} FROM transactions
WHERE wallet_id = %s AND seq BETWEEN %s AND %s {also} ORDER BY seq DESC
"""


_FETCH_ROWS = _between(TRANSACTION_COLUMNS)
_FETCH_CHARGES = _between(TRANSACTION_COLUMNS, "AND charged_micros > 0")
_FETCH_MOVES = _between(("lots",))


def fetch_capture(driver: psycopg.Connection[Any], wallet_id: int, reservation: int, capture: int) -> Any:
    return driver.execute(_FETCH_CAPTURE, (wallet_id, reservation, capture)).fetchone()


_FETCH_CAPTURE = f"""
SELECT {listed(TRANSACTION_COLUMNS)} FROM transactions
WHERE wallet_id = %s AND reservation = %s AND captures = %s AND kind = 4 AND (captures > 1 OR state = 1)
"""


def together(driver: psycopg.Connection[Any]) -> AbstractContextManager[object]:
    """What is written inside is sent at once and answered at once: one round trip for all of it."""
    return driver.pipeline()


def places(
    last_place: int | None,  # noqa: ARG001 - SQLite's
    rows: Rows,  # noqa: ARG001
    former: Mapping[int, int],  # noqa: ARG001
) -> Places | None:
    """None: rows of the journal are found by their keys."""
    return None


def insert_wallets(
    driver: psycopg.Connection[Any],
    rows: list[tuple[Any, ...]],
    places: Places | None,  # noqa: ARG001 - SQLite's
) -> Changed:
    return _insert(driver, _INSERT_WALLETS, rows, _WALLET_KINDS)


def update_wallets(
    driver: psycopg.Connection[Any],
    rows: list[tuple[Any, ...]],
    places: Places | None,  # noqa: ARG001 - SQLite's
) -> Changed:
    """Rows: balance, held, debt, seq, at, link, open_lots, wallet_id, former seq."""
    return _insert(driver, _UPDATE_WALLETS, rows, "iiiiibtii")


_UPDATE_WALLETS = """
UPDATE wallets AS w SET balance_micros = n.balance, held_micros = n.held, debt_micros = n.debt, seq = n.seq,
  at = n.at, link = n.link, open_lots = n.open_lots
FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bytea[], %s::text[],
  %s::bigint[], %s::bigint[])
  AS n (balance, held, debt, seq, at, link, open_lots, wallet_id, former)
WHERE w.wallet_id = n.wallet_id AND w.seq = n.former
"""


def rewrite_wallets(
    driver: psycopg.Connection[Any],
    rows: list[tuple[Any, ...]],
    places: Places | None,  # noqa: ARG001 - SQLite's
) -> Changed:
    """Rows: balance, held, debt, seq, at, link, frozen, next_due_at, lots_made, limits, open_lots,
    wallet_id, former seq.
    """
    return _insert(driver, _REWRITE_WALLETS, rows, "iiiiibiiiitii")


_REWRITE_WALLETS = """
UPDATE wallets AS w SET balance_micros = n.balance, held_micros = n.held, debt_micros = n.debt, seq = n.seq,
  at = n.at, link = n.link, frozen = n.frozen, next_due_at = n.next_due_at, lots_made = n.lots_made,
  limits = n.limits, open_lots = n.open_lots
FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bytea[], %s::bigint[],
  %s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::bigint[], %s::bigint[])
  AS n (balance, held, debt, seq, at, link, frozen, next_due_at, lots_made, limits, open_lots, wallet_id,
  former)
WHERE w.wallet_id = n.wallet_id AND w.seq = n.former
"""


def insert_lots(driver: psycopg.Connection[Any], rows: list[tuple[Any, ...]]) -> Changed:
    return _insert(driver, _INSERT_LOTS, rows, _LOT_KINDS)


def insert_reservations(driver: psycopg.Connection[Any], rows: list[tuple[Any, ...]]) -> Changed:
    return _insert(driver, _INSERT_RESERVATIONS, rows, _RESERVATION_KINDS)


def update_reservations(driver: psycopg.Connection[Any], rows: list[tuple[Any, ...]]) -> Changed:
    """Rows: state, reserved, captured, uncollected, captures, captured_quantity, parts, expires_at,
    ended_at, last_seq, reported_quantity, wallet_id, number, former last_seq.
    """
    return _insert(driver, _UPDATE_RESERVATIONS, rows, "iiiiiitiiiiiii")


_UPDATE_RESERVATIONS = """
UPDATE reservations AS r SET state = n.state, reserved_micros = n.reserved, captured_micros = n.captured,
  uncollected_micros = n.uncollected, captures = n.captures, captured_quantity = n.captured_quantity,
  parts = n.parts, expires_at = n.expires_at, ended_at = n.ended_at, last_seq = n.last_seq,
  reported_quantity = n.reported
FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::text[],
  %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
  AS n (state, reserved, captured, uncollected, captures, captured_quantity, parts, expires_at, ended_at,
  last_seq, reported, wallet_id, number, former)
WHERE r.wallet_id = n.wallet_id AND r.number = n.number AND r.last_seq = n.former
"""


def insert_transactions(
    driver: psycopg.Connection[Any],
    rows: list[tuple[Any, ...]],
    places: Places | None,  # noqa: ARG001 - SQLite's
) -> Changed:
    return _insert(driver, _INSERT_TRANSACTIONS, rows, _TRANSACTION_KINDS)


def insert_usage_items(driver: psycopg.Connection[Any], rows: list[tuple[Any, ...]]) -> Changed:
    return _insert(driver, _INSERT_USAGE_ITEMS, rows, _USAGE_ITEM_KINDS)


def insert_refusals(driver: psycopg.Connection[Any], rows: list[tuple[Any, ...]]) -> Changed:
    """Rows: wallet_id, caller, method, idem_key, fingerprint, reason, facts, at.

    One that had run out is replaced.
    """
    return _insert(driver, _INSERT_REFUSALS, rows, "iiitbtti")


_INSERT_REFUSALS = """
INSERT INTO refusals (wallet_id, caller, method, idem_key, fingerprint, reason, facts, at)
SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::bytea[], %s::text[],
  %s::text[], %s::bigint[])
ON CONFLICT (idem_key, wallet_id, caller, method)
DO UPDATE SET fingerprint = excluded.fingerprint, reason = excluded.reason, facts = excluded.facts,
  at = excluded.at
"""


def upsert_counters(driver: psycopg.Connection[Any], rows: list[tuple[Any, ...]]) -> Changed:
    """Rows: wallet_id, subject, window, charged, held."""
    return _insert(driver, _UPSERT_COUNTERS, rows, "ittii")


_UPSERT_COUNTERS = """
INSERT INTO spend_counters (wallet_id, subject, window_name, charged_micros, held_micros)
SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[], %s::bigint[])
ON CONFLICT (wallet_id, subject, window_name)
DO UPDATE SET charged_micros = excluded.charged_micros, held_micros = excluded.held_micros
"""


def add_usage(driver: psycopg.Connection[Any], rows: list[tuple[Any, ...]]) -> Changed:
    """Rows: wallet_id, day, model, category, api_key_id, project, charges, charged; they are added."""
    return _insert(driver, _ADD_USAGE, rows, "iittttii")


_ADD_USAGE = """
INSERT INTO usage_days (wallet_id, day, model, category, api_key_id, project, charges, charged_micros)
SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[],
  %s::bigint[])
ON CONFLICT (wallet_id, day, model, category, api_key_id, project)
DO UPDATE SET charges = usage_days.charges + excluded.charges,
  charged_micros = usage_days.charged_micros + excluded.charged_micros
"""


# Arrays ---------------------------------------------------------------------------------------------

_ARRAYS = {"i": "%s::bigint[]", "t": "%s::text[]", "b": "%s::bytea[]"}


def _kinds(table: str, columns: tuple[str, ...]) -> str:
    words = {"TEXT": "t", "BLOB": "b", "BYTEA": "b"}
    types = tables.metadata.tables[table].columns
    return "".join(words.get(str(types[name].type).upper(), "i") for name in columns)


def _inserting(table: str, columns: tuple[str, ...], kinds: str) -> str:
    arrays = ", ".join(_ARRAYS[kind] for kind in kinds)
    return f"INSERT INTO {table} ({listed(columns)}) SELECT * FROM unnest({arrays})"


_WALLET_KINDS = _kinds("wallets", WALLET_COLUMNS)
_LOT_KINDS = _kinds("lots", LOT_COLUMNS)
_RESERVATION_KINDS = _kinds("reservations", RESERVATION_COLUMNS)
_TRANSACTION_KINDS = _kinds("transactions", TRANSACTION_COLUMNS)
_USAGE_ITEM_KINDS = _kinds("usage_items", USAGE_ITEM_COLUMNS)
_INSERT_WALLETS = _inserting("wallets", WALLET_COLUMNS, _WALLET_KINDS)
_INSERT_LOTS = _inserting("lots", LOT_COLUMNS, _LOT_KINDS)
_INSERT_RESERVATIONS = _inserting("reservations", RESERVATION_COLUMNS, _RESERVATION_KINDS)
_INSERT_TRANSACTIONS = _inserting("transactions", TRANSACTION_COLUMNS, _TRANSACTION_KINDS)
_INSERT_USAGE_ITEMS = _inserting("usage_items", USAGE_ITEM_COLUMNS, _USAGE_ITEM_KINDS)


def _ints(values: Sequence[int | None]) -> str:
    # As JSON writes them: null is NULL.
    return "{" + orjson.dumps(values).decode()[1:-1] + "}"


def _texts(values: Sequence[str | None]) -> str:
    quoted = [
        "NULL" if value is None else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        for value in values
    ]
    return "{" + ",".join(quoted) + "}"


def _bytes(values: Sequence[bytes | None]) -> str:
    return (
        "{" + ",".join(["NULL" if value is None else '"\\\\x' + value.hex() + '"' for value in values]) + "}"
    )


_LITERALS: dict[str, Callable[[Sequence[Any]], str]] = {"i": _ints, "t": _texts, "b": _bytes}


def _identities(identities: Sequence[tuple[str, int, int, int]]) -> tuple[str, str, str, str]:
    keys, wallets, callers, methods = zip(*identities, strict=True) if identities else ((), (), (), ())
    return _texts(keys), _ints(wallets), _ints(callers), _ints(methods)


def _insert(
    driver: psycopg.Connection[Any], statement: str, rows: list[tuple[Any, ...]], kinds: str
) -> Changed:
    columns = zip(*rows, strict=True)
    literals = tuple(_LITERALS[kind](column) for kind, column in zip(kinds, columns, strict=True))
    return driver.execute(statement, literals)
