"""What a render costs, whose word about it counts, and how it ends: pure.

Every ending is one function of how the render stands under its lock. What is charged is the greatest count
of frames that any epoch has reported, priced as the quote was, so that it is never above it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim_models.quantities import MAX_QUANTITY
from oanim_server.ledger.ids import reservation_text
from oanim_server.ledger.refusals import InvalidField
from oanim_server.rendering.refusals import StaleLease
from oanim_server.rendering.values import ATTEMPTS, OPEN, End, Failure, Reason, State

if TYPE_CHECKING:
    from oanim_server.rendering.values import Claim, Spec, Standing

_NEVER_LEASED = "no worker had the time for it"
_TOO_LONG = "it was not rendered in its time"
# What a spec that is too much is told of.
FRAMES = "submission.spec.frames"
LOST = "its worker was not heard of any more, or took too long"


# What it costs --------------------------------------------------------------------------------------


def quoted_quantity(spec: Spec) -> int:
    """The kilopixel-seconds of a spec.

    :raises InvalidField: for more than one line may have.
    """
    found = quantity(spec, spec.frames)
    if found > MAX_QUANTITY:
        raise InvalidField(
            field=FRAMES,
            description=f"it would be {found:,} kilopixel-seconds in all, and a render may have 10^9",
        )
    return found


def quantity(spec: Spec, frames: int) -> int:
    """The kilopixel-seconds of so many frames of a spec, rounded up; never more than of all of them."""
    return -(-min(frames, spec.frames) * spec.width * spec.height // (spec.fps * 1_000))


# Whose word counts ----------------------------------------------------------------------------------


def stale(claim: Claim) -> StaleLease:
    """The refusal of what is said under a lease that is not, or no longer, the render's."""
    return StaleLease(render_id=reservation_text(*claim.key), epoch=claim.epoch)


def check_lease(standing: Standing, claim: Claim) -> None:
    """See that a claim is the render's lease. Raises StaleLease.

    A lease ends when that is written, not by itself: until then nobody else has the render.
    """
    if standing.state is not State.RENDERING or standing.claim != claim:
        raise stale(claim)


def check_frames(spec: Spec, frames: int, field: str) -> None:
    """See that a count of frames can be. Raises InvalidField."""
    if frames > spec.frames:
        raise InvalidField(field=field, description=f"it is {frames:,} and the render has {spec.frames:,}")


def is_last(standing: Standing) -> bool:
    """Whether no further attempt follows the present one."""
    return standing.attempts >= ATTEMPTS


def deadline(standing: Standing) -> int:
    """By when a render must have ended that is leased now.

    One that nobody takes has its time in the queue; the first lease adds the time of all its attempts.
    """
    return standing.deadline_at + (0 if standing.epoch else ATTEMPTS * standing.time_limit)


# How it ends ----------------------------------------------------------------------------------------


def completed(standing: Standing, now: int, *, claim: Claim, frames: int) -> End:  # noqa: ARG001 - as every ending
    """Its worker has the video. Raises StaleLease."""
    check_lease(standing, claim)
    return End(State.SUCCEEDED, max(frames, standing.frames_done))


def cancelled(standing: Standing, now: int) -> End:  # noqa: ARG001 - as every ending
    """Its owner wants it no more. Raises StaleLease when it has ended already."""
    _check_open(standing)
    return End(State.CANCELLED, standing.frames_done)


def given_up(standing: Standing, now: int, *, claim: Claim, message: str) -> End:  # noqa: ARG001 - as every ending
    """Its worker could not do it, and was the last to try. Raises StaleLease."""
    check_lease(standing, claim)
    return End(State.FAILED, failure=Failure(Reason.RENDER_FAILED, message))


def lost(standing: Standing, now: int, *, claim: Claim) -> End:
    """Its last worker was not heard of in time. Raises StaleLease when it was after all."""
    check_lease(standing, claim)
    if standing.leased_until > now:
        raise stale(claim)
    return End(State.FAILED, failure=Failure(Reason.RENDER_FAILED, standing.message or LOST))


def out_of_time(standing: Standing, now: int) -> End:
    """Its deadline has passed. Raises StaleLease when it has not, or it has ended already."""
    _check_open(standing)
    if standing.deadline_at > now:
        raise stale(standing.claim)
    message = standing.message or (_TOO_LONG if standing.epoch else _NEVER_LEASED)
    return End(State.FAILED, failure=Failure(Reason.DEADLINE_PASSED, message))


def _check_open(standing: Standing) -> None:
    if standing.state not in OPEN:
        raise stale(standing.claim)
