"""WalletService over a real channel, on both databases."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest

from openanimate.metering.v1 import wallet_service_pb2 as pb
from openanimate.metering.v1.reservation_pb2 import (
    RESERVATION_STATE_ACTIVE,
    RESERVATION_STATE_COMMITTED,
    RESERVATION_STATE_SETTLED_LATE,
    PinnedPrice,
    Reservation,
    SpendScope,
)
from openanimate.metering.v1.role_pb2 import ROLE_SERVICE
from openanimate.metering.v1.wallet_pb2 import Wallet
from tests.rpc.asking import invalid
from tests.server import SECONDS, Calls, Refused, new_key, running

if TYPE_CHECKING:
    from pathlib import Path

    from tests.server import RunningServer

FREE = 5_000_000
LARGEST = 2**63 - 1


def wallet_of(calls: Calls) -> Wallet:
    return calls(calls.wallet.GetWallet, pb.GetWalletRequest()).wallet


def reserve(calls: Calls, micros: int, **more: object) -> pb.ReserveResponse:
    request = pb.ReserveRequest(idempotency_key=new_key(), amount_micros=micros, **more)  # type: ignore[arg-type]
    return calls(calls.wallet.Reserve, request)


def test_a_new_wallet_has_the_free_credits(calls: Calls) -> None:
    assert wallet_of(calls) == Wallet(
        account_id=calls.user.account_id, balance_micros=FREE, available_micros=FREE, wallet_seq=1
    )


def test_a_reserve_sets_credits_aside_and_says_how_it_stands(calls: Calls) -> None:
    answer = reserve(
        calls,
        100,
        spend_scopes=[SpendScope(scope="run", limit_micros=100), SpendScope(scope="shot")],
        labels={"project": "film"},
        ttl_seconds=60,
    )
    account = calls.user.account_id
    made = answer.reservation
    assert made.expires_at.ToMicroseconds() - made.created_at.ToMicroseconds() == 60_000_000
    expected = Reservation(
        reservation_id=f"{account}-2",
        account_id=account,
        state=RESERVATION_STATE_ACTIVE,
        reserved_micros=100,
        held_micros=100,
        expires_at=made.expires_at,
        created_at=made.created_at,
        opened_by=account,
        spend_scopes=[SpendScope(scope="run", limit_micros=100), SpendScope(scope="shot")],
        labels={"project": "film"},
    )
    assert answer == pb.ReserveResponse(
        reservation=expected,
        wallet=Wallet(
            account_id=account,
            balance_micros=FREE,
            held_micros=100,
            available_micros=FREE - 100,
            wallet_seq=2,
        ),
    )
    named = pb.GetReservationRequest(reservation_id=made.reservation_id)
    assert calls(calls.wallet.GetReservation, named).reservation == expected


def test_a_commit_charges_what_was_used_and_frees_the_rest(calls: Calls) -> None:
    held = reserve(calls, 100)
    request = pb.CommitRequest(
        reservation_id=held.reservation.reservation_id, idempotency_key=new_key(), amount_micros=70
    )
    answer = calls(calls.wallet.Commit, request)
    ended = Reservation()
    ended.CopyFrom(held.reservation)
    ended.MergeFrom(Reservation(state=RESERVATION_STATE_COMMITTED, captured_micros=70, captures=1))
    ended.held_micros = 0
    expected = pb.CommitResponse(
        reservation=ended,
        wallet=Wallet(
            account_id=calls.user.account_id,
            balance_micros=FREE - 70,
            available_micros=FREE - 70,
            wallet_seq=3,
        ),
        charged_micros=70,
    )
    assert answer == expected
    expected.replayed = True
    assert calls(calls.wallet.Commit, request) == expected


def test_a_commit_of_nothing_charges_nothing(calls: Calls) -> None:
    held = reserve(calls, 100)
    request = pb.CommitRequest(
        reservation_id=held.reservation.reservation_id, idempotency_key=new_key(), amount_micros=0
    )
    answer = calls(calls.wallet.Commit, request)
    assert (answer.charged_micros, answer.wallet.balance_micros, answer.wallet.held_micros) == (0, FREE, 0)


def test_a_release_gives_back_what_is_held(calls: Calls) -> None:
    held = reserve(calls, 100)
    request = pb.ReleaseRequest(reservation_id=held.reservation.reservation_id, idempotency_key=new_key())
    answer = calls(calls.wallet.Release, request)
    assert (answer.released_micros, answer.replayed, answer.wallet.held_micros) == (100, False, 0)
    again = calls(calls.wallet.Release, request)
    assert (again.released_micros, again.replayed, again.wallet) == (100, True, answer.wallet)


def test_an_extension_adds_amount_and_time(calls: Calls) -> None:
    held = reserve(calls, 100, ttl_seconds=10)
    request = pb.ExtendRequest(
        reservation_id=held.reservation.reservation_id,
        idempotency_key=new_key(),
        amount_micros=50,
        ttl_seconds=3_600,
    )
    answer = calls(calls.wallet.Extend, request)
    assert (answer.reservation.held_micros, answer.wallet.held_micros) == (150, 150)
    longer = answer.reservation.expires_at.ToMicroseconds() - held.reservation.expires_at.ToMicroseconds()
    assert 3_590_000_000 <= longer < 3_600_000_000


def test_after_the_ttl_an_extension_is_told_to_commit_which_is_taken(calls: Calls) -> None:
    held = reserve(calls, 100, ttl_seconds=1).reservation
    time.sleep(max(0.0, held.expires_at.ToMicroseconds() / 1e6 - time.time()) + 0.1)
    more = pb.ExtendRequest(reservation_id=held.reservation_id, idempotency_key=new_key(), amount_micros=50)
    refused = calls.refused(calls.wallet.Extend, more)
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RESERVATION_EXPIRED")
    assert refused.message == (
        "The reservation's time has run out: commit what was done within 24 hours of its end, and reserve "
        "anew for more."
    )
    charge = pb.CommitRequest(reservation_id=held.reservation_id, idempotency_key=new_key(), amount_micros=70)
    answer = calls(calls.wallet.Commit, charge)
    assert (answer.reservation.state, answer.charged_micros) == (RESERVATION_STATE_SETTLED_LATE, 70)
    assert wallet_of(calls).balance_micros == FREE - 70


def test_a_priced_line_pins_its_price(calls: Calls) -> None:
    answer = reserve_line(calls, "fal-ai/flux/schnell", 3)
    price = answer.reservation.price
    assert (answer.reservation.held_micros, answer.reservation.quoted_quantity) == (9_000, 3)
    assert price == PinnedPrice(
        price_version=price.price_version,
        model="fal-ai/flux/schnell",
        amount_micros=3_000,
        base_quantity=1,
        unit="image",
        category="image",
    )
    charge = pb.CommitRequest(
        reservation_id=answer.reservation.reservation_id, idempotency_key=new_key(), quantity=2
    )
    assert calls(calls.wallet.Commit, charge).charged_micros == 6_000


def reserve_line(calls: Calls, model: str, quantity: int) -> pb.ReserveResponse:
    line = pb.PricedLine(model=model, quantity=quantity)
    return calls(calls.wallet.Reserve, pb.ReserveRequest(idempotency_key=new_key(), line=line))


def test_a_reserve_beyond_the_credits_names_both_amounts(calls: Calls) -> None:
    request = pb.ReserveRequest(idempotency_key=new_key(), amount_micros=FREE + 350_000)
    refused = calls.refused(calls.wallet.Reserve, request)
    assert refused == Refused(
        grpc.StatusCode.FAILED_PRECONDITION,
        "INSUFFICIENT_CREDITS",
        {"required_micros": "5350000", "available_micros": "5000000", "wallet_seq": "1"},
    )
    assert refused.message == (
        "This needs $5.35 and $5.00 is available: add credits, or wait until running work gives back what it "
        "holds."
    )


def test_every_scope_that_blocks_is_named(calls: Calls) -> None:
    scopes = [
        SpendScope(scope="run", limit_micros=99),
        SpendScope(scope="shot"),
        SpendScope(scope="day", limit_micros=50),
    ]
    request = pb.ReserveRequest(idempotency_key=new_key(), amount_micros=100, spend_scopes=scopes)
    assert calls.refused(calls.wallet.Reserve, request) == Refused(
        grpc.StatusCode.FAILED_PRECONDITION,
        "SPEND_LIMIT_EXCEEDED",
        {
            "scope": "run",
            "limit_micros": "99",
            "charged_micros": "0",
            "held_micros": "0",
            "required_micros": "100",
            "wallet_seq": "1",
        },
        violations=(("SPEND_LIMIT_EXCEEDED", "run"), ("SPEND_LIMIT_EXCEEDED", "day")),
    )


def test_a_key_that_named_another_request_is_refused(calls: Calls) -> None:
    key = new_key()
    calls(calls.wallet.Reserve, pb.ReserveRequest(idempotency_key=key, amount_micros=1))
    refused = calls.refused(calls.wallet.Reserve, pb.ReserveRequest(idempotency_key=key, amount_micros=2))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_KEY_REUSED")
    assert refused.metadata["idempotency_key"] == key


def test_the_same_key_from_50_callers_at_once_has_one_effect(server: RunningServer, calls: Calls) -> None:
    request = pb.ReserveRequest(idempotency_key=new_key(), amount_micros=100)
    together = threading.Barrier(50)

    def call(_number: int) -> pb.ReserveResponse:
        together.wait()
        return calls(calls.wallet.Reserve, request)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(call, range(50)))
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 49
    for answer in answers:
        answer.replayed = False
    assert all(answer == answers[0] for answer in answers)
    assert wallet_of(calls).held_micros == 100


def test_64_callers_share_a_wallet_that_covers_20(calls: Calls) -> None:
    together = threading.Barrier(64)

    def call(_number: int) -> str:
        together.wait()
        try:
            reserve(calls, FREE // 20)
        except grpc.RpcError as error:
            return Refused.of(error).reason
        return "held"

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(call, range(64)))
    assert sorted(answers) == ["INSUFFICIENT_CREDITS"] * 44 + ["held"] * 20
    assert wallet_of(calls).available_micros == 0


def test_another_account_looks_like_one_that_does_not_exist(server: RunningServer, calls: Calls) -> None:
    stranger = Calls(server.channel, server.sign_up())
    held = reserve(stranger, 100).reservation.reservation_id
    nobody = "000000000000"
    for theirs, missing in [
        (pb.GetWalletRequest(account_id=stranger.user.account_id), pb.GetWalletRequest(account_id=nobody)),
        (pb.GetWalletRequest(account_id=stranger.user.account_id), pb.GetWalletRequest(account_id="\0")),
    ]:
        refused = calls.refused(calls.wallet.GetWallet, theirs)
        assert refused == calls.refused(calls.wallet.GetWallet, missing)
        assert refused == Refused(grpc.StatusCode.NOT_FOUND, "NOT_FOUND", {"what": "account"})
    for named in (held, f"{nobody}-1", f"{calls.user.account_id}-99", "", "x", f"{held}\0"):
        not_found = Refused(grpc.StatusCode.NOT_FOUND, "NOT_FOUND", {"what": "reservation"})
        get = pb.GetReservationRequest(reservation_id=named)
        assert calls.refused(calls.wallet.GetReservation, get) == not_found
        commit = pb.CommitRequest(reservation_id=named, idempotency_key=new_key(), amount_micros=1)
        refused = calls.refused(calls.wallet.Commit, commit)
        refused.metadata.pop("wallet_seq", None)
        assert refused == not_found


def test_a_service_holds_for_its_customer_and_nobody_else_ends_it(
    server: RunningServer, calls: Calls
) -> None:
    service = Calls(server.channel, server.create_key(ROLE_SERVICE))
    request = pb.ReserveRequest(
        account_id=calls.user.account_id, idempotency_key=new_key(), amount_micros=100
    )
    held = service(service.wallet.Reserve, request).reservation
    assert (held.account_id, held.opened_by) == (calls.user.account_id, service.user.account_id)
    release = pb.ReleaseRequest(reservation_id=held.reservation_id, idempotency_key=new_key())
    refused = calls.refused(calls.wallet.Release, release)
    refused.metadata.pop("wallet_seq")
    assert refused == Refused(
        grpc.StatusCode.PERMISSION_DENIED, "NOT_YOUR_HOLD", {"opened_by": service.user.account_id}
    )
    assert service(service.wallet.Release, release).released_micros == 100


def test_a_watched_wallet_is_seen_changing(calls: Calls) -> None:
    watch = calls.wallet.WatchWallet(pb.WatchWalletRequest(), metadata=calls.user.metadata, timeout=SECONDS)
    assert next(watch).wallet == wallet_of(calls)
    reserve(calls, 100)
    assert next(watch).wallet == wallet_of(calls)
    watch.cancel()


def test_the_statement_pages_newest_first(calls: Calls) -> None:
    for _ in range(3):
        reserve(calls, 10)
    pages, token = [], ""
    while True:
        page = calls(calls.wallet.ListTransactions, pb.ListTransactionsRequest(page_size=2, page_token=token))
        pages.append(page)
        token = page.next_page_token
        if not token:
            break
    assert [[row.wallet_seq for row in page.transactions] for page in pages] == [[4, 3], [2, 1]]
    assert [len(page.lots) for page in pages] == [1, 0]
    assert pages[0].wallet == wallet_of(calls)
    first = pages[1].transactions[1]
    assert [(entry.account, entry.amount_micros) for entry in first.entries] == [
        (pb.LEDGER_ACCOUNT_PROMOTIONS, -FREE),
        (pb.LEDGER_ACCOUNT_WALLET, FREE),
    ]


def test_a_statement_of_the_past_does_not_change(calls: Calls) -> None:
    reserve(calls, 10)
    rows = calls(calls.wallet.ListTransactions, pb.ListTransactionsRequest()).transactions
    request = pb.ListTransactionsRequest(as_of=rows[0].at)
    before = calls(calls.wallet.ListTransactions, request)
    reserve(calls, 20)
    assert calls(calls.wallet.ListTransactions, request) == before


def test_reservations_page_newest_first_and_by_what_is_held(calls: Calls) -> None:
    held = [reserve(calls, 10).reservation.reservation_id for _ in range(3)]
    release = pb.ReleaseRequest(reservation_id=held[1], idempotency_key=new_key())
    calls(calls.wallet.Release, release)
    first = calls(calls.wallet.ListReservations, pb.ListReservationsRequest(page_size=2))
    rest = calls(
        calls.wallet.ListReservations,
        pb.ListReservationsRequest(page_size=2, page_token=first.next_page_token),
    )
    assert [row.reservation_id for row in first.reservations] == [held[2], held[1]]
    assert ([row.reservation_id for row in rest.reservations], rest.next_page_token) == ([held[0]], "")
    active = calls(calls.wallet.ListReservations, pb.ListReservationsRequest(active=True))
    assert [row.reservation_id for row in active.reservations] == [held[2], held[0]]


def test_usage_adds_up_charges_by_what_is_asked(calls: Calls) -> None:
    for model, quantity in (("fal-ai/flux/schnell", 2), ("fal-ai/reve/edit", 1)):
        held = reserve_line(calls, model, quantity).reservation
        charge = pb.CommitRequest(
            reservation_id=held.reservation_id, idempotency_key=new_key(), quantity=quantity
        )
        calls(calls.wallet.Commit, charge)
    usage = calls(calls.wallet.GetUsage, pb.GetUsageRequest(group_by=pb.USAGE_GROUPING_MODEL))
    assert list(usage.totals) == [
        pb.UsageTotal(group="fal-ai/reve/edit", charges=1, charged_micros=40_000),
        pb.UsageTotal(group="fal-ai/flux/schnell", charges=1, charged_micros=6_000),
    ]
    assert usage.charged_micros == 46_000
    # Refused with its field however long it is: what is said of it fits into a header.
    too_long = calls.refused(calls.wallet.GetUsage, pb.GetUsageRequest(first_day="x" * 20_000))
    assert too_long == invalid("first_day")
    days = calls(calls.wallet.GetUsage, pb.GetUsageRequest())
    assert [(total.group, total.charged_micros) for total in days.totals] == [(days.last_day, 46_000)]
    records = calls(calls.wallet.ListUsage, pb.ListUsageRequest(page_size=1))
    newest = records.records[0]
    assert newest == pb.UsageRecord(
        at=newest.at,
        provider="fal",
        model="fal-ai/reve/edit",
        category="edit",
        charged_micros=40_000,
        quantity=1,
        reservation_id=newest.reservation_id,
        api_key_id=calls.user.key_id,
        wallet_seq=5,
    )
    request = pb.ListUsageRequest(page_size=1, page_token=records.next_page_token)
    assert calls(calls.wallet.ListUsage, request).records[0].model == "fal-ai/flux/schnell"


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.ReserveRequest(idempotency_key="", amount_micros=1), "idempotency_key"),
        (pb.ReserveRequest(idempotency_key="a" * 256, amount_micros=1), "idempotency_key"),
        (pb.ReserveRequest(idempotency_key="a\0", amount_micros=1), "idempotency_key"),
        (pb.ReserveRequest(idempotency_key="a"), "hold"),
        (pb.ReserveRequest(idempotency_key="a", amount_micros=0), "amount_micros"),
        (pb.ReserveRequest(idempotency_key="a", amount_micros=-1), "amount_micros"),
        (pb.ReserveRequest(idempotency_key="a", amount_micros=LARGEST), "amount_micros"),
        (pb.ReserveRequest(idempotency_key="a", line=pb.PricedLine(quantity=1)), "line.model"),
        (pb.ReserveRequest(idempotency_key="a", line=pb.PricedLine(model="a/b")), "line.quantity"),
        (
            pb.ReserveRequest(idempotency_key="a", line=pb.PricedLine(model="a/b", quantity=-1)),
            "line.quantity",
        ),
        (pb.ReserveRequest(idempotency_key="a", amount_micros=1, ttl_seconds=86_401), "ttl_seconds"),
        (pb.ReserveRequest(idempotency_key="a", amount_micros=1, labels={"": "b"}), "labels"),
        (
            pb.ReserveRequest(idempotency_key="a", amount_micros=1, spend_scopes=[SpendScope()]),
            "spend_scopes[0].scope",
        ),
    ],
)
def test_a_reserve_of_bad_shape_is_refused_by_its_field(
    calls: Calls, request_: pb.ReserveRequest, field: str
) -> None:
    assert calls.refused(calls.wallet.Reserve, request_) == Refused(
        grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", {"field": field}, fields=(field,)
    )


def test_a_commit_of_bad_shape_is_refused_by_its_field(calls: Calls) -> None:
    held = reserve(calls, 100).reservation.reservation_id
    for field, request in {
        "charge": pb.CommitRequest(idempotency_key="a"),
        "amount_micros": pb.CommitRequest(idempotency_key="a", amount_micros=-1),
        "quantity": pb.CommitRequest(idempotency_key="a", quantity=-1),
        "capture": pb.CommitRequest(idempotency_key="a", amount_micros=1, capture=-1),
        "idempotency_key": pb.CommitRequest(amount_micros=1),
    }.items():
        request.reservation_id = held
        refused = calls.refused(calls.wallet.Commit, request)
        assert refused.fields == (field,)
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    largest = pb.CommitRequest(reservation_id=held, idempotency_key="a", amount_micros=LARGEST)
    assert calls.refused(calls.wallet.Commit, largest).fields == ("amount_micros",)
    nothing = pb.ExtendRequest(reservation_id=held, idempotency_key="a")
    assert calls.refused(calls.wallet.Extend, nothing).fields == ("amount_micros",)


def test_a_wallet_watched_on_one_server_is_seen_changing_from_another(
    postgresql_environment: dict[str, str], tmp_path: Path
) -> None:
    one = running({**postgresql_environment, "OANIM_DATA": str(tmp_path / "one")})
    two = running({**postgresql_environment, "OANIM_DATA": str(tmp_path / "two")})
    with one as first, two as second:
        here = Calls(first.channel, first.sign_up())
        there = Calls(second.channel, here.user)
        watch = here.wallet.WatchWallet(pb.WatchWalletRequest(), metadata=here.user.metadata, timeout=SECONDS)
        assert next(watch).wallet.held_micros == 0
        reserve(there, 100)
        assert next(watch).wallet == wallet_of(there)
        watch.cancel()
