"""RenderService over the wire: what users and workers see."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from openanimate.metering.v1 import render_service_pb2 as pb
from tests.rendering.asking import BUNDLE, QUOTE, VIDEO, Farm, Owner, farm, owner, submission
from tests.server import running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.server import RunningServer

FREE = 5_000_000


@pytest.fixture(params=["sqlite", "postgresql"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The settings of a server on each database."""
    settings = {"OANIM_DATA": str(tmp_path / "data")}
    if request.param == "sqlite":
        return settings
    url: str = request.getfixturevalue("postgresql_url")
    return {**settings, "OANIM_DATABASE_URL": url, "OANIM_POSTGRESQL_UNSAFE": "1"}


@pytest.fixture
def server(environment: dict[str, str]) -> Iterator[RunningServer]:
    with running(environment) as started:
        yield started


@pytest.fixture
def user(server: RunningServer) -> Owner:
    return owner(server)


@pytest.fixture
def worker(server: RunningServer) -> Farm:
    return farm(server)


def test_a_render_from_its_bundle_to_its_video(user: Owner, worker: Farm) -> None:
    asked = submission("k", props_json='{"seed": 7}', labels={"project": "film"})
    first = user.submit(asked)
    render_id = first.render.render_id
    assert (first.wallet.balance_micros, first.wallet.held_micros) == (FREE, QUOTE)
    assert (first.render.state, first.render.quoted_micros, first.render.queue_position) == (
        pb.RENDER_STATE_QUEUED,
        QUOTE,
        0,
    )
    lease = worker.lease()
    assert (lease.render_id, lease.epoch, lease.attempt, lease.spec) == (render_id, 1, 1, asked.spec)
    assert (worker.bundle(lease), lease.bundle_sha256) == (BUNDLE, asked.bundle_sha256)
    assert not worker.beat(lease, 40).stop
    assert (user.get(render_id).state, user.get(render_id).frames_done) == (pb.RENDER_STATE_RENDERING, 40)
    done = worker.complete(lease, 100)
    assert (done.render.state, done.render.charged_micros, done.replayed) == (
        pb.RENDER_STATE_SUCCEEDED,
        QUOTE,
        False,
    )
    assert user.money() == (FREE - QUOTE, 0)
    assert user.downloaded(render_id) == (
        "video/mp4",
        len(VIDEO),
        hashlib.sha256(VIDEO).digest(),
        VIDEO,
    )
    last = user.watched(render_id)[-1]
    assert (last.render, last.wallet.balance_micros) == (done.render, FREE - QUOTE)
    assert dict(done.render.labels) == {"project": "film"}
    assert list(user(user.render.ListRenders, pb.ListRendersRequest()).renders) == [done.render]
    again = user.submit(asked, b"")
    assert (again.replayed, again.wallet, again.render.render_id) == (True, first.wallet, render_id)
    repeated = worker.complete(lease, 100, b"", video_bytes=1, video_sha256=bytes(32))
    assert (repeated.replayed, repeated.render) == (True, done.render)
