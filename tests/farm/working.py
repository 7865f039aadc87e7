"""A worker within the test's process, and the service's half of a lease in words of the script."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from oanim import Client
from oanim_farm.heart import Times
from oanim_farm.job import Tools
from oanim_farm.slots import taken
from oanim_farm.worker import Worker
from oanim_remotion.browser import find
from oanim_remotion.bundle import pack
from oanim_remotion.installation import installation
from openanimate.metering.v1.render_service_pb2 import (
    CompleteRenderResponse,
    DownloadBundleResponse,
    FailRenderResponse,
    HeartbeatResponse,
    LeaseRenderResponse,
    Render,
    RenderCodec,
    RenderLease,
    RenderSpec,
)
from tests.sdk.scripted import Refusal, ScriptedServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

LEASE = "RenderService/LeaseRender"
BUNDLE = "RenderService/DownloadBundle"
HEARTBEAT = "RenderService/Heartbeat"
COMPLETE = "RenderService/CompleteRender"
FAIL = "RenderService/FailRender"

NO_WORK = LeaseRenderResponse()
GO_ON = HeartbeatResponse()
STOP = HeartbeatResponse(stop=True)
DONE = CompleteRenderResponse(render=Render(charged_micros=9))
ENDED = FailRenderResponse()
AWAY = Refusal(grpc.StatusCode.UNAVAILABLE, "DRAINING")
STALE = Refusal(grpc.StatusCode.FAILED_PRECONDITION, "STALE_LEASE", {"render_id": "a1-2", "epoch": "7"})

TIMES = Times(heartbeat=0.1, answer=5.0, asking=1, recovery=0.2, leaving=2.0)
SECONDS = 60.0


# How long what is left behind sleeps: it is known by that.
SLEEP = f"987.{random.randrange(1_000_000):06}"


def bundle_of(**orders: Any) -> bytes:
    """A bundle that orders the stand-in about."""
    orders = {"sleep": SLEEP, **orders}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "bundle")
        folder.mkdir()
        (folder / "index.html").write_text("<html></html>")
        (folder / "orders.json").write_text(json.dumps(orders))
        pack(folder, Path(name, "bundle.tar.gz"))
        return Path(name, "bundle.tar.gz").read_bytes()


def spec_of(**other: Any) -> RenderSpec:
    """One second, small."""
    usual = {"composition": "Main", "width": 64, "height": 64, "fps": 30, "frames": 30}
    return RenderSpec(**{**usual, "codec": RenderCodec.RENDER_CODEC_H264, **other})


def commands_with(words: str) -> list[str]:
    """The commands of all processes that were started with these words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found += [command] if words in command else []
    return found


def orphans() -> list[str]:
    """What the stand-in started before it hung, wherever that went."""
    return commands_with(f"sleep {SLEEP}")


def until(fact: Callable[[], object], seconds: float = SECONDS) -> None:
    """Return when something has become true."""
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.02)


def remove(folder: Path) -> None:
    """Remove a worker's folder."""
    shutil.rmtree(folder, ignore_errors=True)


class Working:
    """A worker that is run on a thread, once there is something to do."""

    def __init__(self, server: ScriptedServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.worker: Worker | None = None
        self._thread: threading.Thread | None = None
        self._lease = NO_WORK
        self.failure: BaseException | None = None
        server.script(HEARTBEAT, GO_ON)
        server.script(COMPLETE, DONE)
        server.script(FAIL, ENDED)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def lease(self, *, time_limit_seconds: int = 60, spec: RenderSpec | None = None, **orders: Any) -> None:
        """Have the service lease one render, and then no other."""
        bundle = bundle_of(**orders)
        lease = RenderLease(
            render_id="a1-2",
            account_id="a1",
            epoch=7,
            spec=spec or spec_of(),
            bundle_bytes=len(bundle),
            bundle_sha256=hashlib.sha256(bundle).digest(),
            time_limit_seconds=time_limit_seconds,
            attempt=1,
        )
        self._lease = LeaseRenderResponse(lease=lease)
        self.server.script(LEASE, *self.leases())
        self.server.script(BUNDLE, [DownloadBundleResponse(size_bytes=len(bundle), chunk=bundle)])

    def leases(self) -> list[Any]:
        """The script of one lease, and then none."""
        return [self._lease, self._no_work]

    def start(self, *, drain_seconds: float = 30.0, slots: int = 1) -> None:
        """Begin to work."""
        connect = partial(Client, "anim_worker", url=self.server.url)
        tools = Tools(installation(self.folder / "remotion"), find(), 500_000_000)
        self.worker = Worker(connect, tools, drain_seconds=drain_seconds, times=TIMES)
        self._thread = threading.Thread(target=self._run, args=(self.worker, slots))
        self._thread.start()

    def end(self) -> None:
        """End in the usual way."""
        if self.worker is not None and self._thread is not None:
            self.worker.stop()
            self._thread.join(SECONDS)
            assert not self._thread.is_alive()

    def work(self) -> None:
        """Start, and return when the one lease is over and other work was asked for."""
        self.start()
        self.server.wait_for(LEASE, 2)

    def asked(self, method: str) -> list[Any]:
        """What the service was asked."""
        return self.server.requests(method)

    def frames_reported(self) -> list[int]:
        """What the heartbeats said."""
        return [request.frames for request in self.asked(HEARTBEAT)]

    def left(self) -> list[str]:
        """What is left in the slots."""
        return [path.name for path in self.folder.glob("[0-9]*") if path.is_dir()]

    def _run(self, worker: Worker, slots: int) -> None:
        try:
            with taken(self.folder, slots) as some:
                worker.run(some)
        except BaseException as failure:  # noqa: BLE001  (handed to the test)
            self.failure = failure

    def _no_work(self, _request: object) -> LeaseRenderResponse:
        time.sleep(0.1)
        return NO_WORK
