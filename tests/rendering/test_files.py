"""Bundles and videos: how long they are kept, and what a crash leaves of them."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from oanim_server.ledger.refusals import InvalidField, NotFound
from oanim_server.ledger.values import DAY, SECOND
from oanim_server.rendering.refusals import ContentGone
from oanim_server.rendering.sweeping import ORPHAN_SECONDS
from oanim_server.rendering.values import Codec, Piece, State
from tests.rendering.asking import VIDEO
from tests.rendering.house import GRANT, House, Rest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from oanim_server.rendering.values import Render


def downloaded(house: House, render: Render) -> tuple[str, int, bytes]:
    """A video: its media type, its length as it was announced, its content."""

    async def read() -> list[Piece]:
        return [piece async for piece in house.renders.read_video(render.key)]

    first, *rest = house.do(read())
    return first.content_type, first.size_bytes, b"".join(piece.chunk for piece in (first, *rest))


def made(house: House, codec: Codec = Codec.H264) -> Render:
    """A render with a video."""
    house.submitted(house.account(), codec=codec)
    worker = house.worker()
    return worker.complete(worker.leased())[0]


def test_a_video_is_there_for_thirty_days_and_then_it_is_gone(house: House) -> None:
    render = made(house)
    assert render.video_expires_at == (render.finished_at or 0) + 30 * DAY
    assert downloaded(house, render) == ("video/mp4", len(VIDEO), VIDEO)
    house.clock.forward(30 * DAY - SECOND)
    house.do(house.renders.sweep_files())
    assert downloaded(house, render)[2] == VIDEO
    house.clock.forward(SECOND)
    house.do(house.renders.sweep_files())
    assert house.files() == set()
    refused = house.refused(anext(house.renders.read_video(render.key)))
    assert isinstance(refused, ContentGone)
    # What it was stays known.
    assert house.get(render)._replace(video=None, revision=0) == render._replace(video=None, revision=0)


def test_a_video_that_somebody_removed_is_gone(house: House) -> None:
    render = made(house)
    for path in house.folder.iterdir():
        path.unlink()
    assert isinstance(house.refused(anext(house.renders.read_video(render.key))), ContentGone)


def test_a_render_without_a_video_has_none(house: House) -> None:
    render = house.submitted(house.account())
    assert isinstance(house.refused(anext(house.renders.read_video(render.key))), NotFound)


def test_a_video_has_the_media_type_of_its_codec(house: House) -> None:
    types = {codec: downloaded(house, made(house, codec))[0] for codec in Codec}
    assert types == {
        Codec.H264: "video/mp4",
        Codec.H265: "video/mp4",
        Codec.VP8: "video/webm",
        Codec.VP9: "video/webm",
        Codec.PRORES: "video/quicktime",
        Codec.GIF: "image/gif",
    }


def test_who_downloads_a_video_gets_all_of_it_though_it_is_removed_meanwhile(house: House) -> None:
    render = made(house)

    async def read() -> bytes:
        pieces = house.renders.read_video(render.key)
        content = (await anext(pieces)).chunk
        house.clock.forward(31 * DAY)
        await house.renders.sweep_files()
        return content + b"".join([piece.chunk async for piece in pieces])

    assert house.do(read()) == VIDEO


def test_files_that_no_row_names_are_removed_when_nobody_can_be_about_to_write_it(house: House) -> None:
    render = made(house)
    waits = house.submitted(house.account())
    files = house.files()
    for name in ("0" * 32, "1" * 32 + ".part", "not ours"):
        (house.folder / name).write_bytes(b"left by a crash")
    house.do(house.renders.sweep_files())
    assert len(house.files()) == len(files) + 3
    old = time.time() - ORPHAN_SECONDS - 1
    for path in house.folder.iterdir():
        os.utime(path, (old, old))
    house.do(house.renders.sweep_files())
    assert house.files() == {*files, "not ours"}
    assert files == {render.video.object_id if render.video else "", waits.bundle_id}


def test_a_video_that_is_not_what_was_said_ends_nothing_and_leaves_nothing(house: House) -> None:
    render = house.submitted(house.account())
    worker = house.worker()
    lease = worker.leased()
    claim = worker.claim(lease)

    async def lies(content: bytes) -> AsyncIterator[bytes]:
        yield content

    for content in (b"", VIDEO[:999], VIDEO[:1_001], bytes(1_000)):
        complete = house.renders.complete(claim, 100, lies(content), size_bytes=1_000, sha256=b"s" * 32)
        assert isinstance(house.refused(complete), InvalidField)
    assert house.files() == {render.bundle_id}
    assert house.get(render).state is State.RENDERING
    worker.complete(lease)


def test_a_worker_that_hangs_up_while_it_delivers_leaves_the_lease_and_no_file(house: House) -> None:
    render = house.submitted(house.account())
    worker = house.worker()
    lease = worker.leased()

    async def hang_up() -> None:
        arrived = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            yield VIDEO[:100]
            arrived.set()
            await asyncio.Event().wait()

        completing = asyncio.create_task(
            house.renders.complete(
                worker.claim(lease), 100, endless(), size_bytes=len(VIDEO), sha256=bytes(32)
            )
        )
        await arrived.wait()
        completing.cancel()
        await asyncio.gather(completing, return_exceptions=True)

    house.do(hang_up())
    assert house.files() == {render.bundle_id}
    worker.complete(lease)
    assert house.rest(render.wallet_id) == Rest(GRANT - 200, 0, [])


def test_a_render_ends_though_its_bundle_cannot_be_removed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    render = house.submitted(house.account())
    worker = house.worker()
    lease = worker.leased()

    async def fails(_ids: object) -> None:
        raise PermissionError

    monkeypatch.setattr(house.process.store, "remove", fails)
    assert worker.complete(lease)[0].state is State.SUCCEEDED
    assert render.bundle_id in house.files()
