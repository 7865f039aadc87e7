"""What a render costs and how it ends, as pure decisions."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oanim_server.ledger.refusals import InvalidField
from oanim_server.rendering import rules
from oanim_server.rendering.refusals import StaleLease
from oanim_server.rendering.values import Codec, End, Failure, Reason, Spec, Standing, State

SPEC = Spec("Main", 1_920, 1_080, 30, 1_800, Codec.H264, "{}")
STANDING = Standing(
    wallet_id=1,
    number=2,
    state=State.RENDERING,
    spec=SPEC,
    epoch=3,
    attempts=2,
    worker=7,
    leased_until=100,
    time_limit=10,
    deadline_at=1_000,
    frames_done=40,
    message="",
    bundle_id="b",
    bundle_bytes=1,
    video_id="",
)
OVER = [State.SUCCEEDED, State.FAILED, State.CANCELLED]


def test_a_minute_of_1080p_is_as_many_kilopixel_seconds_as_the_contract_says() -> None:
    # Each costs 2 micro-USD: $0.248832.
    assert rules.quoted_quantity(SPEC) == 124_416


@given(
    width=st.integers(16, 7_680),
    height=st.integers(16, 7_680),
    fps=st.integers(1, 120),
    frames=st.integers(1, 1_000_000),
    done=st.integers(0, 2_000_000),
)
def test_any_count_of_frames_is_priced_exactly_and_never_above_all_of_them(
    width: int, height: int, fps: int, frames: int, done: int
) -> None:
    spec = Spec("Main", width, height, fps, frames, Codec.GIF, "")
    exactly = Fraction(min(done, frames) * width * height, fps * 1_000)
    assert rules.quantity(spec, done) == ceil(exactly) <= rules.quantity(spec, frames)


def test_a_spec_of_more_than_a_line_may_have_is_refused() -> None:
    most = SPEC._replace(width=7_680, height=7_680, fps=59, frames=1_000_000)
    assert rules.quoted_quantity(most) == 999_701_695
    with pytest.raises(InvalidField):
        rules.quoted_quantity(most._replace(fps=58))


@pytest.mark.parametrize(
    "other",
    [
        {"state": State.QUEUED},
        *[{"state": state} for state in OVER],
        {"epoch": 4},
        {"worker": 8},
    ],
)
def test_only_the_present_lease_counts(other: dict[str, Any]) -> None:
    found, claim = STANDING._replace(**other), STANDING.claim
    with pytest.raises(StaleLease):
        rules.completed(found, 0, claim=claim, frames=1)
    with pytest.raises(StaleLease):
        rules.given_up(found, 0, claim=claim, message="")
    with pytest.raises(StaleLease):
        rules.lost(found, 100, claim=claim)


def test_how_a_render_ends() -> None:
    claim = STANDING.claim
    assert rules.completed(STANDING, 0, claim=claim, frames=30) == End(State.SUCCEEDED, 40)
    assert rules.completed(STANDING, 0, claim=claim, frames=50) == End(State.SUCCEEDED, 50)
    assert rules.cancelled(STANDING, 0) == End(State.CANCELLED, 40)
    broke = End(State.FAILED, failure=Failure(Reason.RENDER_FAILED, "broke"))
    assert rules.given_up(STANDING, 0, claim=claim, message="broke") == broke
    lost = End(State.FAILED, failure=Failure(Reason.RENDER_FAILED, rules.LOST))
    assert rules.lost(STANDING, 100, claim=claim) == lost
    late = rules.out_of_time(STANDING._replace(message="no memory"), 1_000)
    assert late == End(State.FAILED, failure=Failure(Reason.DEADLINE_PASSED, "no memory"))


def test_what_is_not_due_yet_does_not_end() -> None:
    with pytest.raises(StaleLease):
        rules.lost(STANDING, 99, claim=STANDING.claim)
    with pytest.raises(StaleLease):
        rules.out_of_time(STANDING, 999)


@pytest.mark.parametrize("state", OVER)
def test_what_has_ended_does_not_end_again(state: State) -> None:
    found = STANDING._replace(state=state)
    with pytest.raises(StaleLease):
        rules.cancelled(found, 0)
    with pytest.raises(StaleLease):
        rules.out_of_time(found, 1_000)


def test_the_third_attempt_is_the_last_and_the_first_lease_sets_the_deadline() -> None:
    assert [rules.is_last(STANDING._replace(attempts=n)) for n in (1, 2, 3)] == [False, False, True]
    assert rules.deadline(STANDING) == 1_000
    assert rules.deadline(STANDING._replace(epoch=0)) == 1_030
