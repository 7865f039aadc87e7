"""A service, its workers and a customer: processes to be killed, and what is left to be looked at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from oanim import Client
from openanimate.metering.v1.render_service_pb2 import Render, RenderState
from openanimate.metering.v1.role_pb2 import Role
from tests.farm.working import SECONDS, bundle_of, spec_of, until
from tests.server import ServerProcess, spawned
from tests.videos import seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

ROOT = Path(__file__).parents[2]
OURS = ("OANIM_", "ANIMATE_")
FREE_MICROS = 5_000_000
SUCCEEDED = RenderState.RENDER_STATE_SUCCEEDED
# 30 frames of 4,096 pixels at 30 a second are 5 kilopixel-seconds, rounded up.
QUOTE_MICROS = 10


class Outcome(NamedTuple):
    """What is left when a render has ended: its own end, the customer's money, and the video."""

    state: int
    frames: int
    charged_micros: int
    balance_micros: int
    held_micros: int
    charges: int
    video_frames: int


WELL = Outcome(SUCCEEDED, 30, QUOTE_MICROS, FREE_MICROS - QUOTE_MICROS, 0, 1, 30)


class Scene:
    """A service at one address, whose process may be killed and started again."""

    def __init__(
        self,
        environment: dict[str, str],
        folder: Path,
        farm_folder: Path,
        port: int,
        *,
        long_leases: bool = False,
    ) -> None:
        self._environment = {
            "OANIM_PORT": str(port),
            "OANIM_DATA": str(folder / "data"),
            "OANIM_FREE_CREDITS_DAILY_CAP_USD": "100000",
            **environment,
        }
        self._folder = folder
        self._farm_folder = farm_folder
        self._stack = ExitStack()
        self.url = f"http://127.0.0.1:{port}"
        self.server: ServerProcess

    def start_server(self, dies_at: str = "none", *, lease_seconds: int = 3) -> None:
        """Have it serve, until it kills itself at a step of tests/rendering/serving.py."""
        program = ("tests.rendering.serving", dies_at)
        environment = {**self._environment, "LEASE_SECONDS": str(lease_seconds)}
        log = self._folder / "server.log"
        self.server = self._stack.enter_context(spawned(environment, log, program=program))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def worker_key(self) -> str:
        """A worker's key."""
        return self.server.create_key(Role.ROLE_WORKER).token

    @contextmanager
    def worker(self, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker that is ready, killed at the end if it still runs."""
        environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith(OURS)},
            "ANIMATE_API_URL": self.url,
            "ANIMATE_API_KEY": self.worker_key,
            "OANIM_FARM_FOLDER": str(self._farm_folder),
            "OANIM_FARM_BROWSER": "chromium",
        }
        environment |= settings
        with (self._folder / "worker.log").open("a") as log:
            before = self._ready()
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.farm.program"], env=environment, stderr=log, cwd=ROOT
            )
        try:
            # Told to end before that, it would die of the signal: the render may be done without it.
            until(lambda: self._ready() > before or process.poll() is not None)
            assert process.poll() is None, self.worker_log()
            yield process
        finally:
            process.kill()
            process.wait()

    def worker_log(self) -> str:
        """What the workers have logged."""
        return (self._folder / "worker.log").read_text()

    def _ready(self) -> int:
        return self.worker_log().count(" ready: ")

    def audit(self) -> tuple[int, str]:
        """What the audit says of every wallet."""
        environment = {**os.environ, **self._environment}
        done = subprocess.run(
            [sys.executable, "-m", "oanim_server", "audit"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def customer(self) -> Customer:
        """A new account."""
        return Customer(self.url, self.server.sign_up().token, self._folder)


class Customer:
    """An account with one render."""

    def __init__(self, url: str, token: str, folder: Path) -> None:
        self.client = Client(token, url=url)
        self._folder = folder
        self.render_id = ""

    def submit(self, **orders: Any) -> None:
        """Have one second rendered."""
        answer = self.client.submit_render(bundle=bundle_of(**orders), spec=spec_of())
        assert answer.render.quoted_micros == QUOTE_MICROS
        self.render_id = answer.render.render_id

    def render(self) -> Render:
        """The render now."""
        return self.client.get_render(render_id=self.render_id).render

    def ended(self) -> bool:
        """Whether the render has ended."""
        return self.render().HasField("finished_at")

    def until(self, fact: Callable[[Render], bool]) -> None:
        """Return when something is true of the render."""
        until(lambda: fact(self.render()))

    def outcome(self) -> Outcome:
        """Wait for the render's end, and look at all that is left."""
        *_, last = self.client.watch_render(render_id=self.render_id, timeout_s=SECONDS)
        render, video_frames = last.render, 0
        if render.state == SUCCEEDED:
            path = self._folder / f"{uuid.uuid4()}.mp4"
            self.client.download_render(render_id=self.render_id, path=path)
            video_frames = seen(path).frames
        wallet = self.client.get_wallet().wallet
        return Outcome(
            render.state,
            render.frames_done,
            render.charged_micros,
            wallet.balance_micros,
            wallet.held_micros,
            len(self.client.list_usage().records),
            video_frames,
        )


def end(process: subprocess.Popen[bytes]) -> int:
    """Tell a worker to end."""
    process.send_signal(signal.SIGTERM)
    return process.wait(SECONDS)
