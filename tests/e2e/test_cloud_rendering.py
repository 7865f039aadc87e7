"""A render in the cloud, by the real Remotion and a real browser: one second, whole, paid by the frame."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oanim import Client
from oanim_farm.settings import MAX_FOLDER_BYTES
from oanim_remotion.bundle import pack
from openanimate.metering.v1.render_service_pb2 import Render, RenderCodec, RenderSpec, RenderState
from tests.e2e.conftest import BIN
from tests.farm.working import commands_with, until
from tests.videos import Seen, colour_at, seen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oanim_remotion.installation import Installation
    from tests.e2e.conftest import Dev

# The first test of a session waits for npm, which gets Remotion from its registry.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

FREE_MICROS = 5_000_000
# For one attempt, which starts a browser twice, beside other tests that do.
PATIENCE_S = 60


@pytest.fixture
def customer(dev: Dev) -> Iterator[Client]:
    """A new account."""
    with Client("", url=dev.url) as nobody:
        secret = nobody.sign_up(email=f"{uuid.uuid4()}@example.com").secret
    with Client(secret, url=dev.url) as client:
        yield client


@pytest.fixture
def folder(remotion: Installation) -> Iterator[Path]:
    """A worker's folder with the longest path that it may have, where Remotion is installed already."""
    top = Path(tempfile.mkdtemp(prefix="farm-", dir="/tmp"))
    folder = top / ("f" * (MAX_FOLDER_BYTES - len(bytes(top)) - 1))
    folder.mkdir()
    (folder / "remotion").symlink_to(remotion.folder.parent)
    yield folder
    shutil.rmtree(top)


@contextmanager
def worker(dev: Dev, folder: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker, told to end at the end if it still runs."""
    environment = {
        **dev.environment,
        "PATH": os.environ["PATH"],
        "ANIMATE_API_KEY": dev.keys["worker"],
        "OANIM_FARM_FOLDER": str(folder),
    }
    with (
        log.open("w") as stderr,
        subprocess.Popen([BIN / "oanim-farm"], env=environment, stderr=stderr) as process,
    ):
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(PATIENCE_S)
            # A test that fails shows what its worker said.
            sys.stdout.write(log.read_text())
    assert status in (0, -signal.SIGKILL)
    assert dev.keys["worker"] not in log.read_text()


def submitted(customer: Client, bundle: Path, tmp_path: Path, **spec: object) -> Render:
    pack(bundle, tmp_path / "bundle.tar.gz")
    usual = {"composition": "Plain", "width": 640, "height": 360, "fps": 25, "frames": 25}
    whole = RenderSpec(**{"codec": RenderCodec.RENDER_CODEC_H264, **usual, **spec})  # type: ignore[arg-type]
    return customer.submit_render(bundle=tmp_path / "bundle.tar.gz", spec=whole).render


def ended(customer: Client, render: Render, *, attempts: int = 1) -> Render:
    """Watch it to its end, after so many attempts."""
    *_, last = customer.watch_render(render_id=render.render_id, timeout_s=attempts * PATIENCE_S)
    return last.render


def money(customer: Client) -> tuple[int, int]:
    wallet = customer.get_wallet().wallet
    return wallet.balance_micros, wallet.held_micros


def test_one_second_is_rendered_delivered_and_charged_by_its_frames(
    dev: Dev, customer: Client, bundle: Path, folder: Path, tmp_path: Path
) -> None:
    render = submitted(customer, bundle, tmp_path, props_json='{"colour": "#00ff00"}')
    assert money(customer) == (FREE_MICROS, render.quoted_micros)
    with worker(dev, folder, tmp_path / "log"):
        done = ended(customer, render)
        said = customer.download_render(render_id=render.render_id, path=tmp_path / "out" / "video.mp4")

    # 25 frames of 230,400 pixels at 25 a second: 231 kilopixel-seconds of 2 micro-USD.
    assert (done.state, done.frames_done, done.attempts) == (RenderState.RENDER_STATE_SUCCEEDED, 25, 1)
    assert (render.quoted_micros, done.charged_micros) == (462, 462)
    assert money(customer) == (FREE_MICROS - 462, 0)
    video = tmp_path / "out" / "video.mp4"
    assert seen(video) == Seen("h264", 640, 360, Fraction(25), 25)
    assert colour_at(video, 0.75, 0.5)[1] > 200
    assert said.sha256 == hashlib.sha256(video.read_bytes()).digest()
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["remotion"]


def test_an_animation_that_fails_three_times_costs_nothing(
    dev: Dev, customer: Client, bundle: Path, folder: Path, tmp_path: Path
) -> None:
    render = submitted(customer, bundle, tmp_path, props_json='{"failAt": 3}')
    with worker(dev, folder, tmp_path / "log"):
        done = ended(customer, render, attempts=3)

    assert (done.state, done.charged_micros, done.attempts) == (RenderState.RENDER_STATE_FAILED, 0, 3)
    assert done.failure.message == "this frame cannot be drawn"
    assert money(customer) == (FREE_MICROS, 0)


def test_a_killed_worker_leaves_no_browser(
    dev: Dev, customer: Client, bundle: Path, folder: Path, tmp_path: Path
) -> None:
    render = submitted(customer, bundle, tmp_path, props_json='{"busyMs": 400}')
    with worker(dev, folder, tmp_path / "log") as process:
        for state in customer.watch_render(render_id=render.render_id, timeout_s=PATIENCE_S):
            if state.render.frames_done:
                break
        assert "--user-data-dir" in " ".join(commands_with(str(folder)))
        process.kill()
    until(lambda: commands_with(str(folder)) == [])
    customer.cancel_render(render_id=render.render_id)
    assert money(customer)[1] == 0
