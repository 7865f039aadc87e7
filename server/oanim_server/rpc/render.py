"""RenderService: the contract's words to rendering, and its values back."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from oanim_server.rendering.values import Worker
from oanim_server.rpc import messages, render_messages, shape, uploads
from oanim_server.rpc.render_messages import WHAT
from openanimate.metering.v1 import render_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from oanim_server.rendering.renders import Renders
    from oanim_server.rpc.call import Call


class RenderServicer:
    """Answers RenderService."""

    def __init__(self, renders: Renders) -> None:
        self._renders = renders

    # Users ----------------------------------------------------------------------------------------

    async def SubmitRender(
        self, requests: AsyncIterator[pb.SubmitRenderRequest], call: Call
    ) -> pb.SubmitRenderResponse:
        asked = render_messages.submission(await uploads.first_of(requests, "submission"), call)
        submitted = await self._renders.submit(asked, uploads.chunks_of(requests))
        return pb.SubmitRenderResponse(
            render=render_messages.render(submitted.render),
            wallet=messages.wallet(submitted.wallet),
            replayed=submitted.replayed,
        )

    async def GetRender(self, request: pb.GetRenderRequest, call: Call) -> pb.GetRenderResponse:
        found = await self._renders.get(call.reservation(request.render_id, WHAT))
        return pb.GetRenderResponse(render=render_messages.render(found))

    async def WatchRender(
        self, request: pb.WatchRenderRequest, call: Call
    ) -> AsyncGenerator[pb.WatchRenderResponse]:
        states = self._renders.watch(call.reservation(request.render_id, WHAT))
        async with aclosing(states):
            async for found in states:
                yield pb.WatchRenderResponse(
                    render=render_messages.render(found),
                    wallet=messages.wallet(found.wallet) if found.ended else None,
                )

    async def ListRenders(self, request: pb.ListRendersRequest, call: Call) -> pb.ListRendersResponse:
        limit = shape.page_size(request.page_size)
        found = await self._renders.page(
            call.account(request.account_id), before=shape.page_before(request.page_token), limit=limit + 1
        )
        return pb.ListRendersResponse(
            renders=map(render_messages.render, found[:limit]),
            next_page_token=shape.next_page([render.number for render in found], limit),
        )

    async def CancelRender(self, request: pb.CancelRenderRequest, call: Call) -> pb.CancelRenderResponse:
        found = await self._renders.cancel(call.reservation(request.render_id, WHAT))
        return pb.CancelRenderResponse(
            render=render_messages.render(found), wallet=messages.wallet(found.wallet)
        )

    async def DownloadRender(
        self, request: pb.DownloadRenderRequest, call: Call
    ) -> AsyncGenerator[pb.DownloadRenderResponse]:
        async with aclosing(self._renders.read_video(call.reservation(request.render_id, WHAT))) as pieces:
            async for piece in pieces:
                yield pb.DownloadRenderResponse(**piece._asdict())

    # Workers --------------------------------------------------------------------------------------

    async def LeaseRender(self, request: pb.LeaseRenderRequest, call: Call) -> pb.LeaseRenderResponse:
        worker = Worker(call.caller.account_id, call.caller.key_id)
        lease = await self._renders.lease(
            worker,
            shape.idempotency_key(request.idempotency_key),
            render_messages.whole("wait_seconds", request.wait_seconds, 0, render_messages.MAX_WAIT_SECONDS),
        )
        return pb.LeaseRenderResponse(
            lease=lease and render_messages.lease(lease), replayed=lease is not None and lease.replayed
        )

    async def DownloadBundle(
        self, request: pb.DownloadBundleRequest, call: Call
    ) -> AsyncGenerator[pb.DownloadBundleResponse]:
        claim = render_messages.claim("epoch", request.render_id, request.epoch, call)
        async with aclosing(self._renders.read_bundle(claim)) as pieces:
            async for piece in pieces:
                yield pb.DownloadBundleResponse(size_bytes=piece.size_bytes, chunk=piece.chunk)

    async def Heartbeat(self, request: pb.HeartbeatRequest, call: Call) -> pb.HeartbeatResponse:
        claim = render_messages.claim("epoch", request.render_id, request.epoch, call)
        frames = render_messages.whole("frames", request.frames, 0, render_messages.MAX_FRAMES)
        beat = await self._renders.heartbeat(claim, frames)
        return pb.HeartbeatResponse(expires_at=messages.timestamp(beat.expires_at), stop=beat.stop)

    async def CompleteRender(
        self, requests: AsyncIterator[pb.CompleteRenderRequest], call: Call
    ) -> pb.CompleteRenderResponse:
        said = await uploads.first_of(requests, "completion")
        found, replayed = await self._renders.complete(
            render_messages.claim("completion.epoch", said.render_id, said.epoch, call),
            render_messages.whole("completion.frames", said.frames, 1, render_messages.MAX_FRAMES),
            uploads.chunks_of(requests),
            size_bytes=render_messages.video_bytes(said),
            sha256=uploads.sha256("completion.video_sha256", said.video_sha256),
        )
        return pb.CompleteRenderResponse(render=render_messages.render(found), replayed=replayed)

    async def FailRender(self, request: pb.FailRenderRequest, call: Call) -> pb.FailRenderResponse:
        claim = render_messages.claim("epoch", request.render_id, request.epoch, call)
        message = shape.text("message", request.message, render_messages.MAX_WORDS_BYTES, least=0)
        found = await self._renders.give_up(claim, message, handed_back=request.handed_back)
        return pb.FailRenderResponse(render=render_messages.render(found))
