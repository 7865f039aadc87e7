"""How long and how often: the whole run, the quick one, and the one that only shows that all of it works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The sizes of a run. A slot measures one thing once; slots take turns, `repetitions` times."""

    name: str
    slot_seconds: float
    warm_seconds: float
    repetitions: int
    wallets: int
    # How many calls are in flight.
    in_flight: tuple[int, ...]
    # Beyond the peak: how many times what gives it, in how long and how many slots.
    times: tuple[int, ...]
    pressure_seconds: float
    pressure_repetitions: int
    # Growth: the kinds of idempotency keys; reservations in the small and in the large database, and how
    # many of those are the one great wallet's; operations a repetition, in groups of 100 and alone.
    keys: tuple[str, ...]
    small: int
    large: int
    great: int
    grouped_operations: int
    single_operations: int
    reads: int
    starts: int
    memory_operations: int
    # Calls of the quiet tenant a repetition: its p99 needs some.
    quiet_calls: int


FULL = Plan(
    name="full",
    slot_seconds=2.5,
    warm_seconds=1.0,
    repetitions=5,
    wallets=1_000,
    in_flight=(1, 16, 64, 256),
    times=(1, 2, 4, 8),
    pressure_seconds=3.0,
    pressure_repetitions=3,
    keys=("UUIDv7", "random"),
    small=10_000,
    large=3_000_000,
    great=500_000,
    grouped_operations=10_000,
    single_operations=500,
    reads=100,
    starts=7,
    memory_operations=1_000_000,
    quiet_calls=1_000,
)
QUICK = Plan(
    name="quick",
    slot_seconds=0.15,
    warm_seconds=0.05,
    repetitions=2,
    wallets=1_000,
    in_flight=(64, 256),
    times=(1, 4),
    pressure_seconds=0.2,
    pressure_repetitions=1,
    keys=("UUIDv7",),
    small=10_000,
    large=100_000,
    great=20_000,
    grouped_operations=1_000,
    single_operations=100,
    reads=20,
    starts=1,
    memory_operations=20_000,
    quiet_calls=40,
)
SMOKE = Plan(
    name="smoke",
    slot_seconds=0.1,
    warm_seconds=0.0,
    repetitions=1,
    wallets=20,
    in_flight=(16, 64),
    times=(1, 4),
    pressure_seconds=0.1,
    pressure_repetitions=1,
    keys=("UUIDv7",),
    small=200,
    large=1_000,
    great=500,
    grouped_operations=200,
    single_operations=10,
    reads=2,
    starts=1,
    memory_operations=500,
    quiet_calls=10,
)
PLANS = {plan.name: plan for plan in (FULL, QUICK, SMOKE)}
