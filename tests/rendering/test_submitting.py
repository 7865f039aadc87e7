"""Submitting: what is refused before the bundle is read, what with it, and that nothing stays of the rest."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import tarfile
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from oanim_models import catalogue
from oanim_server.ledger.corrections import Freeze
from oanim_server.ledger.limits import SetLimit
from oanim_server.ledger.refusals import (
    AccountFrozen,
    IdempotencyKeyReused,
    InsufficientCredits,
    InvalidField,
    LimitExceeded,
    Refusal,
    SpendLimitExceeded,
)
from oanim_server.ledger.values import SERVER, Note, Scope
from oanim_server.ledger.windows import Period
from oanim_server.pricing.refusals import UnknownModel
from oanim_server.rendering import submitting
from oanim_server.rendering.refusals import BundlesFull, TooManyRenders
from oanim_server.rendering.values import State
from tests.remotion.archives import bundle_of, header_block, of_blocks, special
from tests.rendering.asking import BUNDLE, bundle
from tests.rendering.house import GRANT, QUOTE, House, Rest, asked, pieces

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from oanim_server.rendering.values import Submission


class Watched:
    """A bundle that notes whether anybody has begun to read it."""

    def __init__(self, content: bytes = BUNDLE) -> None:
        self.content = content
        self.was_read = False

    async def chunks(self) -> AsyncIterator[bytes]:
        self.was_read = True
        async for chunk in pieces(self.content):
            yield chunk


def refused_unread(house: House, submission: Submission) -> Refusal:
    """The refusal of a submission whose bundle was not looked at."""
    watched = Watched()
    refusal = house.refused(house.renders.submit(submission, watched.chunks()))
    assert not watched.was_read
    return refusal


def freeze(house: House, account: int, *, frozen: bool) -> None:
    note = Note("local", "a test")
    house.do(
        house.ledger.submit(
            Freeze(
                wallet_id=account,
                caller=SERVER,
                idempotency_key=f"freeze {frozen}",
                frozen=frozen,
                note=note,
            )
        )
    )


# Refused before the bundle is read --------------------------------------------------------------------


def test_what_cannot_be_paid_is_refused_unread_and_the_key_remembers_it(house: House) -> None:
    account = house.account(QUOTE - 1)
    first = refused_unread(house, asked(account, "k"))
    assert isinstance(first, InsufficientCredits)
    assert (first.required_micros, first.available_micros) == (QUOTE, QUOTE - 1)
    # A render that fits shows that the wallet is not the reason for the second refusal.
    cheap = house.submitted(account, frames=50)
    again = refused_unread(house, asked(account, "k"))
    assert (type(again), again.replayed, again.wallet_seq) == (InsufficientCredits, True, first.wallet_seq)
    assert again.facts() == first.facts()
    assert isinstance(refused_unread(house, asked(account, "k", frames=10)), IdempotencyKeyReused)
    assert cheap.quoted_micros == QUOTE // 2


@pytest.mark.parametrize("unit", [None, "operation"])
def test_a_table_that_does_not_price_renders_sells_none(house: House, unit: str | None) -> None:
    account, published = house.account(), catalogue.load()
    others = tuple(price for price in published.prices if price.category != "render")
    ours = [replace(price, unit=unit) for price in published.prices if unit and price.category == "render"]
    of_theirs = replace(published, prices=(*others, *ours), content_hash="theirs")
    house.do(house.process.prices.publish_file(of_theirs))
    refusal = refused_unread(house, asked(account))
    assert isinstance(refusal, UnknownModel)
    assert house.rest(account) == Rest(GRANT, 0, [])


def test_limits_and_a_freeze_refuse_it_unread_and_are_remembered(house: House) -> None:
    account = house.account()
    scoped: dict[str, Any] = {"spend_scopes": (Scope("run", QUOTE - 1),)}
    assert isinstance(refused_unread(house, asked(account, "scope", **scoped)), SpendLimitExceeded)
    house.do(
        house.ledger.submit(
            SetLimit(
                wallet_id=account,
                caller=account,
                asking_key_id="k",
                idempotency_key="limit",
                api_key_id="",
                period=Period.DAY,
                limit_micros=QUOTE - 1,
            )
        )
    )
    assert isinstance(refused_unread(house, asked(account, "limit")), LimitExceeded)
    freeze(house, account, frozen=True)
    assert isinstance(refused_unread(house, asked(account, "frozen")), AccountFrozen)
    freeze(house, account, frozen=False)
    assert isinstance(refused_unread(house, asked(account, "frozen")), AccountFrozen)
    assert house.rest(account) == Rest(GRANT, 0, [])


def test_a_submission_that_was_accepted_is_answered_again_without_its_bundle(house: House) -> None:
    account = house.account(QUOTE)
    first = house.submit(asked(account, "k", labels={"project": "a"}, props_json='{"a": 1, "b": [2]}'))
    freeze(house, account, frozen=True)
    watched = Watched()
    same = asked(account, "k", labels={"project": "a"}, props_json='{"b":[2],"a":1}')
    again = house.do(house.renders.submit(same, watched.chunks()))
    assert (again.replayed, again.wallet, again.render) == (True, first.wallet, house.get(first.render))
    assert not watched.was_read


@pytest.mark.parametrize(
    "other",
    [
        {"composition": "Other"},
        {"width": 102},
        {"frames": 99},
        {"props_json": '{"a": 2}'},
        {"content": bundle(b"other")},
        {"labels": {"project": "b"}},
        {"spend_scopes": (Scope("run", None),)},
    ],
)
def test_the_same_key_with_anything_else_in_its_first_message_is_refused(
    house: House, other: dict[str, Any]
) -> None:
    account = house.account()
    same: dict[str, Any] = {"props_json": '{"a": 1}', "labels": {"project": "a"}}
    first = house.submit(asked(account, "k", **same))
    assert isinstance(refused_unread(house, asked(account, "k", **{**same, **other})), IdempotencyKeyReused)
    page = house.do(house.renders.page(account, before=None, limit=10))
    assert [render.key for render in page] == [first.render.key]


@pytest.mark.parametrize("props", ["[]", "1", "{", '{"a": 1, "a": 2}', '{"a": NaN}', "[" * 60_000])
def test_props_that_are_no_object_are_refused(house: House, props: str) -> None:
    refusal = refused_unread(house, asked(house.account(), props_json=props))
    assert isinstance(refusal, InvalidField)
    assert refusal.field == "submission.spec.props_json"


def test_a_render_that_is_more_than_one_line_may_have_is_refused(house: House) -> None:
    huge: dict[str, Any] = {"width": 7_680, "height": 7_680, "fps": 1, "frames": 1_000_000}
    refusal = refused_unread(house, asked(house.account(), **huge))
    assert isinstance(refusal, InvalidField)
    assert refusal.field == "submission.spec.frames"


def test_an_account_has_so_many_renders_waiting_and_so_many_bytes_of_bundles(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = house.account()
    monkeypatch.setattr(submitting, "MAX_ACCOUNT_BYTES", 2 * len(BUNDLE))
    renders = [house.submitted(account), house.submitted(account)]
    assert isinstance(refused_unread(house, asked(account)), BundlesFull)
    house.cancel(renders[0])
    house.submitted(account)
    monkeypatch.setattr(submitting, "MAX_UNFINISHED", 2)
    assert isinstance(refused_unread(house, asked(account)), TooManyRenders)
    house.cancel(renders[1])
    house.submitted(account)


# The bundle -------------------------------------------------------------------------------------------


@cache
def bomb() -> bytes:
    """Half a megabyte that unpacks to more than a gigabyte, in two files of which the second is too much."""
    file = io.BytesIO()
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) as packed:
        for name, megabytes in (("first", 600), ("zeros", 500)):
            header = tarfile.TarInfo(name)
            header.size = megabytes << 20
            packed.write(header.tobuf(tarfile.GNU_FORMAT))
            for _ in range(megabytes):
                packed.write(bytes(1 << 20))
    return file.getvalue()


EVIL: dict[str, Callable[[Path], bytes]] = {
    "link": lambda path: bundle_of(path, special("link", tarfile.SYMTYPE, link="/etc/passwd")).read_bytes(),
    "hard": lambda path: bundle_of(path, special("hard", tarfile.LNKTYPE, link="index.html")).read_bytes(),
    "device": lambda path: bundle_of(path, special("device", tarfile.CHRTYPE)).read_bytes(),
    "pipe": lambda path: bundle_of(path, special("pipe", tarfile.FIFOTYPE)).read_bytes(),
    "../outside": lambda path: of_blocks(path, header_block("../outside"), bytes(1024)).read_bytes(),
    "/absolute": lambda path: of_blocks(path, header_block("/absolute"), bytes(1024)).read_bytes(),
    "zeros": lambda _path: bomb(),
}


@pytest.mark.parametrize("name", EVIL)
def test_a_bundle_that_means_harm_is_refused_by_name_and_nothing_is_written_or_held(
    house: House, tmp_path: Path, name: str
) -> None:
    account = house.account()
    content = EVIL[name](tmp_path / "evil.tar.gz")
    (tmp_path / "evil.tar.gz").unlink(missing_ok=True)
    before = set(tmp_path.rglob("*"))
    refusal = house.refused(house.renders.submit(asked(account, "k", content), pieces(content)))
    assert isinstance(refusal, InvalidField)
    assert refusal.field == "chunk"
    assert name in refusal.description
    after = {path for path in tmp_path.rglob("*") if not path.name.startswith("ledger.db")}
    assert after == {path for path in before if not path.name.startswith("ledger.db")}
    assert house.rest(account) == Rest(GRANT, 0, [])
    # Nothing was decided about the key.
    assert house.submit(asked(account, "k", BUNDLE)).render.state is State.QUEUED


def test_what_is_no_archive_is_refused(house: House) -> None:
    for content in (b"no archive", BUNDLE[:-5], BUNDLE + b"x", b"\x1f\x8b"):
        refusal = house.refused(house.renders.submit(asked(house.account(), "k", content), pieces(content)))
        assert isinstance(refusal, InvalidField)
        assert refusal.field == "chunk"
    assert house.files() == set()


@pytest.mark.parametrize(
    "content", [b"", BUNDLE[:-1], BUNDLE + b"x", BUNDLE[:-1] + bytes([BUNDLE[-1] ^ 1]), BUNDLE * 1_000]
)
def test_bytes_that_are_not_those_that_were_said_are_refused(house: House, content: bytes) -> None:
    account = house.account()
    refusal = house.refused(house.renders.submit(asked(account), pieces(content)))
    assert isinstance(refusal, InvalidField)
    assert house.files() == set()
    assert house.rest(account) == Rest(GRANT, 0, [])


def test_an_upload_that_breaks_off_or_is_cancelled_leaves_nothing(house: House) -> None:
    account = house.account()

    async def broken() -> AsyncIterator[bytes]:
        yield BUNDLE[:20]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        house.do(house.renders.submit(asked(account), broken()))

    async def hang_up() -> None:
        arrived = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            yield BUNDLE[:20]
            arrived.set()
            await asyncio.Event().wait()

        submitting_ = asyncio.create_task(house.renders.submit(asked(account), endless()))
        await arrived.wait()
        assert len(house.files()) == 1
        submitting_.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting_

    house.do(hang_up())
    assert house.files() == set()
    assert house.rest(account) == Rest(GRANT, 0, [])


def test_a_caller_that_hangs_up_at_the_hold_leaves_a_render_with_its_bundle_or_nothing(house: House) -> None:
    account = house.account()

    async def hang_up(turns: int) -> None:
        submitting_ = asyncio.create_task(house.renders.submit(asked(account), pieces(BUNDLE)))
        while not _kept(house) and not submitting_.done():  # noqa: ASYNC110 - what is waited for is a file
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        submitting_.cancel()
        await asyncio.gather(submitting_, return_exceptions=True)
        await house.ledger.write(lambda _connection, _now: None)

    for turns in (0, 1, 2, 3, 5, 20):
        house.do(hang_up(turns))
    renders = house.do(house.renders.page(account, before=None, limit=100))
    named = {render.bundle_id for render in renders}
    assert named <= house.files()
    assert house.wallet(account).held_micros == QUOTE * len(renders)


def test_a_bundle_is_there_before_its_render_and_gone_after_it(house: House) -> None:
    render = house.submitted(house.account())
    worker = house.worker()
    lease = worker.leased()
    read = house.do(collected(house, worker.claim(lease)))
    assert (read, house.files()) == (BUNDLE, {render.bundle_id})
    assert (lease.bundle_bytes, lease.bundle_sha256) == (len(BUNDLE), hashlib.sha256(BUNDLE).digest())
    done, _ = worker.complete(lease)
    assert house.files() == {done.video.object_id if done.video else ""}


def _kept(house: House) -> bool:
    """Whether a bundle is in the store, whole."""
    return any(not name.endswith(".part") for name in house.files())


async def collected(house: House, claim: Any) -> bytes:
    return b"".join([piece.chunk async for piece in house.renders.read_bundle(claim)])


# Many at once -----------------------------------------------------------------------------------------


def test_of_a_hundred_at_once_those_are_accepted_that_the_wallet_covers(house: House) -> None:
    account = house.account(60 * QUOTE + 17)

    async def at_once() -> list[Any]:
        works = [house.renders.submit(asked(account, f"k{n}"), pieces(BUNDLE)) for n in range(100)]
        return await asyncio.gather(*works, return_exceptions=True)

    answers = house.do(at_once())
    refused = [answer for answer in answers if isinstance(answer, InsufficientCredits)]
    assert (len(answers) - len(refused), len(refused)) == (60, 40)
    assert {(one.required_micros, one.available_micros) for one in refused} == {(QUOTE, 17)}
    assert len(house.files()) == 60
    assert house.rest(account) == Rest(60 * QUOTE + 17, 60 * QUOTE, [])
    for n, first in enumerate(answers):
        if isinstance(first, InsufficientCredits):
            again = refused_unread(house, asked(account, f"k{n}"))
            assert (again.replayed, again.facts()) == (True, first.facts())
            break


def test_the_same_submission_many_times_at_once_is_one_render_with_one_bundle(house: House) -> None:
    account = house.account()

    async def at_once() -> list[Any]:
        works = [house.renders.submit(asked(account, "k"), pieces(BUNDLE)) for _ in range(8)]
        return await asyncio.gather(*works)

    answers = house.do(at_once())
    render = answers[0].render
    assert {answer.render.key for answer in answers} == {render.key}
    assert [answer.replayed for answer in answers].count(False) == 1
    assert house.files() == {render.bundle_id}
    assert house.rest(account) == Rest(GRANT, QUOTE, [])
