"""Opening a database: one writer connection, a few readers, and the settings that durability rests on.

SQLite: one process writes (a lock on a file beside the database), through one connection. On libraries
before 3.51.3 two connections that write and checkpoint at the same instant can corrupt a WAL file, so the
writer alone checkpoints and the readers are opened read-only. PostgreSQL: the session's settings are set
here, and a server that would forget what it acknowledged is refused.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar
from urllib.parse import quote
from weakref import WeakSet

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from oanim_server.database import postgresql, sqlite
from oanim_server.database.wal import MOST_PAGES, Wal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sqlalchemy import RootTransaction

    from oanim_server.database.columns import Loaded
    from oanim_server.database.places import Places

T = TypeVar("T")

READERS = 4
# Two look-ups of keys, and the poll of those that were revoked.
BRIEF_READERS = 3
PAGE_BYTES = 2_048
# What a page in the cache takes: SQLite keeps headers beside it and malloc rounds both up. It counts a size
# in bytes without most of that, so that 256 MB would be 320: the cache's size is told in pages.
CACHED_PAGE_BYTES = 2_640
CACHE_PAGES = 256 * 1_024 * 1_024 // CACHED_PAGE_BYTES
# Every length of every hot statement, and room for the cold ones.
PREPARED_STATEMENTS = 512

# Of a session of PostgreSQL's: a lock that is waited for, a transaction that rests, a statement.
_TIMEOUTS = {"lock_timeout": 2, "idle_in_transaction_session_timeout": 5, "statement_timeout": 10}
# How long a reader may go on when the database is closed, before it is hung up on.
CLOSE_SECONDS = 2.0
# A server that was cut off is noticed in about ten seconds, whether we wait for it or it for us.
_NOTICED = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

# What a writer looks for it looks for by a key, and the plans of its statements are made once and kept: for a
# few keys PostgreSQL would make a plan each time, which takes it as long as all else of a call. On a young
# database it would rather read the whole of a small table, and would go on with that when it has grown, until
# it is analysed. Before version 18 what is off counts as so expensive that it would be compiled.
_BY_KEY = (
    "-c plan_cache_mode=force_generic_plan"
    " -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off"
)

# A duplicate is one of them: another replica wrote the same row first, and the next try sees it.
_CONFLICTS = {"40001", "40P01", "55P03", "57014", "23505"}
# The server is gone or going, this session is over, it takes no writes, or it has no room.
_AWAY = ("08", "25006", "25P03", "53", "57P01", "57P02", "57P03")
_SQLITE_AWAY = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}


class DatabaseError(Exception):
    """The database cannot be used as it is. The message says what to do."""


class CommitUnknownError(Exception):
    """COMMIT was sent and not answered, or answered by a server whose standby or disk did not."""


class Changed(Protocol):
    """What a write changed; told after `Statements.together` at the earliest."""

    @property
    def rowcount(self) -> int: ...


class Statements(Protocol):
    """The hot statements; `sqlite.py` and `postgresql.py` have them under the same names."""

    clock: Callable[..., int]
    snapshot_clock: Callable[..., int]
    lock_wallets: Callable[..., None]
    lock_and_load: Callable[..., Loaded]
    load_reservations: Callable[..., Any]
    due_reservations: Callable[..., Any]
    next_expiry: Callable[..., int | None]
    load_counters: Callable[..., Any]
    fetch_row: Callable[..., Any]
    fetch_rows: Callable[..., Any]
    fetch_charges: Callable[..., Any]
    fetch_moves: Callable[..., Any]
    fetch_capture: Callable[..., Any]
    together: Callable[..., AbstractContextManager[object]]
    places: Callable[..., Places | None]
    insert_wallets: Callable[..., Changed]
    update_wallets: Callable[..., Changed]
    rewrite_wallets: Callable[..., Changed]
    insert_lots: Callable[..., Changed]
    insert_reservations: Callable[..., Changed]
    update_reservations: Callable[..., Changed]
    insert_transactions: Callable[..., Changed]
    insert_usage_items: Callable[..., Changed]
    insert_refusals: Callable[..., Changed]
    upsert_counters: Callable[..., Changed]
    add_usage: Callable[..., Changed]


class Database:
    """A database that is open. `read` runs on a few threads of its own, each call in one snapshot.

    :raises DatabaseError: when it is in use, cannot be reached, or would not keep what it is told.
    """

    def __init__(self, dialect: Literal["sqlite", "postgresql"], writing: Engine, reading: Engine) -> None:
        self.dialect = dialect
        self.statements: Statements = sqlite if dialect == "sqlite" else postgresql
        self._writing = writing
        self._reading = reading
        self._lock: int | None = None
        self._wal = Wal()
        self._warned = False
        self._connections: WeakSet[psycopg.Connection[Any]] = WeakSet()
        self._connecting = threading.Lock()
        self._cut = False
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
        self._brief_readers = ThreadPoolExecutor(BRIEF_READERS, thread_name_prefix="reader-brief")
        if dialect == "postgresql":
            event.listen(writing, "connect", self._listen)
            for engine in (writing, reading):
                event.listen(engine, "do_connect", self._may_connect)
                event.listen(engine, "connect", self._connected)

    @classmethod
    def open_sqlite(cls, path: Path, *, lock: bool = True) -> Database:
        """Open the file, made when it is not there. Without the lock only reads are allowed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        held = _take_lock(path) if lock else None
        try:
            writing = create_engine("sqlite://", poolclass=NullPool, creator=partial(_sqlite_connect, path))
            event.listen(writing, "connect", _sqlite_writer)
            event.listen(writing, "begin", _begin_immediate)
            reading = create_engine(
                "sqlite://",
                poolclass=QueuePool,
                pool_size=READERS + BRIEF_READERS,
                max_overflow=2,
                creator=partial(_sqlite_connect, path, "?mode=ro"),
            )
            event.listen(reading, "connect", _sqlite_reader)
            event.listen(reading, "begin", _begin)
            database = cls("sqlite", writing, reading)
            database._lock = held
            if lock:
                with writing.connect() as connection:
                    _assert_sqlite(connection)
        except BaseException:
            if held is not None:
                os.close(held)
            raise
        return database

    @classmethod
    def open_postgresql(cls, url: str, *, unsafe: bool = False) -> Database:
        """Connect. `unsafe` accepts a server without fsync: for tests, which say so."""
        parsed = _parsed(url)
        session = " ".join(f"-c {name}={seconds}s" for name, seconds in _TIMEOUTS.items())
        writing = create_engine(
            parsed,
            poolclass=NullPool,
            isolation_level="READ COMMITTED",
            connect_args={**_NOTICED, "options": f"{session} {_BY_KEY}"},
        )
        reading = create_engine(
            parsed,
            pool_size=READERS + BRIEF_READERS,
            max_overflow=2,
            pool_pre_ping=True,
            isolation_level="REPEATABLE READ",
            connect_args={**_NOTICED, "options": f"{session} -c default_transaction_read_only=on"},
        )
        database = cls("postgresql", writing, reading)
        event.listen(writing, "connect", _postgresql_writer)
        try:
            with writing.connect() as connection:
                _assert_postgresql(connection, unsafe=unsafe)
        except DBAPIError as error:
            # Never the url: a password may stand in any part of it.
            where = f"{parsed.host or 'a local socket'}:{parsed.port or 5432}/{parsed.database}"
            message = f"PostgreSQL at {where} does not answer: {type(error.orig).__name__}"
            raise DatabaseError(message) from None
        return database

    # Reading --------------------------------------------------------------------------------------

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query on one of the readers' threads."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_now, query)

    async def read_briefly(self, query: Callable[[Connection], T]) -> T:
        """The same on threads of their own, for short look-ups that no long read may keep waiting."""
        return await asyncio.get_running_loop().run_in_executor(self._brief_readers, self.read_now, query)

    def read_now(self, query: Callable[[Connection], T]) -> T:
        """Run a query here, in one consistent snapshot."""
        with self._reading.connect() as connection, connection.begin():
            return query(connection)

    def read_patiently(self, query: Callable[[Connection], T]) -> T:
        """The same for what reads everything: it may take its time, and rest while rows are looked at."""

        def unhurried(connection: Connection) -> T:
            if self.dialect == "postgresql":
                for name in _TIMEOUTS:
                    connection.exec_driver_sql(f"SET LOCAL {name} = 0")
            return query(connection)

        return self.read_now(unhurried)

    # Writing: the committer's and the migrations' -------------------------------------------------

    def writer(self) -> Connection:
        """The writer's connection. On SQLite there is one; the lock is this process's."""
        if self.dialect == "sqlite" and self._lock is None:
            message = "this database was opened without its lock"
            raise DatabaseError(message)
        return self._writing.connect()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction of its own, for migrations and marks, while no committer runs."""
        with self.writer() as connection, connection.begin():
            yield connection

    def commit(self, transaction: RootTransaction) -> None:
        """Commit, and be sure.

        :raises CommitUnknownError: when the answer was lost, or the standby's was, or a disk failed.
        """
        self._warned = False
        try:
            transaction.commit()
        except DBAPIError as error:
            if _may_be_there(error):
                raise CommitUnknownError from error
            raise
        if self._warned:
            raise CommitUnknownError

    def touch(self, connection: Connection) -> None:
        """Write, without changing anything, so that the commit waits for all before it, the standby's too."""
        if self.dialect == "postgresql":
            connection.exec_driver_sql("SELECT pg_logical_emit_message(true, 'oanim', '')")

    def checkpoint(self, connection: Connection | None, *, idle: bool) -> None:
        """Move SQLite's WAL into the database: where it is long, or nothing else is to be done."""
        if self.dialect == "sqlite" and connection is not None:
            self._wal.checkpoint(driver_of(connection), idle=idle)

    def cut(self) -> None:
        """Hang up on a PostgreSQL that hangs: whoever waits for it is told that it is away, now and later."""
        with self._connecting:
            self._cut = True
            connections = list(self._connections)
        for connection in connections:
            # Its thread waits for the socket: nothing else wakes it.
            with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as end:
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the connections and of the lock. What SQLite's WAL has is then in the file itself."""
        reading = threading.Thread(target=self._stop_reading)
        reading.start()
        reading.join(CLOSE_SECONDS)
        if reading.is_alive():
            self.cut()
            reading.join()
        self._reading.dispose()
        self._writing.dispose()
        if self._lock is not None:
            # The last connection to close moves the WAL, but not one that may only read, as the readers' may.
            # Somebody will copy this one file. What fails here is done when the file is opened next.
            with suppress(DBAPIError), self._writing.connect():
                pass
            os.close(self._lock)
            self._lock = None

    def _may_connect(self, *_parameters: object) -> None:
        if self._cut:
            raise psycopg.OperationalError("the database is closed")

    def _connected(self, connection: psycopg.Connection[Any], _record: object) -> None:
        with self._connecting:
            self._connections.add(connection)
        self._may_connect()

    def _stop_reading(self) -> None:
        for readers in (self._readers, self._brief_readers):
            readers.shutdown(cancel_futures=True)

    def _listen(self, connection: psycopg.Connection[Any], _record: object) -> None:
        # "canceling wait for synchronous replication" is a warning, in the language of the server.
        connection.add_notice_handler(self._noticed)

    def _noticed(self, notice: psycopg.errors.Diagnostic) -> None:
        self._warned = self._warned or notice.severity_nonlocalized == "WARNING"


def driver_of(connection: Connection) -> Any:
    """The driver's own connection, for the hot statements."""
    return connection.connection.driver_connection


# Telling errors apart -------------------------------------------------------------------------------


def is_conflict(error: BaseException) -> bool:
    """Whether concurrent changes were the reason, so that the same again may succeed."""
    cause = _cause(error)
    if isinstance(cause, psycopg.Error):
        return cause.sqlstate in _CONFLICTS
    return isinstance(cause, sqlite3.OperationalError) and "locked" in str(cause)


def is_duplicate(error: BaseException) -> bool:
    """Whether a row of that key was there. Three times in a row, that is no race but a fault."""
    return isinstance(_cause(error), psycopg.errors.UniqueViolation)


def is_away(error: BaseException) -> bool:
    """Whether the database could not be asked."""
    if isinstance(error, CommitUnknownError):
        return True
    cause = _cause(error)
    if isinstance(cause, psycopg.Error):
        if cause.sqlstate is None:
            return isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError)
        return cause.sqlstate.startswith(_AWAY)
    if isinstance(cause, sqlite3.OperationalError):
        return cause.sqlite_errorcode & 0xFF in _SQLITE_AWAY
    return False


def _may_be_there(error: BaseException) -> bool:
    """Whether a COMMIT that failed may have been written: the disk did not confirm what it wrote.

    One without room had none before that was asked for, and left nothing.
    """
    cause = _cause(error)
    if isinstance(cause, psycopg.Error):
        return is_away(error) or cause.diag.severity_nonlocalized in ("FATAL", "PANIC")
    return (
        isinstance(cause, sqlite3.OperationalError) and cause.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR
    )


def _cause(error: BaseException) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error


# SQLite ---------------------------------------------------------------------------------------------


def _take_lock(path: Path) -> int:
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        message = f"{path} is in use by another oanim-server"
        raise DatabaseError(message) from None
    return descriptor


def _sqlite_connect(path: Path, mode: str = "") -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path))}{mode}",
        uri=True,
        check_same_thread=False,
        cached_statements=PREPARED_STATEMENTS,
    )


def _sqlite_writer(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    for pragma in (
        # A group changes a row here and there: half the page is half the WAL, a fifth less CPU a call.
        f"page_size = {PAGE_BYTES}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        f"cache_size = {CACHE_PAGES}",
        "mmap_size = 0",
        # A statement copies the pages that it changes to a journal of its own: by default into a file.
        "temp_store = MEMORY",
        f"wal_autocheckpoint = {MOST_PAGES}",
        "busy_timeout = 5000",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def _sqlite_reader(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    for pragma in ("mmap_size = 0", "wal_autocheckpoint = 0", "busy_timeout = 5000", "query_only = ON"):
        connection.execute(f"PRAGMA {pragma}").fetchall()


# On the driver's own connection: by SQLAlchemy's it was a tenth of a small group's time.
def _begin_immediate(connection: Connection) -> None:
    driver_of(connection).execute("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    driver_of(connection).execute("BEGIN")


def _assert_sqlite(connection: Connection) -> None:
    expected = {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "cache_size": CACHE_PAGES,
        "temp_store": 2,
    }
    for pragma, value in expected.items():
        found = connection.exec_driver_sql(f"PRAGMA {pragma}").scalar()
        if found != value:
            message = f"SQLite has {pragma} = {found} where {value} is needed"
            raise DatabaseError(message)


# PostgreSQL -----------------------------------------------------------------------------------------


def _parsed(url: str) -> URL:
    """Read the url. What is wrong with it is said without any part of it: a password may stand in each.

    :raises DatabaseError: when it cannot be read, or was not read as it was meant.
    """
    bad = (
        "OANIM_DATABASE_URL is not the url of a PostgreSQL: it is postgresql://user:password@host/database, "
        "and in a user or a password @ is written as %40, : as %3A and / as %2F"
    )
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise DatabaseError(bad) from None
    # What stands before an @ is no host and no database, but a password that was cut in two.
    if "@" in f"{parsed.host}{parsed.database}":
        raise DatabaseError(bad)
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed


def _postgresql_writer(connection: psycopg.Connection[Any], _record: object) -> None:
    found = connection.execute("SHOW synchronous_commit").fetchone()
    if found is not None and found[0] not in ("on", "remote_apply"):
        connection.execute("SET synchronous_commit = on")
    connection.commit()


def _assert_postgresql(connection: Connection, *, unsafe: bool) -> None:
    for setting in ("fsync", "full_page_writes"):
        value = connection.exec_driver_sql(f"SHOW {setting}").scalar()
        if value != "on" and not unsafe:
            message = (
                f"PostgreSQL has {setting} = {value}: it would forget what it acknowledged. Switch it on."
            )
            raise DatabaseError(message)
