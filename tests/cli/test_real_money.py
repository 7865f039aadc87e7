"""Credits that are bought, limited and accounted for, with the CLI, the server and its sandbox together."""

from __future__ import annotations

import csv
import io
import json
import signal
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from oanim.client import Client
from oanim.keys import new_key
from tests import loopback
from tests.cli.running import line_of
from tests.sdk.serving import RealServer

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.cli.running import Cli, Ended


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A server that no test harms."""
    with RealServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def user(cli: Cli, real: RealServer) -> Cli:
    """A user with an account and $5.00 of free credits."""
    with Client("", url=real.url) as client:
        key = client.sign_up(email=f"{new_key()}@example.com").secret
    cli.variables |= {"ANIMATE_API_KEY": key, "ANIMATE_API_URL": real.url}
    return cli


def url_of(process: subprocess.Popen[str]) -> str:
    return line_of(process, "here: http").rpartition(" ")[2].strip()


def pay(url: str, how: str = "pay") -> None:
    """Press a button of the sandbox's page."""
    response = loopback.post(url, data={"action": how, "email": "me@example.com"})
    assert response.status_code == httpx.codes.SEE_OTHER, response.text


def buy(user: Cli, *words: str, how: str = "pay") -> tuple[int, str]:
    """Buy for $50, and pay; answers the exit code and the answer."""
    with user.start("billing", "buy", "--amount", "50", *words) as process:
        pay(url_of(process), how)
        out, _ = process.communicate(timeout=60)
    return process.returncode, out


def tell(url: str, what: str, **how: object) -> None:
    """Tell the sandbox what becomes of the session that is paid at an address."""
    sandbox, _, session = url.partition("/pay/")
    told = loopback.post(f"{sandbox}/sandbox/{what.format(session)}", json=how)
    told.raise_for_status()


def answer(ended: Ended) -> Any:
    assert ended.exit_code == 0, ended.err
    return json.loads(ended.out)


def test_fifty_dollars_buy_fifty_five(user: Cli) -> None:
    code, out = buy(user)
    assert (code, out.splitlines()[0]) == (0, "Credited $55.00, $5.00 of it a bonus. The balance is $60.00.")
    shown = user.run("billing")
    assert (shown.exit_code, shown.err) == (0, "")
    assert shown.out.startswith("Balance    $60.00\n")
    assert "$50.00  $5.00   $55.00           -" in shown.out
    (purchase,) = answer(user.run("billing", "history", "--json"))["purchases"]
    receipt = user.run("billing", "receipt", purchase["checkout_id"])
    assert receipt.exit_code == 0
    assert "Paid        $50.00\n" in receipt.out


def test_a_program_buys_and_reads_the_answer(user: Cli) -> None:
    code, out = buy(user, "--json")
    bought = json.loads(out)
    assert (code, bought["checkout"]["state"], bought["checkout"]["credits_micros"]) == (
        0,
        "paid",
        55_000_000,
    )
    assert bought["wallet"]["balance_micros"] == 60_000_000


def test_who_leaves_looks_again_and_is_credited_all_the_same(user: Cli) -> None:
    with user.start("billing", "buy", "--amount", "50", "--key", "once") as process:
        url = url_of(process)
        line_of(process, "waiting for the payment")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    checkout_id = err.partition("oanim billing receipt ")[2].split(".")[0]
    waiting = user.run("billing", "receipt", checkout_id)
    assert (waiting.exit_code, waiting.out) == (1, "")
    assert url in waiting.err
    pay(url)
    # The same words take the same purchase up again.
    again = user.run("billing", "buy", "--amount", "50", "--key", "once", "--json")
    assert answer(again)["checkout"]["checkout_id"] == checkout_id
    assert answer(again)["replayed"]
    assert user.run("billing", "receipt", checkout_id).exit_code == 0
    assert answer(user.run("billing", "--json"))["wallet"]["balance_micros"] == 60_000_000


@pytest.mark.parametrize(
    ("paid", "code", "said"),
    [
        (True, 0, "Credited $55.00, $5.00 of it a bonus. The balance is $60.00.\n"),
        (False, 1, "oanim: the payment failed, and nothing was credited. "),
    ],
)
def test_a_slow_payment_is_waited_for_and_credited_if_it_comes(
    user: Cli,
    paid: bool,  # noqa: FBT001
    code: int,
    said: str,
) -> None:
    with user.start("billing", "buy", "--amount", "50") as process:
        url = url_of(process)
        pay(url, "later")
        line_of(process, "paid by a way that takes hours or days")
        tell(url, "payments/{}/settle", paid=paid)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert said in out + err
    balance = answer(user.run("billing", "--json"))["wallet"]["balance_micros"]
    assert balance == (60_000_000 if paid else 5_000_000)


def test_a_page_that_has_closed_ends_the_wait(user: Cli) -> None:
    with user.start("billing", "buy", "--amount", "50") as process:
        tell(url_of(process), "sessions/{}/expire-in", seconds=0.0)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err.endswith(
        "oanim: the time to pay ran out, and nothing was paid. Try again: oanim billing buy --amount 50.00\n"
    )


def test_what_can_be_bought_is_explained_and_quoted_for_nothing(user: Cli) -> None:
    assert user.run("billing", "buy").out.splitlines() == [
        "$1 buys $1 of credits.",
        "Minimum  $5.00",
        "Maximum  $10000.00 at once",
        "Bonus    10% of the whole amount, from $50.00 on: $50.00 buys $55.00",
        "Buy: oanim billing buy --amount 25",
    ]
    assert (
        user.run("billing", "buy", "--amount", "49.99", "--quote").out == "$49.99 buys $49.99 of credits.\n"
    )
    too_little = user.run("billing", "buy", "--amount", "4.99")
    assert (too_little.exit_code, too_little.err) == (
        2,
        "oanim: --amount: a purchase is whole cents, from $5.00 to $10000.00.\n",
    )


def test_the_statement_is_the_journal_and_never_changes(user: Cli) -> None:
    assert buy(user)[0] == 0
    made = user.run("assets", "gen-image", "--prompt", "x", "--out", "x.png")
    assert made.exit_code == 0, made.err
    rows = answer(user.run("billing", "statement", "--json"))["transactions"]
    assert [row["kind"] for row in rows] == ["capture", "reserve", "purchase", "sign_up_grant"]
    assert [row["balance_micros"] for row in rows] == [59_950_000, 60_000_000, 60_000_000, 5_000_000]
    sheet = list(
        csv.DictReader(io.StringIO(user.run_raw("billing", "statement", "--csv").decode(), newline=""))
    )
    assert [(row["kind"], row["amount_usd"], row["balance_usd"]) for row in sheet] == [
        ("capture", "-0.05", "59.95"),
        ("reserve", "0.00", "60.00"),
        ("purchase", "55.00", "60.00"),
        ("sign_up_grant", "5.00", "5.00"),
    ]
    then = rows[2]["at"]
    before = answer(user.run("billing", "statement", "--as-of", then, "--json"))
    assert (before["wallet"]["balance_micros"], len(before["transactions"])) == (60_000_000, 2)
    time.sleep(0.01)
    assert answer(user.run("billing", "statement", "--as-of", then, "--json")) == before


def test_a_limit_stops_work_and_says_what_to_do(user: Cli) -> None:
    assert user.run("limits", "set", "--day", "0.08").out.splitlines()[0] == (
        "The account may spend $0.08 per day."
    )
    words = ("assets", "gen-image", "--prompt", "x", "--out", "x.png")
    assert user.run(*words).exit_code == 0
    refused = user.run(*words)
    (limit,) = answer(user.run("limits", "list", "--json"))["limits"]
    resets = limit["resets_at"].replace("T", " ").removesuffix("Z")
    assert (refused.exit_code, refused.out) == (3, "")
    assert refused.err.splitlines()[-1] == (
        f"oanim: this needs $0.05, and the account has used $0.05 of its $0.08 per day until {resets} (UTC). "
        "$0.03 is still affordable. Raise the limit: oanim limits set --day 0.10"
    )
    assert (limit["charged_micros"], limit["held_micros"], limit["left_micros"]) == (50_000, 0, 30_000)
    assert user.run("limits", "set", "--day", "0.10").exit_code == 0
    assert user.run(*words).exit_code == 0
    assert user.run("limits", "delete", "--day").out == "The account has no limit per day now.\n"
    assert answer(user.run("limits", "list", "--json")) == {"limits": []}


def test_whoami_says_what_the_service_allows(user: Cli) -> None:
    shown = user.run("whoami").out.splitlines()
    allowed = answer(user.run("whoami", "--json"))["rate_limits"]
    assert [line.split(None, 1)[1] if line[0] != " " else line.strip() for line in shown[3:6]] == [
        f"{allowed['calls_per_second']} calls/s, {allowed['burst']} at once",
        f"{allowed['open_streams']} open streams, {allowed['running_generations']} running generations",
        f"{allowed['leased_renders']} renders at work, the others wait",
    ]


def test_every_limit_in_the_way_has_a_sentence(user: Cli) -> None:
    key_id = answer(user.run("whoami", "--json"))["api_key"]["key_id"]
    assert user.run("limits", "set", "--week", "0.02").exit_code == 0
    assert user.run("limits", "set", "--day", "0.01", "--api-key", key_id).exit_code == 0
    refused = user.run("assets", "gen-image", "--prompt", "x", "--out", "x.png")
    sentences = [line for line in refused.err.splitlines() if "$0.01" in line or "$0.02" in line]
    assert (refused.exit_code, len(sentences)) == (3, 2)
    lifted = user.run("limits", "delete", "--week")
    assert (lifted.exit_code, lifted.out) == (1, "")
