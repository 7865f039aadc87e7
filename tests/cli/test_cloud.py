"""`oanim render --cloud` against a real server, with a worker played by the test."""

from __future__ import annotations

import json
import random
import re
import shlex
import shutil
import signal
import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest

from oanim.client import Client
from oanim.errors import StaleLease
from oanim.keys import new_key
from oanim_remotion.bundle import unpack
from openanimate.metering.v1.render_service_pb2 import RenderCodec
from tests.cli.pretending import project
from tests.cli.running import PROGRAM, line_of
from tests.sdk.serving import RealServer
from tests.videos import Seen, made, seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Self

    from openanimate.metering.v1.render_service_pb2 import RenderLease
    from tests.cli.running import Cli

# A second of 320x180: 57.6 kilopixel-seconds, rounded up, of 2 micro-USD each.
PRICE = 116
CLOUD = ("render", "--cloud", "--out", "kite.mp4")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A server that no test harms."""
    with RealServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def user(cli: Cli, real: RealServer) -> Cli:
    """A user with $5.00 of free credits and a project whose only composition takes a second."""
    with Client("", url=real.url) as client:
        key = client.sign_up(email=f"{new_key()}@example.com").secret
    cli.variables |= {"ANIMATE_API_KEY": key, "ANIMATE_API_URL": real.url}
    project(cli)
    return cli


@pytest.fixture
def wallet(user: Cli) -> Callable[[], tuple[int, int]]:
    """What the user has, and what is held of it."""

    def look() -> tuple[int, int]:
        with Client(user.variables["ANIMATE_API_KEY"], url=user.variables["ANIMATE_API_URL"]) as client:
            wallet = client.get_wallet().wallet
        return wallet.balance_micros, wallet.held_micros

    return look


class Worker:
    """A worker: leases one render, reports, and delivers a video that is as the spec says."""

    def __init__(self, client: Client, folder: Path) -> None:
        self.client = client
        self.folder = folder
        self.leases: list[RenderLease] = []

    def lease(self) -> RenderLease:
        for _ in range(20):
            lease = self.client.lease_render(wait_seconds=3).lease
            if lease.render_id:
                self.leases.append(lease)
                return lease
        raise AssertionError("nothing was to be rendered")

    def report(self, lease: RenderLease, frames: int) -> None:
        self.client.heartbeat(render_id=lease.render_id, epoch=lease.epoch, frames=frames)

    def complete(self, lease: RenderLease) -> None:
        spec = lease.spec
        size = {"width": spec.width, "height": spec.height, "fps": spec.fps, "frames": spec.frames}
        video = made(self.folder / f"{lease.render_id}.mp4", **size)
        self.client.complete_render(
            render_id=lease.render_id, epoch=lease.epoch, frames=spec.frames, video=video
        )

    def render(self) -> None:
        lease = self.lease()
        self.report(lease, lease.spec.frames // 2)
        self.complete(lease)


@pytest.fixture
def worker(real: RealServer, tmp_path: Path) -> Iterator[Worker]:
    with Client(real.keys["worker"], url=real.url) as client:
        yield Worker(client, tmp_path)


@contextmanager
def working(work: Callable[[], None]) -> Iterator[None]:
    """Have the worker work meanwhile; what goes wrong there fails the test."""
    failures: list[BaseException] = []

    def noted() -> None:
        try:
            work()
        except BaseException as failure:
            failures.append(failure)
            raise

    thread = threading.Thread(target=noted)
    thread.start()
    try:
        yield
    finally:
        thread.join(60)
    assert failures == []


def answer(ended: Any) -> Any:
    assert ended.exit_code == 0, ended.err
    return json.loads(ended.out)


def test_a_quote_shows_the_price_and_spends_nothing(user: Cli, wallet: Callable[[], object]) -> None:
    shown = user.run("render", "--cloud", "--quote")
    data = answer(user.run("render", "--cloud", "--quote", "--res", "640x360", "--fps", "60", "--json"))

    assert (shown.exit_code, shown.out) == (0, "$0.000116 for 1 s of Main at 320x180\n")
    assert (data["amount_micros"], data["width"], data["fps"], data["frames"]) == (462, 640, 60, 60)
    assert wallet() == (5_000_000, 0)
    assert answer(user.run("render", "list", "--json")) == {"renders": []}


def test_a_video_is_rendered_downloaded_and_charged(
    user: Cli, worker: Worker, wallet: Callable[[], object], tmp_path: Path
) -> None:
    options = ["--props", '{"title": "kite"}', "--fps", "10", "--res", "160x90"]
    with working(worker.render):
        ended = user.run(*CLOUD, *options)

    (lease,) = worker.leases
    assert ended.exit_code == 0, ended.err
    assert seen(user.folder / "kite.mp4") == Seen("h264", 160, 90, Fraction(10), 10)
    size = (user.folder / "kite.mp4").stat().st_size / 1_000
    assert ended.out == (
        f"kite.mp4\n  size        {size:.1f} kB\n  resolution  160x90\n  fps         10\n  codec       h264\n"
        f"  length      1 s, 10 frames\nCharged $0.00003, $4.99997 is left.\nRender {lease.render_id}\n"
    )
    assert f"accepted as {lease.render_id}, $0.00003 held" in ended.err
    assert "rendering: 50 %" in ended.err
    assert wallet() == (4_999_970, 0)
    spec = lease.spec
    assert (spec.composition, spec.width, spec.height, spec.fps, spec.frames) == ("Main", 160, 90, 10, 10)
    assert (spec.codec, spec.props_json) == (RenderCodec.RENDER_CODEC_H264, '{"title": "kite"}')


def test_what_is_sent_is_the_projects_bundle(user: Cli, worker: Worker, tmp_path: Path) -> None:
    def look() -> None:
        lease = worker.lease()
        path = tmp_path / "bundle.tar.gz"
        worker.client.download_bundle(
            render_id=lease.render_id, epoch=lease.epoch, bundle_sha256=lease.bundle_sha256, path=path
        )
        unpack(path, tmp_path / "unpacked")
        worker.complete(lease)

    with working(look):
        assert user.run(*CLOUD).exit_code == 0
    assert [path.name for path in (tmp_path / "unpacked").iterdir()] == ["index.html"]


def test_json_has_the_render_and_the_wallet(user: Cli, worker: Worker) -> None:
    with working(worker.render):
        data = answer(user.run(*CLOUD, "--codec", "h264", "--json"))

    assert (data["path"], data["frames"], data["seconds"], data["replayed"]) == ("kite.mp4", 30, 1.0, False)
    assert data["render"]["state"] == "succeeded"
    assert data["render"]["charged_micros"] == PRICE
    assert data["wallet"]["available_micros"] == 5_000_000 - PRICE


def test_without_the_credits_nothing_is_sent(user: Cli, wallet: Callable[[], object]) -> None:
    (user.folder / "compositions.txt").write_text("Main    30      7680x4320       180000 (6000.00 sec)\n")
    ended = user.run(*CLOUD, "--yes")

    assert (ended.exit_code, ended.out) == (3, "")
    assert ended.err.splitlines()[-1] == (
        "oanim: this needs $398.1312 and $5.00 is left. Top up: oanim billing buy --amount 394"
    )
    assert "uploading" not in ended.err
    assert wallet() == (5_000_000, 0)
    assert not (user.folder / "kite.mp4").exists()


def test_a_session_spends_no_more_than_it_may(user: Cli, wallet: Callable[[], object]) -> None:
    user.variables |= {"ANIMATE_MAX_USD_PER_RUN": "0.0001", "ANIMATE_SESSION_ID": "night"}
    ended = user.run(*CLOUD)

    assert ended.exit_code == 3
    assert "this needs $0.000116, and the session night has used $0.00 of the $0.0001" in ended.err
    assert wallet() == (5_000_000, 0)


def test_more_than_a_dollar_is_asked_about_on_a_terminal(user: Cli) -> None:
    (user.folder / "compositions.txt").write_text("Main    30      1920x1080       9000 (300.00 sec)\n")
    code, shown = user.on_terminal([PROGRAM, *CLOUD], typed="n\n", after="Go on?")

    assert code == 1
    assert "This costs $1.24416 for 300 s of Main at 1920x1080. Go on?" in shown
    assert "nothing was rendered, and nothing was spent." in shown
    assert answer(user.run("render", "list", "--json")) == {"renders": []}


def test_ctrl_c_detaches_and_get_takes_it_up(user: Cli, worker: Worker, wallet: Callable[[], object]) -> None:
    lease = None
    with user.start(*CLOUD) as process:
        line_of(process, "waiting for a worker")
        lease = worker.lease()
        worker.report(lease, 15)
        line_of(process, "rendering: 50 %")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)

    get = f"oanim render get {lease.render_id} --out kite.mp4"
    assert process.returncode == 130
    assert err.splitlines()[-1] == f"oanim: interrupted; the render goes on. Get it later: {get}"
    assert wallet() == (5_000_000, PRICE)
    with working(lambda: worker.complete(lease)):
        got = user.run(*get.split()[1:])
    assert got.exit_code == 0, got.err
    assert f"Charged $0.000116, $4.999884 is left.\nRender {lease.render_id}\n" in got.out
    assert seen(user.folder / "kite.mp4").frames == 30
    again = answer(user.run("render", "get", lease.render_id, "--json"))
    assert again["path"] == f"{lease.render_id}.mp4"


def test_the_same_key_is_the_same_render(user: Cli, worker: Worker, wallet: Callable[[], object]) -> None:
    with working(worker.render):
        first = answer(user.run(*CLOUD, "--key", "tonight", "--json"))
    (user.folder / "kite.mp4").unlink()
    second = answer(user.run(*CLOUD, "--key", "tonight", "--json"))
    other = user.run(*CLOUD, "--key", "tonight", "--fps", "15")

    assert (first["replayed"], second["replayed"]) == (False, True)
    assert first["render"] == second["render"]
    assert (user.folder / "kite.mp4").exists()
    assert wallet() == (5_000_000 - PRICE, 0)
    assert other.exit_code == 1
    assert "this --key named another request before" in other.err


def test_the_same_key_is_the_same_render_where_the_credits_for_another_are_not_there(
    user: Cli, wallet: Callable[[], object]
) -> None:
    # Most of $5.00, held by the first.
    (user.folder / "compositions.txt").write_text("Main    30      1920x1080       36000 (1200.00 sec)\n")
    command = (*CLOUD, "--yes", "--key", "nightly")
    taken = detached(user, command)
    # On a machine that has not seen the key, in the same session.
    shutil.rmtree(user.home / ".oanim")

    assert detached(user, command) == taken
    assert wallet() == (5_000_000, 4_976_640)
    assert user.run("render", "cancel", taken).exit_code == 0


def detached(user: Cli, command: Sequence[str]) -> str:
    """Start a render, and leave it to itself when it waits for a worker; its id."""
    with user.start(*command) as process:
        render_id = line_of(process, "accepted as").split()[2].rstrip(",")
        line_of(process, "waiting for a worker")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    return render_id


def test_a_key_whose_bundle_never_left_counts_where_it_is_used_next(user: Cli) -> None:
    unsendable = user.folder / "bundled" / "back\\slash"
    unsendable.touch()
    assert user.run(*CLOUD, "--key", "k").exit_code == 1
    unsendable.unlink()
    user.variables |= {"ANIMATE_SESSION_ID": "elsewhere", "ANIMATE_MAX_USD_PER_RUN": "0.0001"}
    ended = user.run(*CLOUD, "--key", "k")
    assert ended.exit_code == 3
    assert "the session elsewhere has used $0.00 of the $0.0001" in ended.err


def test_an_upload_that_is_interrupted_holds_nothing_and_names_its_key(
    user: Cli, real: RealServer, wallet: Callable[[], object]
) -> None:
    (user.folder / "bundled" / "noise.bin").write_bytes(random.Random(1).randbytes(6_000_000))
    with Stalling(int(real.url.rpartition(":")[2]), most_bytes=3_000_000) as way:
        user.variables["ANIMATE_API_URL"] = way.url
        with user.start(*CLOUD) as process:
            line_of(process, "uploading the bundle")
            assert way.is_full.wait(30)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    printed = re.search(r"the same key repeats it without doing it twice: oanim (.*)", err)
    assert printed, err
    user.variables["ANIMATE_API_URL"] = real.url
    assert wallet() == (5_000_000, 0)
    again = shlex.split(printed[1])

    taken = detached(user, again)
    assert detached(user, again) == taken
    assert wallet() == (5_000_000, PRICE)
    assert user.run("render", "cancel", taken).exit_code == 0


class Stalling:
    """A way to a server that passes so many bytes on to it, and then no more; what it answers comes back."""

    def __init__(self, port: int, *, most_bytes: int) -> None:
        self._target = ("127.0.0.1", port)
        self._left = most_bytes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.is_full = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self._listener, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._ends += client, server
                for way in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass, args=way, daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:  # noqa: FBT001
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
                if counted:
                    self._left -= len(data)
                    if self._left <= 0:
                        self.is_full.set()
                        return


def test_a_kill_loses_nothing(user: Cli, worker: Worker, wallet: Callable[[], object]) -> None:
    with user.start(*CLOUD, "--key", "killed") as process:
        line_of(process, "accepted as")
        process.kill()
        process.communicate()
    with working(worker.render):
        data = answer(user.run(*CLOUD, "--key", "killed", "--json"))

    assert data["replayed"]
    assert wallet() == (5_000_000 - PRICE, 0)


def test_a_render_that_fails_costs_nothing_and_says_why(
    user: Cli, worker: Worker, wallet: Callable[[], object]
) -> None:
    def fail() -> None:
        for _ in range(3):
            lease = worker.lease()
            worker.report(lease, 10)
            worker.client.fail_render(render_id=lease.render_id, epoch=lease.epoch, message="boom at frame 3")

    with working(fail):
        ended = user.run(*CLOUD)

    assert (ended.exit_code, ended.out) == (1, "")
    render_id = worker.leases[0].render_id
    assert ended.err.splitlines()[-1] == (
        f"oanim: render {render_id} failed: boom at frame 3. Nothing was charged."
    )
    assert wallet() == (5_000_000, 0)


def test_a_cancelled_render_costs_the_frames_that_are_done(
    user: Cli, worker: Worker, wallet: Callable[[], object]
) -> None:
    with user.start(*CLOUD) as process:
        line_of(process, "waiting for a worker")
        lease = worker.lease()
        worker.report(lease, 15)
        line_of(process, "rendering: 50 %")
        listed = user.run("render", "list")
        cancelled = user.run("render", "cancel", lease.render_id)
        again = user.run("render", "cancel", lease.render_id)
        _, err = process.communicate(timeout=30)

    said = f"ender {lease.render_id} was cancelled. Charged $0.000058 for 15 of 30 frames."
    assert (cancelled.exit_code, cancelled.out) == (0, f"R{said}\n$4.999942 is left.\n")
    assert again == cancelled
    assert (process.returncode, err.splitlines()[-1]) == (1, f"oanim: r{said}")
    assert wallet() == (4_999_942, 0)
    assert listed.out.splitlines()[1].split()[2:] == [
        "rendering",
        "15/30",
        "Main",
        "320x180",
        "-",
        "$0.000116",
        lease.render_id,
    ]
    with pytest.raises(StaleLease):
        worker.complete(lease)


def test_a_render_that_is_anothers_is_as_if_there_were_none(user: Cli, real: RealServer) -> None:
    with user.start(*CLOUD) as process:
        render_id = line_of(process, "accepted as").split()[2].rstrip(",")
        with Client("", url=real.url) as client:
            own = {"ANIMATE_API_KEY": client.sign_up(email=f"{new_key()}@example.com").secret}
        other = replace(user, variables=user.variables | own)
        for command in ("get", "cancel"):
            foreign, unknown = other.run("render", command, render_id), other.run("render", command, "1-1")
            assert (foreign.exit_code, foreign.out) == (1, "")
            assert foreign.err.replace(render_id, "ID") == unknown.err.replace("1-1", "ID")
        assert answer(other.run("render", "list", "--json")) == {"renders": []}
        assert user.run("render", "cancel", render_id).exit_code == 0
        process.communicate(timeout=30)


def test_a_service_that_starts_anew_is_waited_for(user: Cli, tmp_path: Path, free_port: int) -> None:
    with RealServer(tmp_path / "own", free_port) as own:
        with Client("", url=own.url) as client:
            key = client.sign_up(email=f"{new_key()}@example.com").secret
        user.variables |= {"ANIMATE_API_KEY": key, "ANIMATE_API_URL": own.url}
        with user.start(*CLOUD, "--json") as process:
            line_of(process, "waiting for a worker")
            own.restart()
            with Client(own.keys["worker"], url=own.url) as client:
                Worker(client, tmp_path).render()
            out, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert json.loads(out)["render"]["charged_micros"] == PRICE
    assert "the service does not answer; asking again" in err


def test_a_project_that_cannot_be_sent_says_why(user: Cli, wallet: Callable[[], object]) -> None:
    (user.folder / "bundled" / "back\\slash").touch()
    ended = user.run(*CLOUD)

    assert ended.exit_code == 1
    assert ended.err.splitlines()[-1] == (
        "oanim: the project cannot be sent: back\\slash: its name holds a backslash or a control character."
    )
    assert wallet() == (5_000_000, 0)


def test_nobody_who_is_not_signed_in_waits_for_a_bundle(cli: Cli) -> None:
    project(cli)
    ended = cli.run(*CLOUD)

    assert ended.exit_code == 4
    assert "bundling" not in ended.err


@pytest.mark.parametrize("option", ["--quote", "--yes", "--key=k"])
def test_what_is_for_the_cloud_alone_says_so(cli: Cli, option: str) -> None:
    ended = cli.run("render", option)

    assert ended.exit_code == 2
    assert "--quote, --yes and --key go with --cloud; rendering here costs nothing." in ended.err


def test_a_service_that_is_away_is_said_to_be(user: Cli, free_port: int) -> None:
    user.variables["ANIMATE_API_URL"] = f"http://127.0.0.1:{free_port}"

    assert user.run(*CLOUD).exit_code == 5
