"""Every way a provider can behave: what was charged, how often it was asked, and that nothing stays held."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from oanim_server.database.engine import Database
from oanim_server.generation.values import (
    MAX_OUTPUTS_BYTES,
    Ended,
    Failure,
    Progress,
    Queued,
    Reason,
    Standing,
)
from oanim_server.ledger import committer
from tests.generation.house import GRANT, MODEL, PRICE, House, Rest
from tests.generation.provider import Answer, provider
from tests.ledger.losing import never_sent, not_answered

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from tests.generation.house import Fal
    from tests.ledger.losing import Proxy

CHARGED = Rest(GRANT - PRICE, 0, [])
NOTHING = Rest(GRANT, 0, [])
UNANSWERED = Failure(Reason.PROVIDER_UNKNOWN, "the provider did not answer the submit")


def test_a_generation_is_held_made_and_charged_what_the_table_says(
    house: House, prompt: str, fal: Fal
) -> None:
    account = house.account()
    accepted = house.generate(account, prompt)
    assert (accepted.replayed, accepted.wallet.held_micros, accepted.generation.quoted_micros) == (
        False,
        PRICE,
        PRICE,
    )
    generation = house.ended(accepted.generation)
    assert (generation.standing, generation.charged_micros, generation.model) == (
        Standing.SUCCEEDED,
        PRICE,
        MODEL,
    )
    assert (generation.failure, generation.sandbox, generation.cancel_requested) == (None, True, False)
    assert [output.content_type for output in generation.outputs] == ["image/png"]
    assert generation.wallet == house.wallet(account)
    assert house.at_rest(account) == CHARGED
    assert [job["submits"] for job in fal.jobs(prompt)] == [1]


def test_two_pictures_cost_twice(house: House, prompt: str) -> None:
    account = house.account()
    generation = house.made(account, prompt, num_images=2)
    assert (len(generation.outputs), generation.charged_micros) == (2, 2 * PRICE)
    assert house.at_rest(account) == Rest(GRANT - 2 * PRICE, 0, [])


def test_the_place_in_the_provider_s_queue_is_told(house: House, prompt: str, fal: Fal) -> None:
    fal.told(prompt, "submit", "queue", positions=2, seconds=1.0)
    account = house.account()
    events = house.followed(house.generate(account, prompt).generation)
    assert {event.position for event in events if isinstance(event, Queued)} >= {0, 2}
    assert [type(event) for event in events[-1:]] == [Ended]
    assert house.at_rest(account) == CHARGED


def test_what_the_provider_says_is_told(slow_house: House) -> None:
    account = slow_house.account()
    events = slow_house.followed(slow_house.generate(account, "slow").generation)
    assert Progress("this is a sandbox") in events
    assert [type(event) for event in events[-1:]] == [Ended]


@pytest.mark.parametrize("position", [-1, 2**31, 2**64])
def test_a_place_in_the_queue_that_no_number_of_ours_holds_keeps_nothing(
    open_database: Callable[[], Database], tmp_path: Path, prompt: str, position: int
) -> None:
    with provider() as odd:
        status = {"status": "IN_QUEUE", "queue_position": position}
        odd.makes({"images": []}, model=MODEL, status=status)
        house = House(open_database(), tmp_path, odd.url)
        account = house.account()
        generation = house.generate(account, prompt).generation
        house.reached(generation, "queue_position", min(max(0, position), 2**31 - 1))
        odd.makes({"images": []}, model=MODEL)
        assert house.ended(generation).standing is Standing.SUCCEEDED
        assert house.at_rest(account) == CHARGED
        house.close()


def test_progress_that_cannot_be_written_keeps_nothing(
    sqlite_path: Path, tmp_path: Path, prompt: str
) -> None:
    database = Database.open_sqlite(sqlite_path)
    with database.writing() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER refuses BEFORE UPDATE OF progress ON generations "
            "BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    with provider() as plain:
        plain.makes({"images": []}, model=MODEL, status={"status": "IN_PROGRESS"})
        house = House(database, tmp_path, plain.url)
        account = house.account()
        generation = house.generate(account, prompt).generation
        house.reached(generation, "state", 3)
        house.do(asyncio.sleep(1.0))  # while it is asked about, and nothing can be written of it
        plain.makes({"images": []}, model=MODEL)
        assert house.ended(generation).standing is Standing.SUCCEEDED
        assert house.at_rest(account) == CHARGED
        house.close()


# At the submit ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["drop_before", "drop_after", "500", "hang"])
def test_a_submit_that_is_not_answered_is_never_repeated_and_costs_nothing(
    house: House, prompt: str, fal: Fal, fault: str
) -> None:
    fal.told(prompt, "submit", fault)
    before = fal.posts()
    account = house.account()
    generation = house.made(account, prompt)
    assert (generation.standing, generation.failure, generation.charged_micros) == (
        Standing.FAILED,
        UNANSWERED,
        0,
    )
    assert house.at_rest(account) == NOTHING
    assert fal.posts() - before == 1


def test_a_submit_that_is_refused_costs_nothing(house: House, prompt: str, fal: Fal) -> None:
    fal.told(prompt, "submit", "422")
    before = fal.posts()
    account = house.account()
    failure = house.made(account, prompt).failure
    assert failure is not None
    assert (failure.reason, "flagged" in failure.message) == (Reason.PROVIDER_REJECTED, True)
    assert house.at_rest(account) == NOTHING
    assert fal.posts() - before == 1


def test_a_submit_that_is_answered_late_is_waited_for(house: House, prompt: str, fal: Fal) -> None:
    fal.told(prompt, "submit", "late", seconds=1.0)
    account = house.account()
    assert house.made(account, prompt).standing is Standing.SUCCEEDED
    assert house.at_rest(account) == CHARGED
    assert [job["submits"] for job in fal.jobs(prompt)] == [1]


def test_a_provider_that_is_busy_is_asked_again_when_it_said(house: House, prompt: str, fal: Fal) -> None:
    fal.told(prompt, "submit", "429", times=2, seconds=0.4)
    account = house.account()
    began = time.monotonic()
    assert house.made(account, prompt).standing is Standing.SUCCEEDED
    assert time.monotonic() - began > 0.8
    assert house.at_rest(account) == CHARGED
    assert [job["submits"] for job in fal.jobs(prompt)] == [3]


@pytest.mark.parametrize("seconds", ["1e14", "1e300", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_provider_that_is_busy_for_ever_is_waited_for_a_day(
    open_database: Callable[[], Database], tmp_path: Path, prompt: str, seconds: str
) -> None:
    with provider() as busy:
        busy.answers[f"/{MODEL}"] = Answer(429, {"retry-after": seconds})
        house = House(open_database(), tmp_path, busy.url)
        generation = house.generate(house.account(), prompt).generation
        house.until_it_waits(generation)
        answer = house.do(house.generations.cancel(generation.wallet_id, generation.number))
        assert answer.standing is Standing.CANCELLED
        house.close()


def test_a_provider_that_stays_busy_is_asked_three_times(house: House, prompt: str, fal: Fal) -> None:
    fal.told(prompt, "submit", "429", times=None, seconds=0.1)
    before = fal.posts()
    account = house.account()
    expected = Failure(Reason.PROVIDER_REJECTED, "the provider was asked 3 times: it takes no more requests")
    assert house.made(account, prompt).failure == expected
    assert house.at_rest(account) == NOTHING
    assert fal.posts() - before == 3


# While it is polled ----------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["status", "result"])
@pytest.mark.parametrize(
    "fault", [{"do": "drop_before"}, {"do": "drop_after"}, {"do": "429"}, {"do": "late"}, {"do": "hang"}]
)
def test_a_question_that_is_not_answered_is_asked_again(
    house: House, prompt: str, fal: Fal, at: str, fault: dict[str, Any]
) -> None:
    fal.told(prompt, at, **fault)
    account = house.account()
    jobs = len(fal.jobs(prompt))
    assert house.made(account, prompt).standing is Standing.SUCCEEDED
    assert house.at_rest(account) == CHARGED
    assert len(fal.jobs(prompt)) - jobs == 1


def test_a_status_that_fails_is_asked_again(house: House, prompt: str, fal: Fal) -> None:
    fal.told(prompt, "status", "500", times=3)
    account = house.account()
    assert house.made(account, prompt).standing is Standing.SUCCEEDED
    assert house.at_rest(account) == CHARGED


@pytest.mark.parametrize(("fault", "said"), [("422", "flagged"), ("500", "Internal Server Error")])
def test_a_model_that_fails_costs_nothing(house: House, prompt: str, fal: Fal, fault: str, said: str) -> None:
    fal.told(prompt, "result", fault)
    account = house.account()
    generation = house.made(account, prompt)
    failure = generation.failure
    assert failure is not None
    assert (failure.reason, said in failure.message) == (Reason.PROVIDER_FAILED, True)
    assert (generation.charged_micros, generation.outputs) == (0, ())
    assert house.at_rest(account) == NOTHING


# What is kept of a result ----------------------------------------------------------------------------


def data_url(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def test_a_small_file_in_the_result_itself_is_kept(
    open_database: Callable[[], Database], tmp_path: Path, prompt: str
) -> None:
    content = os.urandom(20_000)
    with provider() as inline:
        inline.makes({"images": [{"url": data_url(content)}]}, model=MODEL)
        house = House(open_database(), tmp_path, inline.url)
        account = house.account()
        generation = house.made(account, prompt)
        assert house.downloaded(generation) == ("image/png", len(content), content)
        assert house.at_rest(account) == CHARGED
        house.close()


@pytest.mark.parametrize(
    "files",
    [[{"url": data_url(bytes(MAX_OUTPUTS_BYTES))}], [{"url": "x"}] * MAX_OUTPUTS_BYTES],
    ids=["one large file", "many files"],
)
def test_a_result_that_holds_the_files_themselves_is_not_kept_and_costs_nothing(
    open_database: Callable[[], Database], tmp_path: Path, prompt: str, files: list[object]
) -> None:
    with provider() as inline:
        inline.makes({"images": files}, model=MODEL)
        house = House(open_database(), tmp_path, inline.url)
        account = house.account()
        generation = house.made(account, prompt)
        said = "its result is longer than 65,536 bytes: the files themselves, or too many of them"
        assert generation.failure == Failure(Reason.PROVIDER_FAILED, said)
        assert (generation.outputs, house.at_rest(account)) == ((), NOTHING)
        house.close()


@pytest.mark.parametrize("file_name", ["", "a.png"])
def test_a_file_at_what_is_no_address_ends_the_job_and_costs_nothing(
    open_database: Callable[[], Database], tmp_path: Path, prompt: str, file_name: str
) -> None:
    with provider() as odd:
        odd.makes({"images": [{"url": "https://[fal.media/a.png", "file_name": file_name}]}, model=MODEL)
        house = House(open_database(), tmp_path, odd.url)
        account = house.account()
        generation = house.made(account, prompt)
        assert generation.failure == Failure(
            Reason.PROVIDER_FAILED, "its result cannot be read: Invalid IPv6 URL"
        )
        assert (generation.outputs, house.at_rest(account)) == ((), NOTHING)
        house.close()


# What the database does meanwhile ---------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that is not answered is soon taken for unknown."""
    monkeypatch.setattr(committer, "PATIENCE_SECONDS", 0.5)


async def said(caplog: pytest.LogCaptureFixture, refusal: str) -> None:
    """Wait until the log has that something was refused in this way."""
    while all(getattr(record, "refusal", "") != refusal for record in caplog.records):  # noqa: ASYNC110 - of a thread
        await asyncio.sleep(0.01)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("lose", [never_sent, not_answered])
def test_a_request_id_whose_commit_is_unknown_for_long_is_kept_and_its_job_is_charged(
    proxy: Proxy,
    tmp_path: Path,
    prompt: str,
    caplog: pytest.LogCaptureFixture,
    lose: Callable[[bytes, socket.socket], None],
) -> None:

    def away(message: bytes, server: socket.socket) -> None:
        proxy.refusing = True
        lose(message, server)

    with provider() as slow:
        slow.makes({"images": []}, model=MODEL)
        submit = f"/{MODEL}"
        slow.answers[submit] = slow.answers[submit]._replace(when=slow.answered)
        house = House(
            Database.open_postgresql(proxy.url, unsafe=True), tmp_path, slow.url, answer_timeout_s=20.0
        )
        account = house.account()
        generation = house.generate(account, prompt).generation
        house.until(lambda _connection: bool(slow.sent))
        proxy.at_commit = away
        slow.answered.set()
        house.do(said(caplog, "OutcomeUnknown"))
        proxy.refusing = False
        ended = house.ended(generation)
        assert (ended.standing, ended.charged_micros, len(slow.sent)) == (Standing.SUCCEEDED, PRICE, 1)
        assert house.at_rest(account) == CHARGED
        house.close()
