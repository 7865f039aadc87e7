"""Reads of a wallet with a long history, one at a time over the network, as its owner makes them."""

from __future__ import annotations

import time
from itertools import chain
from typing import TYPE_CHECKING

import grpc

from benchmarks import targets
from benchmarks.figures import Figure
from benchmarks.taken import percentile
from openanimate.metering.v1.wallet_service_pb2 import (
    GetUsageRequest,
    GetWalletRequest,
    ListTransactionsRequest,
    UsageGrouping,
)
from openanimate.metering.v1.wallet_service_pb2_grpc import WalletServiceStub

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from benchmarks.filling import Account
    from benchmarks.plan import Plan
    from benchmarks.server import Server

DEADLINE_SECONDS = 30.0


def measure(server: Server, account: Account, plan: Plan) -> list[Figure]:
    """The p99 of each read, over the repetitions."""
    with grpc.insecure_channel(server.address) as channel:
        wallet = WalletServiceStub(channel)
        by_model = GetUsageRequest(group_by=UsageGrouping.USAGE_GROUPING_MODEL)
        reads: dict[str, tuple[Callable[..., object], Message]] = {
            "GetWallet": (wallet.GetWallet, GetWalletRequest()),
            "GetUsage, 30 days by model": (wallet.GetUsage, by_model),
            "ListTransactions, first page": (wallet.ListTransactions, ListTransactionsRequest()),
        }
        metadata = (("authorization", f"Bearer {account.token}"),)
        taken: dict[str, list[list[float]]] = {name: [] for name in reads}
        for repetition in range(plan.repetitions + 1):
            for name, (read, request) in reads.items():
                times = []
                for _ in range(plan.reads):
                    began = time.perf_counter()
                    read(request, metadata=metadata, timeout=DEADLINE_SECONDS)
                    times.append((time.perf_counter() - began) * 1e3)
                if repetition:  # the first one finds the caches cold
                    taken[name].append(times)
    return [
        Figure(
            section=f"Reads, {2 * plan.great:,} transactions in the wallet, {server.store.name}",
            name=f"{name}, p99",
            values=tuple(percentile(times, 99) for times in of),
            unit="ms",
            target=targets.READ_MS,
            note=f"p50 {percentile([*chain.from_iterable(of)], 50):.1f} ms",
        )
        for name, of in taken.items()
    ]
