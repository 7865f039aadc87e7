"""RenderService as a user and a worker ask it, over the wire."""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from openanimate.metering.v1 import render_service_pb2 as pb
from openanimate.metering.v1.role_pb2 import ROLE_WORKER
from openanimate.metering.v1.wallet_service_pb2 import GetWalletRequest
from tests.server import SECONDS, Calls, Refused, new_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.server import Endpoint

SPEC: dict[str, Any] = {
    "composition": "Main",
    "width": 100,
    "height": 100,
    "fps": 10,
    "frames": 100,
    "codec": pb.RENDER_CODEC_H264,
}
# 100 frames of 10,000 pixels at 10 a second are 100 kilopixel-seconds, and each costs 2 micro-USD.
QUOTE = 200
VIDEO = b"a video, by its worker's word" * 10_000
CHUNK = 1 << 16


def bundle(content: bytes = b"<html></html>") -> bytes:
    """A bundle with one page."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", format=tarfile.GNU_FORMAT) as archive:
        header = tarfile.TarInfo("index.html")
        header.size = len(content)
        archive.addfile(header, io.BytesIO(content))
    return file.getvalue()


BUNDLE = bundle()


def submission(key: str = "", content: bytes = BUNDLE, **more: Any) -> pb.RenderSubmission:
    """What a submission begins with; `more` are fields of it, or of its spec."""
    spec = {
        **SPEC,
        **{name: more.pop(name) for name in list(more) if name in pb.RenderSpec.DESCRIPTOR.fields_by_name},
    }
    fields: Mapping[str, Any] = {
        "idempotency_key": key or new_key(),
        "bundle_bytes": len(content),
        "bundle_sha256": hashlib.sha256(content).digest(),
        **more,
    }
    return pb.RenderSubmission(spec=pb.RenderSpec(**spec), **fields)


def upload(content: bytes) -> Iterator[bytes]:
    """Content, piece by piece."""
    for start in range(0, len(content), CHUNK):
        yield content[start : start + CHUNK]


class Owner(Calls):
    """A user who has things rendered."""

    def submit(self, asked: pb.RenderSubmission, content: bytes = BUNDLE) -> pb.SubmitRenderResponse:
        """Submit a bundle."""

        def parts() -> Iterator[pb.SubmitRenderRequest]:
            yield pb.SubmitRenderRequest(submission=asked)
            for chunk in upload(content):
                yield pb.SubmitRenderRequest(chunk=chunk)

        return self.render.SubmitRender(parts(), metadata=self.user.metadata, timeout=SECONDS)

    def submit_refused(self, asked: pb.RenderSubmission, content: bytes = BUNDLE) -> Refused:
        """Submit a bundle that is refused, and read why."""
        with pytest.raises(grpc.RpcError) as caught:
            self.submit(asked, content)
        return Refused.of(caught.value)

    def submitted(self, key: str = "", content: bytes = BUNDLE, **more: Any) -> str:
        """Submit a bundle; the render's id."""
        return self.submit(submission(key, content, **more), content).render.render_id

    def get(self, render_id: str) -> pb.Render:
        """A render now."""
        return self(self.render.GetRender, pb.GetRenderRequest(render_id=render_id)).render

    def watched(self, render_id: str) -> list[pb.WatchRenderResponse]:
        """All that is told of a render, to its end."""
        request = pb.WatchRenderRequest(render_id=render_id)
        return list(self.render.WatchRender(request, metadata=self.user.metadata, timeout=SECONDS))

    def cancel(self, render_id: str) -> pb.CancelRenderResponse:
        """Stop a render."""
        return self(self.render.CancelRender, pb.CancelRenderRequest(render_id=render_id))

    def downloaded(self, render_id: str) -> tuple[str, int, bytes, bytes]:
        """A video's media type, length and hash as they were announced, and its content."""
        request = pb.DownloadRenderRequest(render_id=render_id)
        pieces = list(self.render.DownloadRender(request, metadata=self.user.metadata, timeout=SECONDS))
        first = pieces[0]
        return first.content_type, first.size_bytes, first.sha256, b"".join(piece.chunk for piece in pieces)

    def money(self) -> tuple[int, int]:
        """Balance and held."""
        found = self(self.wallet.GetWallet, GetWalletRequest()).wallet
        return found.balance_micros, found.held_micros


class Farm(Calls):
    """A worker."""

    def lease(self, key: str = "", wait_seconds: int = 0) -> pb.RenderLease:
        """The oldest render that waits; an empty lease where none does."""
        request = pb.LeaseRenderRequest(idempotency_key=key or new_key(), wait_seconds=wait_seconds)
        return self(self.render.LeaseRender, request).lease

    def bundle(self, lease: pb.RenderLease) -> bytes:
        """A leased render's bundle."""
        request = pb.DownloadBundleRequest(render_id=lease.render_id, epoch=lease.epoch)
        pieces = list(self.render.DownloadBundle(request, metadata=self.user.metadata, timeout=SECONDS))
        content = b"".join(piece.chunk for piece in pieces)
        assert pieces[0].size_bytes == len(content) == lease.bundle_bytes
        return content

    def beat(self, lease: pb.RenderLease, frames: int) -> pb.HeartbeatResponse:
        """Report frames."""
        request = pb.HeartbeatRequest(render_id=lease.render_id, epoch=lease.epoch, frames=frames)
        return self(self.render.Heartbeat, request)

    def complete(
        self, lease: pb.RenderLease, frames: int, video: bytes = VIDEO, **more: Any
    ) -> pb.CompleteRenderResponse:
        """Deliver a video."""
        fields = {"video_bytes": len(video), "video_sha256": hashlib.sha256(video).digest(), **more}
        said = pb.RenderCompletion(render_id=lease.render_id, epoch=lease.epoch, frames=frames, **fields)

        def parts() -> Iterator[pb.CompleteRenderRequest]:
            yield pb.CompleteRenderRequest(completion=said)
            for chunk in upload(video):
                yield pb.CompleteRenderRequest(chunk=chunk)

        return self.render.CompleteRender(parts(), metadata=self.user.metadata, timeout=SECONDS)

    def complete_refused(
        self, lease: pb.RenderLease, frames: int, video: bytes = VIDEO, **more: Any
    ) -> Refused:
        """Deliver a video that is refused, and read why."""
        with pytest.raises(grpc.RpcError) as caught:
            self.complete(lease, frames, video, **more)
        return Refused.of(caught.value)

    def fail(
        self, lease: pb.RenderLease, message: str = "it broke", *, handed_back: bool = False
    ) -> pb.Render:
        """Give a lease up."""
        request = pb.FailRenderRequest(
            render_id=lease.render_id, epoch=lease.epoch, message=message, handed_back=handed_back
        )
        return self(self.render.FailRender, request).render


def owner(server: Endpoint) -> Owner:
    """A new user."""
    return Owner(server.channel, server.sign_up())


def farm(server: Endpoint) -> Farm:
    """A new worker."""
    return Farm(server.channel, server.create_key(ROLE_WORKER, new_key()[:20]))
