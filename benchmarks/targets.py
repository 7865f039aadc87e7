"""What is wanted of each figure: `must`, and what to aim at. Kept apart from what measures it."""

from __future__ import annotations

from benchmarks.figures import Target

# Reserve and Commit against the server's own echo, by (database, hot, in flight).
AGAINST_ECHO = {
    ("SQLite", False, 64): Target(0.60, 0.75),
    ("SQLite", False, 256): Target(0.65, 0.85),
    ("SQLite", True, 64): Target(0.65, 0.85),
    ("SQLite", True, 256): Target(0.70, 0.90),
    ("PostgreSQL", False, 64): Target(0.45, 0.60),
    ("PostgreSQL", False, 256): Target(0.60, 0.75),
}
P99_AGAINST_ECHO = Target(2.0, 1.3, most=True)
AGAINST_SINGLE = Target(3.0, 4.0)

# Operations per second of server CPU, by (database, hot, operations a message).
METER = {
    ("SQLite", False, 100): Target(17_000, 28_000),
    ("SQLite", False, 1_000): Target(22_000, 35_000),
    ("SQLite", True, 100): Target(25_000, 38_000),
    ("SQLite", True, 1_000): Target(30_000, 48_000),
    ("PostgreSQL", False, 100): Target(20_000, 32_000),
    ("PostgreSQL", False, 1_000): Target(28_000, 42_000),
}

# With 3 x 10^6 reservations against 10^4.
GROWTH_RATE_ORDERED = Target(0.6, 0.85)
GROWTH_RATE_RANDOM = Target(0.4, 0.6)
GROWTH_LATENCY = Target(1.3, 1.1, most=True)

MEMORY_MB = Target(50, 10, most=True)
READ_MS = Target(50, 5, most=True)
BILLING_MS = Target(600, 400, most=True)
RESTART_MS = Target(5_000, 1_000, most=True)

# Liveness: goodput beyond the load that gives the peak, refusals beyond the queue, a quiet neighbour's p99.
GOODPUT = Target(0.8, 0.95)
REFUSED_MS = Target(50, 20, most=True)
NEIGHBOUR_P99 = Target(2.0, 1.2, most=True)
