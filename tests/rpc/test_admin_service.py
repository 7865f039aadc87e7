"""AdminService over a real channel and over the local socket, on both databases."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from sqlalchemy import select

from oanim_server.database.tables import notes
from oanim_server.ledger import ids
from openanimate.metering.v1 import admin_service_pb2 as pb
from openanimate.metering.v1 import checkout_service_pb2 as checkout
from openanimate.metering.v1 import wallet_service_pb2 as wallet
from openanimate.metering.v1.account_service_pb2 import ListLimitsRequest
from openanimate.metering.v1.generate_service_pb2 import ListGenerationsRequest
from openanimate.metering.v1.render_service_pb2 import ListRendersRequest
from openanimate.metering.v1.role_pb2 import (
    ROLE_ADMIN,
    ROLE_SERVICE,
    ROLE_UNSPECIFIED,
    ROLE_USER,
    ROLE_WORKER,
)
from openanimate.metering.v1.wallet_pb2 import Wallet
from tests.rpc.asking import assert_roles, invalid, not_found, reused, without_seq, wrong_role
from tests.selling import FIFTY, FIFTY_FIVE, FREE, now, session_of, wallet_of
from tests.server import Calls, Refused, User, new_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.selling import RunningShop

COMPLETED = "checkout.session.completed"
UNKNOWN = "000000000000"
NOBODY_S = f"{UNKNOWN}-abcdefghijklmnopqrstuvwx"


@pytest.fixture
def operator(shop: RunningShop) -> Calls:
    """The calls of an `admin` key of a new account."""
    return Calls(shop.server.channel, shop.server.create_key(ROLE_ADMIN))


@pytest.fixture
def local(shop: RunningShop) -> Iterator[Calls]:
    """Calls on the local socket, which need no key."""
    with grpc.insecure_channel(f"unix:{shop.server.data / 'oanim.sock'}") as channel:
        yield Calls(channel, User("", "", ""))


def noted(shop: RunningShop, calls: Calls) -> list[tuple[int, str, str]]:
    """Who did what to the wallet of an account, and why, by wallet_seq."""
    query = select(notes.c.seq, notes.c.actor, notes.c.reason).order_by(notes.c.seq)
    query = query.where(notes.c.wallet_id == ids.account_id(calls.user.account_id))
    database = shop.server.app._database  # noqa: SLF001 - who did it is told to auditors alone
    return shop.server.on_loop(
        database.read(lambda connection: [(seq, who, why) for seq, who, why in connection.execute(query)])
    )


def reasons(calls: Calls) -> list[str]:
    """The reasons in the statement, newest first."""
    statement = calls(calls.wallet.ListTransactions, wallet.ListTransactionsRequest())
    return [row.reason for row in statement.transactions]


def grant(account_id: str, **changed: Any) -> pb.GrantCreditsRequest:
    fields = {"amount_micros": 10, "reason": "sorry", "idempotency_key": new_key(), **changed}
    return pb.GrantCreditsRequest(account_id=account_id, **fields)


def adjust(account_id: str, **changed: Any) -> pb.AdjustBalanceRequest:
    fields = {"amount_micros": -10, "reason": "a slip", "idempotency_key": new_key(), **changed}
    return pb.AdjustBalanceRequest(account_id=account_id, **fields)


def freeze(account_id: str, **changed: Any) -> pb.FreezeAccountRequest:
    fields = {"frozen": True, "reason": "a look", "idempotency_key": new_key(), **changed}
    return pb.FreezeAccountRequest(account_id=account_id, **fields)


def refund(checkout_id: str, **changed: Any) -> pb.RefundPurchaseRequest:
    fields = {"reason": "asked for", "idempotency_key": new_key(), **changed}
    return pb.RefundPurchaseRequest(checkout_id=checkout_id, **fields)


def test_only_admins_and_nobody_through_a_network_for_keys(shop: RunningShop) -> None:
    methods = [method.name for method in pb.DESCRIPTOR.services_by_name["AdminService"].methods]
    assert_roles(
        shop.server,
        {f"AdminService/{name}": set() if name == "CreateKey" else {"admin"} for name in methods},
    )


# Keys ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [ROLE_USER, ROLE_WORKER, ROLE_SERVICE, ROLE_ADMIN])
def test_a_key_of_any_role_is_made_on_the_socket(shop: RunningShop, local: Calls, role: Any) -> None:
    request = pb.CreateKeyRequest(role=role, name="farm", idempotency_key=new_key())
    made = local(local.admin.CreateKey, request)
    assert (made.secret.startswith(f"anim_{made.key_id}_"), made.replayed) == (True, False)
    again = local(local.admin.CreateKey, request)
    assert (again.account_id, again.key_id, again.replayed) == (made.account_id, made.key_id, True)
    assert again.secret not in ("", made.secret)
    for changed in ({"name": "other"}, {"role": ROLE_USER if role != ROLE_USER else ROLE_ADMIN}):
        fields = {"role": role, "name": "farm", "idempotency_key": request.idempotency_key, **changed}
        other = pb.CreateKeyRequest(**fields)
        assert local.refused(local.admin.CreateKey, other) == reused(request.idempotency_key)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"role": ROLE_UNSPECIFIED}, "role"),
        ({"role": 5}, "role"),
        ({"name": ""}, "name"),
        ({"name": "n" * 65}, "name"),
        ({"name": "é" * 33}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"idempotency_key": ""}, "idempotency_key"),
    ],
)
def test_a_bad_key_names_its_field(local: Calls, changed: dict[str, Any], field: str) -> None:
    fields = {"role": ROLE_SERVICE, "name": "farm", "idempotency_key": new_key(), **changed}
    assert local.refused(local.admin.CreateKey, pb.CreateKeyRequest(**fields)) == invalid(field)


# Corrections -----------------------------------------------------------------------------------------


def test_every_correction_is_kept_with_who_and_why_and_the_owner_reads_why(
    shop: RunningShop, buyer: Calls, operator: Calls, local: Calls
) -> None:
    account, who = buyer.user.account_id, operator.user.key_id
    given = operator(operator.admin.GrantCredits, grant(account, amount_micros=100))
    assert given == pb.GrantCreditsResponse(
        wallet=Wallet(
            account_id=account, balance_micros=FREE + 100, available_micros=FREE + 100, wallet_seq=2
        )
    )
    up = local(local.admin.AdjustBalance, adjust(account, amount_micros=50, reason="up"))
    assert up.wallet.balance_micros == FREE + 150
    down = local(local.admin.AdjustBalance, adjust(account, amount_micros=-FREE - 250, reason="down"))
    assert (down.wallet.balance_micros, down.wallet.available_micros, down.wallet.debt_micros) == (
        -100,
        -100,
        100,
    )
    stopped = operator(operator.admin.FreezeAccount, freeze(account))
    assert (stopped.wallet.frozen, stopped.wallet.wallet_seq) == (True, 5)
    # To stop what is stopped is a row, and what is given pays the debt first.
    again = operator(operator.admin.FreezeAccount, freeze(account, reason="again"))
    assert (again.wallet.frozen, again.wallet.wallet_seq) == (True, 6)
    paid = local(local.admin.GrantCredits, grant(account, amount_micros=300, reason="peace"))
    assert (paid.wallet.balance_micros, paid.wallet.debt_micros) == (200, 0)
    thawed = local(local.admin.FreezeAccount, freeze(account, frozen=False, reason="fine"))
    assert thawed.wallet == wallet_of(buyer)
    assert noted(shop, buyer) == [
        (2, who, "sorry"),
        (3, "local", "up"),
        (4, "local", "down"),
        (5, who, "a look"),
        (6, who, "again"),
        (7, "local", "peace"),
        (8, "local", "fine"),
    ]
    assert reasons(buyer) == ["fine", "peace", "again", "a look", "down", "up", "sorry", ""]


def test_a_frozen_account_starts_no_work_and_one_that_owes_neither(buyer: Calls, operator: Calls) -> None:
    account = buyer.user.account_id
    held = buyer(buyer.wallet.Reserve, wallet.ReserveRequest(amount_micros=9, idempotency_key="a"))
    operator(operator.admin.FreezeAccount, freeze(account))
    request = wallet.ReserveRequest(amount_micros=1, idempotency_key=new_key())
    refused = without_seq(buyer.refused(buyer.wallet.Reserve, request))
    assert refused == Refused(grpc.StatusCode.FAILED_PRECONDITION, "ACCOUNT_FROZEN")
    commit = wallet.CommitRequest(
        reservation_id=held.reservation.reservation_id, amount_micros=9, idempotency_key="a"
    )
    assert buyer(buyer.wallet.Commit, commit).charged_micros == 9
    operator(operator.admin.FreezeAccount, freeze(account, frozen=False))
    operator(operator.admin.AdjustBalance, adjust(account, amount_micros=-FREE))
    request = wallet.ReserveRequest(amount_micros=1, idempotency_key=new_key())
    assert buyer.refused(buyer.wallet.Reserve, request).reason == "INSUFFICIENT_CREDITS"


def test_granted_credits_last_as_long_as_it_was_said(buyer: Calls, operator: Calls) -> None:
    operator(operator.admin.GrantCredits, grant(buyer.user.account_id, expires_after_days=36_500))
    operator(operator.admin.GrantCredits, grant(buyer.user.account_id))
    statement = buyer(buyer.wallet.ListTransactions, wallet.ListTransactionsRequest())
    [short] = [lot for lot in statement.lots if lot.HasField("expires_at")]
    lasts = short.expires_at.ToMicroseconds() - short.created_at.ToMicroseconds()
    assert (short.amount_micros, lasts) == (10, 36_500 * 86_400 * 1_000_000)
    assert len(statement.lots) == 3


def test_a_repeated_correction_is_the_first_one_s_answer(buyer: Calls, operator: Calls, local: Calls) -> None:
    account = buyer.user.account_id
    for method, make, other in (
        (operator.admin.GrantCredits, grant, {"amount_micros": 11}),
        (operator.admin.GrantCredits, grant, {"reason": "other"}),
        (operator.admin.GrantCredits, grant, {"expires_after_days": 1}),
        (operator.admin.AdjustBalance, adjust, {"amount_micros": -11}),
        (operator.admin.AdjustBalance, adjust, {"reason": "other"}),
        (operator.admin.FreezeAccount, freeze, {"frozen": False}),
        (operator.admin.FreezeAccount, freeze, {"reason": "other"}),
    ):
        key = new_key()
        make_: Any = make
        first: Any = operator(method, make_(account, idempotency_key=key))
        operator(operator.admin.GrantCredits, grant(account))
        again: Any = operator(method, make_(account, idempotency_key=key))
        assert (again.replayed, again.wallet) == (True, first.wallet)
        changed = make_(account, idempotency_key=key, **other)
        assert without_seq(operator.refused(method, changed)) == reused(key)
        operator(operator.admin.FreezeAccount, freeze(account, frozen=False))
    # Another caller's key of the same name is another attempt, and so is another wallet's.
    before = wallet_of(buyer).balance_micros
    for calls in (operator, local):
        assert not calls(calls.admin.GrantCredits, grant(account, idempotency_key="same")).replayed
    assert wallet_of(buyer).balance_micros == before + 20


@pytest.mark.parametrize(
    ("make", "changed", "field"),
    [
        *(
            (make, {name: value}, name)
            for make in (grant, adjust, freeze)
            for name, value in (
                ("reason", ""),
                ("reason", "r" * 501),
                ("reason", "é" * 251),
                ("reason", "a\0b"),
                ("idempotency_key", ""),
                ("idempotency_key", "k" * 256),
            )
        ),
        *((grant, {"amount_micros": micros}, "amount_micros") for micros in (0, -1, 10**12 + 1)),
        *((grant, {"expires_after_days": days}, "expires_after_days") for days in (-1, 36_501)),
        *((adjust, {"amount_micros": micros}, "amount_micros") for micros in (0, -(10**12) - 1, 10**12 + 1)),
        *((refund, {"amount_micros": micros}, "amount_micros") for micros in (-1, 10**12 + 1)),
        (refund, {"reason": ""}, "reason"),
        (refund, {"idempotency_key": ""}, "idempotency_key"),
    ],
)
def test_bad_input_names_its_field(
    buyer: Calls, operator: Calls, make: Any, changed: dict[str, Any], field: str
) -> None:
    methods: dict[Any, Any] = {
        grant: operator.admin.GrantCredits,
        adjust: operator.admin.AdjustBalance,
        freeze: operator.admin.FreezeAccount,
        refund: operator.admin.RefundPurchase,
    }
    account = buyer.user.account_id
    named = f"{account}-abcdefghijklmnopqrstuvwx" if make is refund else account
    assert operator.refused(methods[make], make(named, **changed)) == invalid(field)
    assert wallet_of(buyer).wallet_seq == 1


@pytest.mark.parametrize("named", ["", UNKNOWN, "nobody", "someone@example.com", "a" * 1_000])
def test_an_account_that_is_none_is_not_found(operator: Calls, named: str) -> None:
    for method, request in (
        (operator.admin.GrantCredits, grant(named)),
        (operator.admin.AdjustBalance, adjust(named)),
        (operator.admin.FreezeAccount, freeze(named)),
        *([(operator.admin.ListUncollected, pb.ListUncollectedRequest(account_id=named))] if named else []),
    ):
        refused = operator.refused(method, request)  # type: ignore[arg-type]
        assert without_seq(refused) == not_found("account"), request


@pytest.mark.parametrize("named", [UNKNOWN, "nobody"])
def test_lists_of_an_account_that_is_none_are_not_found(operator: Calls, named: str) -> None:
    for method, request in (
        (operator.generate.ListGenerations, ListGenerationsRequest(account_id=named)),
        (operator.render.ListRenders, ListRendersRequest(account_id=named)),
        (operator.checkout.ListPurchases, checkout.ListPurchasesRequest(account_id=named)),
        (operator.wallet.ListTransactions, wallet.ListTransactionsRequest(account_id=named)),
        (operator.account.ListLimits, ListLimitsRequest(account_id=named)),
    ):
        assert without_seq(operator.refused(method, request)) == not_found("account"), request


# Refunds ---------------------------------------------------------------------------------------------


def test_a_refund_goes_back_through_stripe_once_and_its_event_takes_the_credits(
    shop: RunningShop, buyer: Calls, operator: Calls
) -> None:
    bought = shop.buy(buyer)
    request = refund(bought.checkout_id, amount_micros=20_000_000)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: operator(operator.admin.RefundPurchase, request), range(8)))
    first = answers[0]
    assert {(one.provider_id, one.state, one.amount_micros) for one in answers} == {
        (first.provider_id, "succeeded", 20_000_000)
    }
    assert first.provider_id.startswith("re_")
    assert sum(not one.replayed for one in answers) == 1
    shop.stripe.told("delivering")
    assert wallet_of(buyer).balance_micros == FREE + FIFTY_FIVE - 22_000_000
    # 0 is all that is left.
    rest = operator(operator.admin.RefundPurchase, refund(bought.checkout_id))
    assert (rest.amount_micros, rest.replayed) == (30_000_000, False)
    shop.stripe.told("delivering")
    assert wallet_of(buyer).balance_micros == FREE
    receipt = buyer(
        buyer.checkout.GetReceipt, checkout.GetReceiptRequest(checkout_id=bought.checkout_id)
    ).receipt
    assert [(one.provider_id, one.amount_micros) for one in receipt.reversals] == [
        (first.provider_id, 20_000_000),
        (rest.provider_id, 30_000_000),
    ]
    assert operator(operator.admin.RefundPurchase, request).replayed
    assert operator.refused(operator.admin.RefundPurchase, refund(bought.checkout_id)) == invalid(
        "amount_micros"
    )


def test_refunds_at_once_never_give_back_more_than_was_paid(
    shop: RunningShop, buyer: Calls, operator: Calls
) -> None:
    bought = shop.buy(buyer)

    def ask(_: int) -> int:
        try:
            request = refund(bought.checkout_id, amount_micros=20_000_000)
            return operator(operator.admin.RefundPurchase, request).amount_micros
        except grpc.RpcError as error:
            return {"INVALID_FIELD": 0}[Refused.of(error).reason]

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(ask, range(8))) == 40_000_000
    shop.stripe.told("delivering")
    assert wallet_of(buyer).balance_micros == FREE + FIFTY_FIVE - 44_000_000


def test_what_was_not_paid_or_is_too_much_or_not_whole_cents_is_not_given_back(
    shop: RunningShop, buyer: Calls, operator: Calls
) -> None:
    begun, bought = shop.begin(buyer), shop.buy(buyer)
    account = buyer.user.account_id
    for named, what in (
        (begun.checkout_id, "purchase"),
        (f"{account}-abcdefghijklmnopqrstuvwx", "purchase"),
        (NOBODY_S, "purchase"),
        (account, "checkout"),
        ("", "checkout"),
    ):
        assert operator.refused(operator.admin.RefundPurchase, refund(named)) == not_found(what), named
    for micros in (FIFTY + 10_000, 1, 10_001, 10**12):
        request = refund(bought.checkout_id, amount_micros=micros)
        assert operator.refused(operator.admin.RefundPurchase, request) == invalid("amount_micros")
    key = new_key()
    operator(
        operator.admin.RefundPurchase,
        refund(bought.checkout_id, amount_micros=10_000, idempotency_key=key),
    )
    for changed in ({"amount_micros": 20_000}, {}, {"amount_micros": 10_000, "reason": "another"}):
        other = refund(bought.checkout_id, idempotency_key=key, **changed)
        assert operator.refused(operator.admin.RefundPurchase, other) == reused(key)
    shop.stripe.told("delivering")


def test_what_stripe_refuses_is_refused_again(shop: RunningShop, buyer: Calls, operator: Calls) -> None:
    begun = shop.begin(buyer)
    shop.stripe.told(f"sessions/{session_of(begun)}/pay")
    shop.stripe.tell("delivering", paused=True)
    try:
        # All of it went back already, which nobody has told us yet.
        shop.stripe.tell("refunds", of=session_of(begun))
        request = refund(begun.checkout_id, amount_micros=10_000)
        for _ in range(2):
            assert operator.refused(operator.admin.RefundPurchase, request) == invalid("amount_micros")
    finally:
        shop.stripe.told("delivering")
    assert now(buyer, begun).reversed_micros == FIFTY_FIVE


def test_while_stripe_is_away_the_same_key_goes_on_later(
    shop: RunningShop, buyer: Calls, operator: Calls
) -> None:
    bought = shop.buy(buyer)
    request = refund(bought.checkout_id)
    shop.stripe.tell("faults", at="api", do="drop_after", times=None, match="POST /v1/refunds")
    try:
        refused = operator.refused(operator.admin.RefundPurchase, request)
    finally:
        shop.stripe.forget_faults()
    assert refused == Refused(grpc.StatusCode.UNAVAILABLE, "PAYMENTS_AWAY")
    answer = operator(operator.admin.RefundPurchase, request)
    assert (answer.amount_micros, answer.state, answer.replayed) == (FIFTY, "succeeded", True)
    shop.stripe.told("delivering")
    assert wallet_of(buyer).balance_micros == FREE


# What needs a look -----------------------------------------------------------------------------------


def test_an_event_that_does_not_match_is_listed_and_closed_with_a_reason(
    shop: RunningShop, buyer: Calls, operator: Calls, local: Calls
) -> None:
    shop.stripe.tell("delivering", paused=True)
    try:
        begun = shop.begin(buyer)
        shop.stripe.tell(f"sessions/{session_of(begun)}/pay")
        event = json.loads(shop.stripe.event(COMPLETED, begun.checkout_id))
        event["data"]["object"] |= {"amount_subtotal": 4_999, "amount_total": 4_999}
        kept = []
        for number in range(3):
            event["id"] = f"evt_{number}_{new_key()}"
            answer = shop.deliver(json.dumps(event).encode())
            assert answer.json() == {"standing": "quarantined"}
            kept.append(event["id"])
    finally:
        shop.stripe.tell("queue", do="drop")
        shop.stripe.told("delivering")
    assert wallet_of(buyer).balance_micros == FREE

    def ours(*, resolved: bool, calls: Calls = operator) -> list[pb.QuarantinedEvent]:
        """Newest first, over pages of two."""
        found: list[pb.QuarantinedEvent] = []
        token = ""
        while True:
            request = pb.ListQuarantinedRequest(with_resolved=resolved, page_size=2, page_token=token)
            page = calls(calls.admin.ListQuarantined, request)
            found += [one for one in page.events if one.checkout_id == begun.checkout_id]
            if not (token := page.next_page_token):
                return found

    listed = ours(resolved=False)
    assert [one.event_id for one in listed] == kept[::-1]
    assert listed[0] == pb.QuarantinedEvent(
        event_id=kept[2],
        type=COMPLETED,
        object_id=session_of(begun),
        problem=(
            "amount in micro-USD is 49990000 and must be 50000000; amount with tax in micro-USD is 49990000 "
            "and must be 50000000"
        ),
        checkout_id=begun.checkout_id,
        received_at=listed[0].received_at,
    )
    closing = pb.ResolveQuarantinedRequest(event_id=kept[0], reason="a test of ours")
    closed = local(local.admin.ResolveQuarantined, closing).event
    assert (closed.resolved_by, closed.resolution, closed.HasField("resolved_at")) == (
        "local",
        "a test of ours",
        True,
    )
    looking = pb.ResolveQuarantinedRequest(event_id=kept[1], reason="once more", look_again=True)
    looked = operator(operator.admin.ResolveQuarantined, looking).event
    assert (looked.resolved_by, looked.problem) == (operator.user.key_id, listed[0].problem)
    assert [one.event_id for one in ours(resolved=False)] == [kept[2], kept[1]]
    assert [one.event_id for one in ours(resolved=True, calls=local)] == kept[::-1]
    assert wallet_of(buyer).balance_micros == FREE
    again = operator.refused(operator.admin.ResolveQuarantined, closing)
    assert again == not_found("event in quarantine")


def test_an_event_that_is_not_in_quarantine_is_not_found(operator: Calls) -> None:
    for look_again in (False, True):
        request = pb.ResolveQuarantinedRequest(event_id="evt_0", reason="r", look_again=look_again)
        refused = operator.refused(operator.admin.ResolveQuarantined, request)
        assert refused == not_found("event in quarantine")
    for event_id, reason, field in (
        ("", "r", "event_id"),
        ("e" * 256, "r", "event_id"),
        ("evt_0", "", "reason"),
        ("evt_0", "r" * 501, "reason"),
    ):
        request = pb.ResolveQuarantinedRequest(event_id=event_id, reason=reason)
        assert operator.refused(operator.admin.ResolveQuarantined, request) == invalid(field)


def test_accounts_are_found_by_address_and_listed_newest_first(
    shop: RunningShop, operator: Calls, local: Calls
) -> None:
    email = f"Jo.{new_key()}@Example.com"
    made = Calls(shop.server.channel, shop.server.sign_up(email))
    service = shop.server.create_key(ROLE_SERVICE, "farm")
    found = operator(operator.admin.ListAccounts, pb.ListAccountsRequest(email=email.upper()))
    [summary] = found.accounts
    assert summary == pb.AccountSummary(
        account_id=made.user.account_id,
        email=email.lower(),
        role=ROLE_USER,
        created_at=summary.created_at,
        wallet=wallet_of(made),
    )
    first = local(local.admin.ListAccounts, pb.ListAccountsRequest(page_size=1))
    [newest] = first.accounts
    assert (newest.account_id, newest.name, newest.role) == (service.account_id, "farm", ROLE_SERVICE)
    second = pb.ListAccountsRequest(page_size=1, page_token=first.next_page_token)
    [before] = local(local.admin.ListAccounts, second).accounts
    assert before == summary
    nobody = pb.ListAccountsRequest(email=f"{new_key()}@example.com")
    assert operator(operator.admin.ListAccounts, nobody) == pb.ListAccountsResponse()
    for request, field in (
        (pb.ListAccountsRequest(email="nobody"), "email"),
        (pb.ListAccountsRequest(page_size=1_001), "page_size"),
        (pb.ListAccountsRequest(page_token="x"), "page_token"),
        # Beyond what PostgreSQL skips.
        (pb.ListAccountsRequest(page_token="OTk5OTk5OTk5OTk5"), "page_token"),
    ):
        assert operator.refused(operator.admin.ListAccounts, request) == invalid(field)


def test_work_that_no_wallet_covered_is_listed(buyer: Calls, operator: Calls) -> None:
    for key in ("a", "b"):
        request = wallet.ReserveRequest(amount_micros=2_000_000, ttl_seconds=1, idempotency_key=key)
        buyer(buyer.wallet.Reserve, request)
    while wallet_of(buyer).held_micros:
        time.sleep(0.1)  # a second is the shortest hold there is
    held = buyer(buyer.wallet.Reserve, wallet.ReserveRequest(amount_micros=FREE, idempotency_key="c"))
    account = buyer.user.account_id
    for seq in (2, 3):
        late = wallet.CommitRequest(
            reservation_id=f"{account}-{seq}", amount_micros=seq, idempotency_key=new_key()
        )
        assert buyer(buyer.wallet.Commit, late).charged_micros == 0
    assert held.wallet.available_micros == 0
    first = operator(
        operator.admin.ListUncollected, pb.ListUncollectedRequest(account_id=account, page_size=1)
    )
    second = operator(
        operator.admin.ListUncollected,
        pb.ListUncollectedRequest(account_id=account, page_size=1, page_token=first.next_page_token),
    )
    [one], [two] = first.work, second.work
    assert [
        (work.account_id, work.reservation_id, work.model, work.uncollected_micros) for work in (one, two)
    ] == [(account, f"{account}-3", "", 3), (account, f"{account}-2", "", 2)]
    assert second.next_page_token == ""
    every = operator(operator.admin.ListUncollected, pb.ListUncollectedRequest(page_size=1_000))
    assert [work for work in every.work if work.account_id == account] == [one, two]


def test_everything_adds_up_after_all_that(operator: Calls, local: Calls) -> None:
    for calls in (operator, local):
        report = calls(calls.admin.Audit, pb.AuditRequest())
        assert list(report.problems) == []
        assert report.wallets > 0


def test_a_user_s_key_is_refused_by_its_role_before_anything_is_looked_at(buyer: Calls) -> None:
    mine = buyer.user.account_id
    for method, request in (
        (buyer.admin.GrantCredits, grant(mine, amount_micros=10**12)),
        (buyer.admin.AdjustBalance, adjust(mine, amount_micros=10**12)),
        (buyer.admin.FreezeAccount, freeze(mine)),
        (buyer.admin.RefundPurchase, refund(NOBODY_S)),
    ):
        assert buyer.refused(method, request) == wrong_role("user")
    assert wallet_of(buyer).wallet_seq == 1
