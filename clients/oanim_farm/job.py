"""One lease, from its bundle to its end: the video is delivered, the render has failed, or it is handed back.

Whatever goes wrong on the way, the slot's folder is empty after it, nothing that was started still runs, and
the service has been told, unless it said first that the lease is over.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from oanim import errors
from oanim.retries import backoff_s, is_repeatable
from oanim_farm import frames
from oanim_farm.heart import Heart, Lost
from oanim_remotion.bundle import BundleRefused, unpack
from oanim_remotion.codecs import Codec
from oanim_remotion.driver import Video, bare_environment, chosen, compositions, render
from oanim_remotion.errors import RemotionError, RenderFailed
from oanim_remotion.pictures import Size
from oanim_remotion.running import Limits
from openanimate.metering.v1.render_service_pb2 import RenderCodec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oanim import Client
    from oanim_farm.heart import Times
    from oanim_farm.slots import Slot
    from oanim_remotion.installation import Installation
    from openanimate.metering.v1.render_service_pb2 import CompleteRenderResponse, RenderLease

T = TypeVar("T")

log = logging.getLogger(__name__)

MAX_VIDEO_BYTES = 2_000_000_000
MAX_MESSAGE_BYTES = 1_000
# How often the service may have a fault of its own about one call before it is taken at its word.
_FAULTS = 5


class Tools(NamedTuple):
    """What a worker renders with."""

    installation: Installation
    browser: Path
    memory_bytes: int


class Unfit(Exception):
    """What was rendered cannot be delivered. The message is a sentence for the user."""


class Job:
    """The work under one lease. `connect` makes a client of its own, which may be cut off."""

    def __init__(
        self, client: Client, connect: Callable[[], Client], lease: RenderLease, tools: Tools, times: Times
    ) -> None:
        self._client = client
        self._transfers = connect()
        self._lease = lease
        self._tools = tools
        self._times = times
        self._stop = threading.Event()
        self._leaving_since: float | None = None
        self._until = time.monotonic() + lease.time_limit_seconds
        self._heart = Heart(client, lease, on_lost=self._cut_off, times=times)

    def hand_back(self) -> None:
        """Stop, and give the render to another worker. May be called from any thread, at any time."""
        if self._leaving_since is None:
            self._leaving_since = time.monotonic()
        self._heart.let_go()
        self._cut_off()

    def run(self, slot: Slot) -> None:
        """Do the work; what it raises is a fault of this machine, and the service has been told."""
        log.info("%s: attempt %d, epoch %d", self._lease.render_id, self._lease.attempt, self._lease.epoch)
        with self._heart, self._transfers:
            try:
                with slot.cleared() as folder:
                    self._work(folder)
            except (Lost, errors.StaleLease):
                log.warning("%s: dropped", self._lease.render_id)
            except Exception as error:
                if self._heart.lost:
                    log.warning("%s: dropped", self._lease.render_id)
                elif self._leaving_since is not None:
                    self._end(handed_back=True)
                elif isinstance(error, (RemotionError, BundleRefused, Unfit, errors.OanimError)):
                    # Where this machine keeps its files is nothing to a user.
                    self._end(message=f"{error}".replace(f"{slot.folder}/", ""))
                else:
                    self._end(message="The worker had a fault.")
                    raise

    def _work(self, folder: Path) -> None:
        video = folder / f"video{self._codec.suffix}"
        self._render(folder, video)
        count = self._checked(video, folder)
        # Durable before the video is on its way: whatever becomes of that, this much was rendered.
        self._heart.report(count)
        answer = self._deliver(video, count)
        log.info(
            "%s: delivered, %d frames, %d bytes, %d micro-USD charged",
            self._lease.render_id,
            count,
            answer.render.video_bytes,
            answer.render.charged_micros,
        )

    def _environment(self, folder: Path) -> dict[str, str]:
        """What a stranger's code may see: nothing of ours, and no folder but the slot's."""
        return {**bare_environment(folder), "TMPDIR": str(folder)}

    @property
    def _codec(self) -> Codec:
        return Codec(RenderCodec.Name(self._lease.spec.codec).removeprefix("RENDER_CODEC_").lower())

    def _render(self, folder: Path, video: Path) -> None:
        lease, spec = self._lease, self._lease.spec
        archive, bundle = folder / "bundle.tar.gz", folder / "bundle"
        self._patiently(
            lambda: self._transfers.download_bundle(
                render_id=lease.render_id, epoch=lease.epoch, bundle_sha256=lease.bundle_sha256, path=archive
            ),
            gives_up=self._stop.is_set,
        )
        unpack(archive, bundle)
        archive.unlink()
        size = Size(spec.width, spec.height)
        props_json = spec.props_json or "{}"
        found = compositions(
            self._tools.installation,
            bundle,
            browser=self._tools.browser,
            environment=self._environment(folder),
            props_json=props_json,
            limits=self._limits(),
        )
        render(
            self._tools.installation,
            bundle,
            Video(chosen(found, spec.composition), size, spec.fps, spec.frames, self._codec),
            video,
            browser=self._tools.browser,
            environment=self._environment(folder),
            props_json=props_json,
            limits=self._limits(),
            on_frames=self._heart.frames_done,
        )

    def _limits(self) -> Limits:
        return Limits(
            time_seconds=max(1.0, self._until - time.monotonic()),
            memory_bytes=self._tools.memory_bytes,
            stop=self._stop,
        )

    def _checked(self, video: Path, folder: Path) -> int:
        """Count the frames that are to be charged: those of the video as it is."""
        size_bytes = video.stat().st_size
        if size_bytes > MAX_VIDEO_BYTES:
            raise Unfit(f"The video has {size_bytes:,} bytes, and at most {MAX_VIDEO_BYTES:,} are taken.")
        try:
            count = frames.count(video, environment=self._environment(folder), limits=self._limits())
        except RenderFailed as error:
            raise Unfit("What was rendered is no video that can be read.") from error
        if not 1 <= count <= self._lease.spec.frames:
            raise Unfit(f"The video has {count:,} frames, and {self._lease.spec.frames:,} were asked for.")
        return count

    def _deliver(self, video: Path, count: int) -> CompleteRenderResponse:
        lease = self._lease

        def delivered_by(client: Client) -> CompleteRenderResponse:
            return client.complete_render(
                render_id=lease.render_id, epoch=lease.epoch, frames=count, video=video
            )

        try:
            return self._patiently(lambda: delivered_by(self._transfers), gives_up=self._stop.is_set)
        except errors.OanimError:
            if not self._heart.lost:
                raise
        # It may be lost because it is done, and the answer was cut off: the service tells which.
        return delivered_by(self._client)

    def _end(self, *, message: str = "", handed_back: bool = False) -> None:
        """End the lease without a video."""
        log.warning("%s: %s", self._lease.render_id, "handed back" if handed_back else message)
        said = message.encode()[:MAX_MESSAGE_BYTES].decode(errors="ignore")
        try:
            self._patiently(
                lambda: self._client.fail_render(
                    render_id=self._lease.render_id,
                    epoch=self._lease.epoch,
                    message=said,
                    handed_back=handed_back,
                    timeout_s=self._times.answer,
                ),
                gives_up=lambda: self._heart.lost or self._is_leaving_late(),
            )
        except errors.OanimError as error:
            # The lease ends by itself then.
            log.warning("%s: the end was not taken: %s", self._lease.render_id, error.message)

    def _patiently(self, call: Callable[[], T], *, gives_up: Callable[[], bool]) -> T:
        """Call until it is answered, however long the service is away."""
        failures = faults = 0
        while True:
            try:
                return call()
            except errors.OanimError as error:
                failures += 1
                faults += not is_repeatable(error)
                if gives_up() or _is_final(error) or faults > _FAULTS:
                    raise
                if failures == 1:
                    log.warning("%s: not answered: %s", self._lease.render_id, error.message)
            until = time.monotonic() + backoff_s(failures)
            while time.monotonic() < until and not gives_up():
                time.sleep(0.05)

    def _is_leaving_late(self) -> bool:
        since = self._leaving_since
        return since is not None and time.monotonic() - since > self._times.leaving

    def _cut_off(self) -> None:
        self._stop.set()
        self._transfers.close()


def _is_final(error: errors.OanimError) -> bool:
    """Whether the same call would get the same answer again."""
    return not is_repeatable(error) and not isinstance(error, errors.Internal) and error.reason != ""
