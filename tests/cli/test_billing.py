"""What there is, what it is made of, what was bought, and everything that happened, to the cent."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode

from openanimate.metering.v1.checkout_service_pb2 import (
    Checkout,
    CheckoutState,
    GetCheckoutResponse,
    GetReceiptResponse,
    ListPurchasesResponse,
    Receipt,
    Reversal,
    ReversalKind,
)
from openanimate.metering.v1.wallet_pb2 import Wallet
from openanimate.metering.v1.wallet_service_pb2 import (
    Entry,
    LedgerAccount,
    ListTransactionsResponse,
    Lot,
    Transaction,
    TransactionKind,
)
from tests.cli.running import Cli, Ended
from tests.sdk.scripted import Refusal, ScriptedServer

STATEMENT, PURCHASES, RECEIPT, CHECKOUT = (
    "WalletService/ListTransactions",
    "CheckoutService/ListPurchases",
    "CheckoutService/GetReceipt",
    "CheckoutService/GetCheckout",
)
NOON = Timestamp(seconds=1_795_003_200)  # 2026-11-18 12:00:00
DAY_S = 86_400
NOT_FOUND = Refusal(StatusCode.NOT_FOUND, "NOT_FOUND", {"what": "checkout"})


def days_later(days: int) -> Timestamp:
    return Timestamp(seconds=NOON.seconds + days * DAY_S)


def wallet(available_micros: int = 60_000_000, held_micros: int = 0, debt_micros: int = 0) -> Wallet:
    return Wallet(
        balance_micros=available_micros + held_micros,
        held_micros=held_micros,
        available_micros=available_micros,
        debt_micros=debt_micros,
    )


def purchase(reversed_micros: int = 0) -> Checkout:
    return Checkout(
        checkout_id="a1-x",
        account_id="a1",
        state=CheckoutState.CHECKOUT_STATE_PAID,
        amount_micros=50_000_000,
        bonus_micros=5_000_000,
        credits_micros=55_000_000,
        credited_at=NOON,
        reversed_micros=reversed_micros,
    )


def row(
    seq: int, kind: str, moved: int = 0, other: str = "REVENUE", balance: int = 5_000_000, **fields: Any
) -> Transaction:
    entries = [
        Entry(account=LedgerAccount.LEDGER_ACCOUNT_WALLET, amount_micros=moved),
        Entry(account=LedgerAccount.Value(f"LEDGER_ACCOUNT_{other}"), amount_micros=-moved),
    ]
    return Transaction(
        wallet_seq=seq,
        at=NOON,
        kind=TransactionKind.Value(f"TRANSACTION_KIND_{kind}"),
        entries=entries if moved else [],
        balance_micros=balance,
        **fields,
    )


JOURNAL = [
    row(4, "ADJUSTMENT", -1_000_000, "ADJUSTMENTS", 3_950_000, reason='a "mistake", it was\nmine'),
    row(3, "CAPTURE", -50_000, balance=4_950_000, reservation_id="a1-1", model="fal-ai/flux-2-flex"),
    row(2, "RESERVE", reservation_id="a1-1", model="fal-ai/flux-2-flex"),
    row(1, "SIGN_UP_GRANT", 5_000_000, "PROMOTIONS"),
]


def script(server: ScriptedServer, wallet: Wallet, *lots: Lot, purchases: tuple[Checkout, ...] = ()) -> None:
    server.script(STATEMENT, ListTransactionsResponse(wallet=wallet, lots=lots))
    server.script(PURCHASES, ListPurchasesResponse(purchases=purchases))


def test_the_balance_alone_is_one_line(cli: Cli, scripted: ScriptedServer) -> None:
    script(scripted, wallet())
    assert cli.run("billing") == Ended(0, "Balance    $60.00\n", "")


def test_billing_shows_what_work_holds_what_lapses_and_what_was_bought(
    cli: Cli, scripted: ScriptedServer
) -> None:
    # In draw order: by priority first.
    lots = [
        Lot(lot=1, remaining_micros=3_000_000, expires_at=days_later(40)),
        Lot(lot=2, remaining_micros=1_000_000, expires_at=days_later(7)),
        Lot(lot=3, remaining_micros=250_000, expires_at=days_later(7)),
        Lot(lot=4, remaining_micros=1_000_000, expires_at=days_later(30)),
        Lot(lot=5, remaining_micros=500_000, expires_at=days_later(365)),
        Lot(lot=6, remaining_micros=54_300_000),
    ]
    bought = (purchase(reversed_micros=27_500_000), purchase())
    script(scripted, wallet(60_000_000, held_micros=50_000), *lots, purchases=bought)
    assert cli.run("billing") == Ended(
        0,
        "Balance    $60.05\n"
        "Held       $0.05  by running work: oanim billing holds\n"
        "Available  $60.00\n"
        "Expiring   $1.25  on 2026-11-25 (UTC)\n"
        "Expiring   $1.00  on 2026-12-18 (UTC)\n"
        "Expiring   $3.00  on 2026-12-28 (UTC)\n"
        "           $0.50  later\n"
        "\n"
        "Credited (UTC)        Price  Bonus  Credits  Taken back  Purchase\n"
        "2026-11-18 12:00:00  $50.00  $5.00   $55.00      $27.50  a1-x\n"
        "2026-11-18 12:00:00  $50.00  $5.00   $55.00           -  a1-x\n",
        "",
    )
    assert [request.page_size for request in scripted.requests(PURCHASES)] == [5]
    answer = json.loads(cli.run("billing", "--json").out)
    assert [lot["lot"] for lot in answer["expiring"]] == [2, 3, 4, 1, 5]
    assert [each["reversed_micros"] for each in answer["purchases"]] == [27_500_000, 0]


def test_a_debt_is_explained_and_the_warning_says_what_pays_it(cli: Cli, scripted: ScriptedServer) -> None:
    script(scripted, wallet(-27_500_000, held_micros=50_000, debt_micros=27_500_000))
    assert cli.run("billing") == Ended(
        0,
        "Balance    -$27.45\n"
        "Held       $0.05  by running work: oanim billing holds\n"
        "Available  -$27.50\n"
        "Debt       $27.50  taken back after it was spent: credits that come in\n"
        "           pay it first, and no work starts until it is paid\n",
        "oanim: $27.50 is owed, and no work starts until it is paid. Top up: oanim billing buy --amount 28\n",
    )


def test_little_credit_is_warned_of(cli: Cli, scripted: ScriptedServer) -> None:
    script(scripted, wallet(990_000))
    assert cli.run("billing").err == ("oanim: only $0.99 is left. Top up: oanim billing buy --amount 10\n")


def test_a_key_whose_role_buys_nothing_sees_its_credits(cli: Cli, scripted: ScriptedServer) -> None:
    script(scripted, wallet())
    scripted.script(PURCHASES, Refusal(StatusCode.PERMISSION_DENIED, "WRONG_ROLE", {"role": "service"}))
    assert cli.run("billing") == Ended(0, "Balance    $60.00\n", "")


def test_the_history_lists_purchases_and_what_was_taken_back(cli: Cli, scripted: ScriptedServer) -> None:
    scripted.script(
        PURCHASES, ListPurchasesResponse(purchases=[purchase(reversed_micros=1)], next_page_token="more")
    )
    shown = cli.run("billing", "history", "-l", "1")
    assert shown.out.splitlines() == [
        "Credited (UTC)        Price  Bonus  Credits  Taken back  Purchase",
        "2026-11-18 12:00:00  $50.00  $5.00   $55.00   $0.000001  a1-x",
    ]
    assert (
        json.loads(cli.run("billing", "history", "-l", "1", "--json").out)["purchases"][0]["state"] == "paid"
    )


def test_a_history_of_nothing_says_how_to_begin_one(cli: Cli, scripted: ScriptedServer) -> None:
    scripted.script(PURCHASES, ListPurchasesResponse())
    assert cli.run("billing", "history") == Ended(0, "Nothing was bought yet: oanim billing buy\n", "")


def test_a_receipt_has_the_tax_and_what_came_back(cli: Cli, scripted: ScriptedServer) -> None:
    refund, dispute = ReversalKind.REVERSAL_KIND_REFUND, ReversalKind.REVERSAL_KIND_DISPUTE
    receipt = Receipt(
        purchase=purchase(reversed_micros=27_500_000),
        email="me@example.com",
        paid_micros=54_000_000,
        tax_micros=4_000_000,
        receipt_url="https://pay.example/r/1",
        reversals=[
            Reversal(
                kind=refund, provider_id="re_1", amount_micros=27_000_000, state="succeeded", counts=True
            ),
            Reversal(kind=dispute, provider_id="dp_1", amount_micros=54_000_000, state="won"),
        ],
    )
    scripted.script(RECEIPT, GetReceiptResponse(receipt=receipt))
    assert cli.run("billing", "receipt", "a1-x").out.splitlines() == [
        "Purchase    a1-x",
        "Account     a1 (me@example.com)",
        "Credited    2026-11-18 12:00:00 (UTC)",
        "Credits     $55.00, $5.00 of it a bonus",
        "Price       $50.00",
        "Tax         $4.00",
        "Paid        $54.00",
        "Refunded    $27.00  succeeded  re_1",
        "Disputed    $54.00  won, does not count  dp_1",
        "Taken back  $27.50 of the credits",
        "Receipt     https://pay.example/r/1",
    ]
    answer = json.loads(cli.run("billing", "receipt", "a1-x", "--json").out)
    assert [each["kind"] for each in answer["reversals"]] == ["refund", "dispute"]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (
            "OPEN",
            "it is not paid yet. Until 2026-11-18 12:00:00 (UTC) it is paid here: https://pay.example/c",
        ),
        ("PROCESSING", "it is paid, and the money is on its way: the credits come when it arrives."),
        (
            "EXPIRED",
            "the time to pay ran out, and nothing was paid. Begin anew: oanim billing buy --amount 50.00",
        ),
        (
            "FAILED",
            "the payment failed, and nothing was credited. Begin anew: oanim billing buy --amount 50.00",
        ),
    ],
)
def test_without_a_receipt_it_is_said_how_the_purchase_stands(
    cli: Cli, scripted: ScriptedServer, state: str, said: str
) -> None:
    checkout = Checkout(
        state=CheckoutState.Value(f"CHECKOUT_STATE_{state}"),
        amount_micros=50_000_000,
        url="https://pay.example/c",
        expires_at=NOON,
    )
    scripted.script(RECEIPT, NOT_FOUND)
    scripted.script(CHECKOUT, GetCheckoutResponse(checkout=checkout))
    assert cli.run("billing", "receipt", "a1-x") == Ended(1, "", f"oanim: there is no receipt: {said}\n")


def test_a_purchase_that_nobody_made_is_not_found(cli: Cli, scripted: ScriptedServer) -> None:
    scripted.script(RECEIPT, NOT_FOUND)
    scripted.script(CHECKOUT, NOT_FOUND)
    assert cli.run("billing", "receipt", "a1-y") == Ended(1, "", "oanim: not_found.\n")


def test_a_statement_shows_each_row_with_the_balance_after_it(cli: Cli, scripted: ScriptedServer) -> None:
    scripted.script(STATEMENT, ListTransactionsResponse(transactions=JOURNAL, wallet=wallet(3_950_000)))
    assert cli.run("billing", "statement").out.splitlines() == [
        "Now: balance $3.95, held $0.00.",
        "Row  Time (UTC)           What           Amount  Balance   Held  For",
        '  4  2026-11-18 12:00:00  adjustment     -$1.00    $3.95  $0.00  a "mistake", it was mine',
        "  3  2026-11-18 12:00:00  capture        -$0.05    $4.95  $0.00  a1-1  fal-ai/flux-2-flex",
        "  2  2026-11-18 12:00:00  reserve             -    $5.00  $0.00  a1-1  fal-ai/flux-2-flex",
        "  1  2026-11-18 12:00:00  sign up grant  +$5.00    $5.00  $0.00",
    ]


def test_a_statement_of_some_rows_says_how_many_are_left_out(cli: Cli, scripted: ScriptedServer) -> None:
    answer = ListTransactionsResponse(transactions=JOURNAL[:1], wallet=wallet(), next_page_token="more")
    scripted.script(STATEMENT, answer)
    shown = cli.run("billing", "statement", "-l", "1")
    assert shown.out.splitlines()[-1] == "3 older: oanim billing statement -l 4, or --csv for all"
    assert scripted.requests(STATEMENT)[0].page_size == 1


@pytest.mark.parametrize(
    ("text", "as_of", "said"),
    [
        ("2026-11-18T11:59", Timestamp(seconds=NOON.seconds - 60), "2026-11-18 11:59:00"),
        ("2026-11-18T14:00:00+02:00", NOON, "2026-11-18 12:00:00"),
        (
            "2026-11-18",
            Timestamp(seconds=NOON.seconds + DAY_S // 2 - 1, nanos=999_999_000),
            "2026-11-18 23:59:59",
        ),
    ],
)
def test_a_statement_is_of_the_time_that_was_asked_for(
    cli: Cli, scripted: ScriptedServer, text: str, as_of: Timestamp, said: str
) -> None:
    scripted.script(STATEMENT, ListTransactionsResponse(wallet=wallet()))
    assert cli.run("billing", "statement", "--as-of", text).out == (
        f"As of {said} (UTC): balance $60.00, held $0.00.\nNothing had happened yet.\n"
    )
    (request,) = scripted.requests(STATEMENT)
    assert request.as_of == as_of


def test_a_statement_as_json_has_the_lots_too(cli: Cli, scripted: ScriptedServer) -> None:
    answer = ListTransactionsResponse(transactions=JOURNAL, wallet=wallet(), lots=[Lot(lot=1)])
    scripted.script(STATEMENT, answer)
    shown = json.loads(cli.run("billing", "statement", "--as-of", "2026-11-18T12:00", "--json").out)
    assert (shown["as_of"], shown["lots"][0]["lot"]) == ("2026-11-18T12:00:00Z", 1)
    assert [each["kind"] for each in shown["transactions"]] == [
        "adjustment",
        "capture",
        "reserve",
        "sign_up_grant",
    ]


def test_a_spreadsheet_has_all_rows_of_all_pages_as_rfc_4180_has_it(
    cli: Cli, scripted: ScriptedServer
) -> None:
    scripted.script(
        STATEMENT,
        ListTransactionsResponse(transactions=JOURNAL[:2], wallet=wallet(), next_page_token="t"),
        ListTransactionsResponse(transactions=JOURNAL[2:], wallet=wallet()),
    )
    ended = cli.run_raw("billing", "statement", "--csv")
    assert ended.startswith(
        b"row,time_utc,kind,amount_usd,balance_usd,held_usd,reservation_id,model,reason\r\n"
        b'4,2026-11-18T12:00:00Z,adjustment,-1.00,3.95,0.00,,,"a ""mistake"", it was\nmine"\r\n'
        b"3,2026-11-18T12:00:00Z,capture,-0.05,4.95,0.00,a1-1,fal-ai/flux-2-flex,\r\n"
    )
    assert [each["row"] for each in csv.DictReader(io.StringIO(ended.decode(), newline=""))] == [
        "4",
        "3",
        "2",
        "1",
    ]
    assert [request.page_token for request in scripted.requests(STATEMENT)] == ["", "t"]


def test_a_spreadsheet_that_breaks_off_is_none(cli: Cli, scripted: ScriptedServer) -> None:
    scripted.script(
        STATEMENT,
        ListTransactionsResponse(transactions=JOURNAL[:2], wallet=wallet(), next_page_token="t"),
        Refusal(StatusCode.INTERNAL, "INTERNAL", {"error_id": "e1"}),
    )
    ended = cli.run("billing", "statement", "--csv")
    assert (ended.exit_code, ended.out) == (1, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--csv", "--json"), "give one of --csv and --json."),
        (
            ("--as-of", "yesterday"),
            (
                "Invalid value for '--as-of': it must be a day such as 2026-11-23 or a time such as "
                "2026-11-23T11:59:00, not 'yesterday'. See: oanim billing statement --help"
            ),
        ),
    ],
)
def test_a_statement_that_cannot_be_is_a_mistake_in_usage(
    cli: Cli, scripted: ScriptedServer, words: tuple[str, ...], said: str
) -> None:
    assert cli.run("billing", "statement", *words) == Ended(2, "", f"oanim: {said}\n")
