"""A proxy on loopback that cuts every connection after so many bytes: in a frame, a message, or between."""

from __future__ import annotations

import random
import socket
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

_RESET = struct.pack("ii", 1, 0)


class Cutter:
    """Passes bytes on both ways, as many a connection as chance allows, then hangs up on both ends.

    :param most_bytes: the most that a connection may pass, both ways together.
    """

    def __init__(self, port: int, *, most_bytes: int, seed: int) -> None:
        self._target = ("127.0.0.1", port)
        self._most_bytes = most_bytes
        self._chance = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[_Passage] = set()
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.cuts = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for passage in list(self._open):
            passage.hang_up(reset=False)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            # The longest ones are rare, and one that passes nearly nothing is not.
            left = int(self._most_bytes * self._chance.random() ** 2)
            passage = _Passage(client, server, left, reset=self._chance.random() < 0.5)
            self._open.add(passage)
            threading.Thread(target=self._pass, args=(passage,), daemon=True).start()

    def _pass(self, passage: _Passage) -> None:
        if passage.pass_all():
            self.cuts += 1
        self._open.discard(passage)


class _Passage:
    """One connection through the proxy."""

    def __init__(self, client: socket.socket, server: socket.socket, left: int, *, reset: bool) -> None:
        self._ends = (client, server)
        self._left = left
        self._reset = reset
        self._lock = threading.Lock()

    def pass_all(self) -> bool:
        """Pass on until an end is closed or enough has passed; whether the latter."""
        client, server = self._ends
        back = threading.Thread(target=self._pass, args=(server, client), daemon=True)
        back.start()
        self._pass(client, server)
        back.join()
        self.hang_up(reset=self._reset)
        return self._left <= 0

    def hang_up(self, *, reset: bool) -> None:
        """Close both ends, with a reset or in order."""
        for end in self._ends:
            with suppress(OSError):
                if reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                else:
                    end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                with self._lock:
                    data, self._left = data[: max(self._left, 0)], self._left - len(data)
                    is_cut = self._left <= 0
                sink.sendall(data)
                if is_cut:
                    break
        # The other direction must not wait for more.
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RD)
