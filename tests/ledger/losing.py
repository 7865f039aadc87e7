"""A proxy before PostgreSQL's unix socket that loses what a test tells it to lose."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import make_url

if TYPE_CHECKING:
    from collections.abc import Callable

COMMIT = b"COMMIT\x00"
SOCKET = ".s.PGSQL.5432"


class Proxy:
    """Passes bytes on, but for the next COMMIT when `at_commit` says what becomes of it.

    `at_commit` is called once, with the message and the server's side of the connection; the client's side is
    closed before, and has then been told what `says` is. While it is `refusing`, every new connection ends at
    once; while it is not `passing`, it takes what comes and passes nothing on, like a server that hangs.
    """

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        self._target = str(Path(str(parsed.query["host"])) / SOCKET)
        self._directory = Path(tempfile.mkdtemp(prefix="oanim-proxy-"))
        self.url = parsed.update_query_dict({"host": str(self._directory)}).render_as_string(
            hide_password=False
        )
        self.at_commit: Callable[[bytes, socket.socket], None] | None = None
        self.says = b""
        self.lost = 0
        self.refusing = False
        self.passing = threading.Event()
        self.passing.set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._directory / SOCKET))
        self._listener.listen(20)
        self._sockets = [self._listener]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """End every connection; the ledger behind it has been closed before."""
        self.passing.set()
        _hang_up(*self._sockets)
        for thread in self._threads:
            thread.join(10)
        for end in self._sockets:
            end.close()
        shutil.rmtree(self._directory)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            self._sockets += (client, server)
            try:
                if self.refusing:
                    raise ConnectionRefusedError
                server.connect(self._target)
            except OSError:  # as if nobody listened
                _hang_up(client)
                continue
            for passing in (self._pass_on, self._pass_back):
                thread = threading.Thread(target=passing, args=(client, server), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while message := client.recv(1 << 16):
                self.passing.wait()
                at_commit = self.at_commit
                if at_commit is not None and COMMIT in message:
                    self.at_commit = None
                    self.lost += 1
                    client.sendall(self.says)
                    client.shutdown(socket.SHUT_RDWR)
                    at_commit(message, server)
                    break
                server.sendall(message)
        _hang_up(client, server)

    def _pass_back(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while message := server.recv(1 << 16):
                self.passing.wait()
                with suppress(OSError):
                    client.sendall(message)
        _hang_up(client, server)


def _hang_up(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def never_sent(message: bytes, server: socket.socket) -> None:
    """The COMMIT is lost on its way."""


def not_answered(message: bytes, server: socket.socket) -> None:
    """The COMMIT is done; its answer is lost on the way back."""
    server.sendall(message)
    time.sleep(0.1)


def sent_late(message: bytes, server: socket.socket) -> None:
    """The COMMIT arrives when the client has given it up and has asked what became of it."""
    time.sleep(0.7)
    server.sendall(message)
    time.sleep(0.1)
