"""The SDK and the server together: money that is held, charged and given back, whatever happens."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from oanim import errors
from oanim.client import Client
from oanim.keys import new_key
from oanim_remotion.bundle import pack
from openanimate.metering.v1.render_service_pb2 import RenderCodec, RenderSpec
from openanimate.metering.v1.reservation_pb2 import ReservationState, SpendScope
from openanimate.metering.v1.role_pb2 import Role
from openanimate.metering.v1.wallet_service_pb2 import PricedLine
from tests.sdk.counting import Counted
from tests.sdk.driving import Tasks, Threads
from tests.sdk.serving import RealServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openanimate.metering.v1.reservation_pb2 import Reservation
    from openanimate.metering.v1.wallet_pb2 import Wallet

# Published: $0.05 an image.
MODEL = "fal-ai/flux-2-flex"
PRICE_MICROS = 50_000
FREE_MICROS = 5_000_000


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A server that no test harms."""
    with RealServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def mortal(tmp_path: Path, free_port: int) -> Iterator[RealServer]:
    """A server to kill."""
    with RealServer(tmp_path, free_port) as running:
        yield running


def new_account(server: RealServer) -> str:
    """Open an account with the free credits; answers its key."""
    with Client("", url=server.url) as client:
        return client.sign_up(email=f"{new_key()}@example.com").secret


@pytest.fixture
def customer(real: RealServer) -> Iterator[Client]:
    """The client of a new account."""
    with Client(new_account(real), url=real.url) as client:
        yield client


@pytest.fixture(params=[Threads, Tasks], ids=["threads", "asyncio"])
def driving(request: pytest.FixtureRequest, real: RealServer) -> Iterator[Threads | Tasks]:
    """Either client of a new account."""
    with request.param(real.url, api_key=new_account(real)) as driver:
        yield driver


def money(wallet: Wallet) -> tuple[int, int, int]:
    return wallet.balance_micros, wallet.held_micros, wallet.available_micros


def wallet_after(charged_micros: int) -> tuple[int, int, int]:
    left = FREE_MICROS - charged_micros
    return left, 0, left


def only_reservation(client: Client) -> Reservation:
    (reservation,) = client.list_reservations().reservations
    return reservation


def test_a_block_is_charged_what_it_used_and_the_rest_is_free(driving: Threads | Tasks) -> None:
    meter = driving.metered([1, 1], model=MODEL, quantity=5)

    assert meter.charged_micros == 2 * PRICE_MICROS
    assert money(meter.wallet) == wallet_after(2 * PRICE_MICROS)
    assert driving.call("get_wallet").wallet == meter.wallet


def test_a_block_may_use_more_than_it_held_at_first(driving: Threads | Tasks) -> None:
    meter = driving.metered([1, 1, 1], model=MODEL, quantity=1)

    assert (meter.reservation.reserved_micros, meter.charged_micros) == (3 * PRICE_MICROS, 3 * PRICE_MICROS)
    assert money(meter.wallet) == wallet_after(3 * PRICE_MICROS)


def test_a_block_that_fails_is_charged_what_it_used(driving: Threads | Tasks) -> None:
    with pytest.raises(KeyboardInterrupt):
        driving.metered([1, KeyboardInterrupt()], model=MODEL, quantity=5)

    assert money(driving.call("get_wallet").wallet) == wallet_after(PRICE_MICROS)


def test_a_block_that_used_nothing_costs_nothing(driving: Threads | Tasks) -> None:
    meter = driving.metered([], amount_micros=FREE_MICROS)

    assert money(meter.wallet) == wallet_after(0)
    assert meter.reservation.state == ReservationState.RESERVATION_STATE_RELEASED


def test_a_block_by_amount_is_charged_its_amount(driving: Threads | Tasks) -> None:
    meter = driving.metered([700, 500], amount_micros=1_000)

    assert money(meter.wallet) == wallet_after(1_200)


def test_a_block_beyond_the_wallet_is_not_run(driving: Threads | Tasks) -> None:
    with pytest.raises(errors.InsufficientCredits) as refused:
        driving.metered([AssertionError("the block was run")], model=MODEL, quantity=101)

    assert (refused.value.required_micros, refused.value.available_micros) == (5_050_000, FREE_MICROS)


def test_use_beyond_the_wallet_is_refused_and_the_use_before_it_charged(driving: Threads | Tasks) -> None:
    with pytest.raises(errors.InsufficientCredits):
        driving.metered([100, 1], model=MODEL, quantity=1)

    assert money(driving.call("get_wallet").wallet) == wallet_after(FREE_MICROS)


def test_a_block_run_twice_under_one_key_is_charged_once(driving: Threads | Tasks) -> None:
    key = new_key()
    driving.metered([1], model=MODEL, quantity=1, key=key)

    with pytest.raises(errors.AlreadyCommitted):
        driving.metered([AssertionError("the block was run")], model=MODEL, quantity=1, key=key)
    assert money(driving.call("get_wallet").wallet) == wallet_after(PRICE_MICROS)


def test_a_hold_outlives_its_first_time(driving: Threads | Tasks) -> None:
    # What goes by is more than the ttl: time, not another thread.
    meter = driving.metered([1, lambda: time.sleep(1.5)], model=MODEL, quantity=1, ttl_seconds=1)

    assert meter.reservation.state == ReservationState.RESERVATION_STATE_COMMITTED
    assert meter.charged_micros == PRICE_MICROS


def test_blocks_side_by_side_share_a_wallet(customer: Client) -> None:
    def block(_: int) -> int:
        with customer.metered(model=MODEL, quantity=1) as meter:
            meter.used(2)
        return meter.charged_micros

    with ThreadPoolExecutor(8) as threads:
        charged = list(threads.map(block, range(40)))

    assert charged == [2 * PRICE_MICROS] * 40
    assert money(customer.get_wallet().wallet) == wallet_after(40 * 2 * PRICE_MICROS)


def test_a_block_outlives_a_server_that_is_killed(mortal: RealServer) -> None:
    with Client(new_account(mortal), url=mortal.url) as client:
        with client.metered(model=MODEL, quantity=1) as meter:
            meter.used(1)
            mortal.restart()
            meter.used(1)
            mortal.kill()
            revival = threading.Thread(target=mortal.start)
            revival.start()
        revival.join()

        assert meter.charged_micros == 2 * PRICE_MICROS
        assert money(client.get_wallet().wallet) == wallet_after(2 * PRICE_MICROS)


def test_a_block_whose_hold_expired_meanwhile_is_settled_late(mortal: RealServer) -> None:
    with Client(new_account(mortal), url=mortal.url) as client:
        with client.metered(model=MODEL, quantity=1, ttl_seconds=1) as meter:
            meter.used(1)
            mortal.kill()
            # Its time runs out while nobody can renew it.
            time.sleep(1.5)
            mortal.start()

        assert meter.reservation.state == ReservationState.RESERVATION_STATE_SETTLED_LATE
        assert (meter.charged_micros, meter.uncollected_micros) == (PRICE_MICROS, 0)
        assert money(client.get_wallet().wallet) == wallet_after(PRICE_MICROS)


def test_a_watch_outlives_a_server_that_is_killed(mortal: RealServer) -> None:
    with Client(new_account(mortal), url=mortal.url) as client, closing(client.watch_wallet()) as states:
        before = next(states).wallet
        mortal.restart()
        held = client.reserve(amount_micros=1).wallet

        assert money(before) == wallet_after(0)
        assert next(states).wallet == held


def test_a_generation_is_reported_charged_and_downloaded(driving: Threads | Tasks) -> None:
    first, *_, last = driving.collect("generate", model=MODEL, input_json='{"prompt": "gradient"}')
    done = last.succeeded.generation
    pieces = driving.collect("download_output", generation_id=done.generation_id)

    assert money(first.accepted.wallet) == (FREE_MICROS, PRICE_MICROS, FREE_MICROS - PRICE_MICROS)
    assert done.charged_micros == PRICE_MICROS
    assert money(last.succeeded.wallet) == wallet_after(PRICE_MICROS)
    assert pieces[0].content_type == "image/png"
    assert b"".join(piece.chunk for piece in pieces).startswith(b"\x89PNG")


def test_a_generation_repeated_with_its_key_is_the_same_one(driving: Threads | Tasks) -> None:
    request: dict[str, Any] = {"model": MODEL, "input_json": '{"prompt": "gradient"}', "idempotency_key": "k"}
    *_, last = driving.collect("generate", **request)
    again, *_, last_again = driving.collect("generate", **request)

    assert again.accepted.replayed
    assert last_again.succeeded.generation == last.succeeded.generation
    assert money(driving.call("get_wallet").wallet) == wallet_after(PRICE_MICROS)


def test_an_upload_is_worked_on(driving: Threads | Tasks) -> None:
    *_, made = driving.collect("generate", model=MODEL, input_json='{"prompt": "gradient"}')
    pieces = driving.collect("download_output", generation_id=made.succeeded.generation.generation_id)
    upload = driving.call("upload_input", content=[piece.chunk for piece in pieces])
    cut_out = json.dumps({"image_url": f"upload:{upload.upload_id}"})
    *_, last = driving.collect("generate", model="fal-ai/birefnet", input_json=cut_out)

    assert (upload.content_type, upload.size_bytes) == ("image/png", sum(len(p.chunk) for p in pieces))
    assert last.succeeded.generation.charged_micros == 5_000


def test_a_render_goes_from_its_owner_to_a_worker_and_back(
    driving: Threads | Tasks, real: RealServer, tmp_path: Path
) -> None:
    spec = RenderSpec(
        composition="Main", width=100, height=100, fps=10, frames=10, codec=RenderCodec.RENDER_CODEC_H264
    )
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "index.html").write_text("<html></html>")
    pack(tmp_path / "project", tmp_path / "bundle.tar.gz")
    request: dict[str, Any] = {"bundle": tmp_path / "bundle.tar.gz", "spec": spec, "idempotency_key": "k"}
    render = driving.call("submit_render", **request).render
    assert driving.call("submit_render", **request).replayed
    with type(driving)(real.url, api_key=real.keys["worker"]) as worker:
        lease = worker.call("lease_render", wait_seconds=1).lease
        claim = {"render_id": render.render_id, "epoch": lease.epoch}
        fetched = tmp_path / "fetched"
        worker.call("download_bundle", **claim, bundle_sha256=lease.bundle_sha256, path=fetched)
        assert fetched.read_bytes() == (tmp_path / "bundle.tar.gz").read_bytes()
        held = worker.call("reserve", account_id=lease.account_id, amount_micros=7, **claim).wallet
        assert held.held_micros == 20 + 7
        assert not worker.call("heartbeat", **claim, frames=4).stop
        worker.call("complete_render", **claim, frames=10, video=b"a video" * 100_000)
        assert worker.call("complete_render", **claim, frames=10, video=b"a video" * 100_000).replayed
        with pytest.raises(errors.StaleLease) as stale:
            worker.call("fail_render", render_id=render.render_id, epoch=lease.epoch + 1, message="no")
    *_, last = driving.collect("watch_render", render_id=render.render_id)
    driving.call("download_render", render_id=render.render_id, path=tmp_path / "out" / "video.mp4")

    assert (stale.value.render_id, stale.value.epoch) == (render.render_id, lease.epoch + 1)
    assert (tmp_path / "out" / "video.mp4").read_bytes() == b"a video" * 100_000
    # 10 frames of 10,000 pixels at 10 a second: 10 kilopixel-seconds of 2 micro-USD.
    assert last.render.charged_micros == 20
    assert money(driving.call("get_wallet").wallet) == wallet_after(20)
    assert [found.render_id for found in driving.call("list_renders").renders] == [render.render_id]


def test_a_render_beyond_the_wallet_is_refused_before_its_bundle_is_sent(driving: Threads | Tasks) -> None:
    spec = RenderSpec(
        composition="Main", width=4_096, height=2_160, fps=1, frames=1_000, codec=RenderCodec.RENDER_CODEC_GIF
    )
    bundle = Counted(200_000_000)
    with pytest.raises(errors.InsufficientCredits):
        driving.call("submit_render", bundle=bundle, spec=spec)

    assert bundle.read_bytes < 20_000_000


def test_a_call_repeated_with_its_key_is_answered_as_before(customer: Client) -> None:
    first = customer.reserve(amount_micros=10, idempotency_key="k", labels={"project": "x"})
    again = customer.reserve(amount_micros=10, idempotency_key="k", labels={"project": "x"})

    assert again.replayed
    assert (again.reservation, again.wallet) == (first.reservation, first.wallet)
    assert only_reservation(customer) == first.reservation
    with pytest.raises(errors.IdempotencyKeyReused) as reused:
        customer.reserve(amount_micros=11, idempotency_key="k")
    assert reused.value.idempotency_key == "k"


def test_a_limit_in_the_way_is_named(customer: Client) -> None:
    limit = SpendScope(scope="shot-7", limit_micros=99_999)

    with pytest.raises(errors.SpendLimitExceeded) as refused:
        customer.reserve(line=PricedLine(model=MODEL, quantity=2), spend_scopes=[limit])

    error = refused.value
    assert (error.scope, error.limit_micros, error.charged_micros) == ("shot-7", 99_999, 0)
    assert (error.held_micros, error.required_micros) == (0, 2 * PRICE_MICROS)
    assert [violation.subject for violation in error.violations] == ["shot-7"]


def test_a_bad_field_is_named(customer: Client) -> None:
    with pytest.raises(errors.InvalidField) as refused:
        customer.reserve(amount_micros=0)

    assert refused.value.field == "amount_micros"


def test_a_foreign_reservation_is_not_found(customer: Client, real: RealServer) -> None:
    foreign = customer.reserve(amount_micros=1).reservation.reservation_id

    with Client(real.keys["user"], url=real.url) as other, pytest.raises(errors.NotFound):
        other.get_reservation(reservation_id=foreign)


def test_a_key_that_nobody_has_is_refused(real: RealServer) -> None:
    for key in ("", "anim_nobodys0_000000000000000000000000"):
        with Client(key, url=real.url) as client, pytest.raises(errors.KeyInvalid):
            client.who_am_i()


def test_the_price_table_is_the_operators(customer: Client) -> None:
    with pytest.raises(errors.WrongRole) as refused:
        customer.publish_prices(prices=customer.list_prices().prices)

    assert refused.value.role == "user"


def test_a_key_of_a_role_is_made_on_the_local_socket_alone(real: RealServer) -> None:
    with Client("", url=f"unix:{real.socket}") as local:
        secret = local.create_key(role=Role.ROLE_SERVICE, name="farm").secret
    with Client(secret, url=real.url) as service:
        assert service.who_am_i().api_key.role == Role.ROLE_SERVICE
        with pytest.raises(errors.WrongRole):
            service.create_key(role=Role.ROLE_ADMIN, name="me")
