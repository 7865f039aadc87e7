"""`oanim-server admin ...` and `keys create`, through a running server and without one.

Most are run in this process, on real arguments and a real environment: starting Python is most of what a
command takes.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from click.testing import CliRunner

from oanim_server.__main__ import main
from oanim_server.logs import NOISY
from openanimate.metering.v1 import wallet_service_pb2 as wallet
from openanimate.metering.v1.account_service_pb2 import WhoAmIRequest
from openanimate.metering.v1.role_pb2 import ROLE_SERVICE
from openanimate.metering.v1.wallet_service_pb2 import (
    EventUsage,
    PricedLine,
    StreamUsageRequest,
    UsageItem,
)
from tests import loopback
from tests.commands.test_commands import command, said
from tests.selling import (
    FREE,
    Shop,
    Stripe,
    environment_of,
    now,
    session_of,
    stripe_of_its_own,
    wallet_of,
)
from tests.server import SECONDS, Calls, User, new_key, running, spawned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openanimate.metering.v1.checkout_service_pb2 import Checkout

COMPLETED = "checkout.session.completed"
WHY = ("--reason", "a test of ours")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command here, which takes the logs to itself for as long as it runs."""
    others = {name: None for name in os.environ if name.startswith("OANIM_")}
    root = logging.getLogger()
    handlers = root.handlers[:]
    levels = {name: logging.getLogger(name).level for name in (None, *NOISY)}
    try:
        done = CliRunner().invoke(main, arguments, env={**others, **environment}, catch_exceptions=False)
    finally:
        root.handlers[:] = handlers
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


class Desk(NamedTuple):
    """Where the operator sits: a shop with a customer, a purchase and an event that does not match."""

    environment: dict[str, str]
    email: str
    account_id: str
    purchase: Checkout
    event_id: str

    def admin(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run("admin", *arguments, **self.environment)

    def answer(self, *arguments: str) -> Any:
        """What a command answers with --json, and nothing besides."""
        done = self.admin(*arguments, "--json")
        assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1), done.stderr
        return json.loads(done.stdout)

    def tells(self, *arguments: str) -> str:
        """What a command tells people."""
        done = self.admin(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    def refuses(self, *arguments: str, code: int = 1) -> str:
        """The one sentence that a command is refused with."""
        done = self.admin(*arguments)
        assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (code, "", False), done.stderr
        if code == 1:
            assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr.splitlines()[-1]


def event_that_does_not_match(shop: Shop, calls: Calls) -> str:
    begun = shop.begin(calls)
    shop.stripe.tell("delivering", paused=True)
    shop.stripe.tell(f"sessions/{session_of(begun)}/pay")
    event = json.loads(shop.stripe.event(COMPLETED, begun.checkout_id))
    shop.stripe.tell("queue", do="drop")
    shop.stripe.tell("delivering")
    event["id"], event["data"]["object"]["currency"] = f"evt_{new_key()}", "eur"
    assert shop.deliver(json.dumps(event).encode()).json() == {"standing": "quarantined"}
    return str(event["id"])


@pytest.fixture(scope="module", params=["through a server", "without one"])
def desk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    with ExitStack() as stack:
        stripe = stack.enter_context(stripe_of_its_own())
        environment = {**environment_of(stripe.sandbox), "OANIM_DATA": str(folder / "data")}
        if request.param == "without one":
            # A setting that only a server cares for: a command does not speak of it.
            environment["OANIM_STRIPE_WEBHOOK_SECRETS"] = ""
        serving = {**environment, **environment_of(stripe.sandbox)}
        server = stack.enter_context(spawned(serving, folder / "log"))
        shop, email = Shop(server, stripe), f"{new_key()}@example.com"
        shop.listen()
        calls = Calls(server.channel, server.sign_up(email))
        bought = shop.buy(calls)
        event_id = event_that_does_not_match(shop, calls)
        if request.param == "without one":
            # Nor does the sandbox, in this process, log that nobody listens.
            stripe.tell("webhooks", endpoints=[])
            assert server.terminate() == 0
        yield Desk(environment, email, calls.user.account_id, bought, event_id)


# Keys ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "n" * 65, "é" * 33])
def test_a_bad_name_of_a_key_is_refused_in_one_sentence(desk: Desk, name: str) -> None:
    made = run("keys", "create", "--role", "service", "--name", name, **desk.environment)
    sentence = "oanim-server: name: it must have 1 to 64 bytes and no NUL.\n"
    assert said(made) == (1, "", sentence)


@pytest.mark.parametrize(
    "arguments", [("--role", "king", "--name", "x"), ("--role", "user"), ("--name", "x")]
)
def test_a_role_that_is_none_and_what_is_missing_are_exit_2(desk: Desk, arguments: tuple[str, ...]) -> None:
    made = run("keys", "create", *arguments, **desk.environment)
    assert (made.returncode, made.stdout) == (2, "")


@pytest.mark.parametrize("role", ["user", "worker", "service", "admin"])
def test_a_key_of_every_role_is_made(desk: Desk, role: str) -> None:
    made = run("keys", "create", "--role", role, "--name", role, "--json", **desk.environment)
    assert (made.returncode, made.stderr) == (0, "")
    answer = json.loads(made.stdout)
    assert answer["secret"].startswith(f"anim_{answer['key_id']}_")
    [newest] = desk.answer("accounts", "-l", "1")["accounts"]
    assert (newest["account_id"], newest["name"], newest["role"]) == (
        answer["account_id"],
        role,
        f"ROLE_{role.upper()}",
    )


def test_a_key_is_made_once_for_a_key_and_shown_until_it_is_used(tmp_path: Path) -> None:
    environment = {"OANIM_DATA": str(tmp_path)}
    words = ("keys", "create", "--role", "service", "--name", "farm", "--key", new_key())
    with running(environment) as server:
        first, again = (answered(*words, "--json", **environment) for _ in range(2))
        assert {**again, "secret": ""} == {**first, "secret": ""}
        user = User(again["account_id"], again["key_id"], again["secret"])
        Calls(server.channel, user).account.WhoAmI(WhoAmIRequest(), metadata=user.metadata)
        for more in ((), ("--json",)):
            sentence = f"the key {user.key_id} was made before, and its secret is shown once."
            assert said(run(*words, *more, **environment)) == (1, "", f"oanim-server: {sentence}\n")


# Accounts --------------------------------------------------------------------------------------------


def test_accounts_are_listed_with_what_they_have(desk: Desk) -> None:
    listed = desk.tells("accounts", "--email", desk.email.upper())
    assert re.fullmatch(rf"{desk.account_id}  {desk.email} +\$[0-9.]+\n", listed)
    [found] = desk.answer("accounts", "--email", desk.email)["accounts"]
    assert (found["account_id"], found["email"], found["wallet"]["frozen"]) == (
        desk.account_id,
        desk.email,
        False,
    )
    # A number is a number.
    assert isinstance(found["wallet"]["balance_micros"], int)
    assert desk.tells("accounts", "--email", "nobody@example.com") == "No accounts.\n"
    empty = {"accounts": [], "next_page_token": ""}
    assert desk.answer("accounts", "--email", "nobody@example.com") == empty
    assert "email" in desk.refuses("accounts", "--email", "nonsense")
    desk.refuses("accounts", "-l", "0", code=2)


def test_credits_are_granted_and_corrected_by_address_or_id_and_once_for_a_key(desk: Desk) -> None:
    def balance() -> int:
        [found] = desk.answer("accounts", "--email", desk.email)["accounts"]
        return int(found["wallet"]["balance_micros"])

    before = balance()
    words = ("grant", desk.email, "--amount", "1.50", *WHY, "--expires-days", "30", "--key", new_key())
    first = desk.answer(*words)
    assert (first["wallet"]["balance_micros"], first["replayed"]) == (before + 1_500_000, False)
    again = desk.answer(*words)
    assert again == {**first, "replayed": True}
    told = desk.tells("adjust", desk.account_id, "--amount", "-1.000001", *WHY)
    after = before + 499_999
    assert told == f"{desk.account_id}: balance {_dollars(after)}, held $0.00\n"
    assert balance() == after
    desk.tells("adjust", desk.account_id, "--amount", "0.500001", *WHY)
    assert balance() == before + 1_000_000


def test_an_account_is_frozen_and_thawed(desk: Desk) -> None:
    assert desk.tells("freeze", desk.email, *WHY).endswith(", frozen\n")
    assert desk.tells("accounts", "--email", desk.email).endswith("  frozen\n")
    assert desk.answer("freeze", desk.account_id, *WHY)["wallet"]["frozen"] is True
    assert "frozen" not in desk.tells("thaw", desk.account_id, *WHY)
    assert desk.answer("thaw", desk.email, *WHY)["wallet"]["frozen"] is False


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("grant", "nobody@example.com", "--amount", "1"), "no account has the e-mail address"),
        (("grant", "000000000000", "--amount", "1"), "There is no such account, or it is not yours"),
        (("adjust", "nonsense", "--amount", "1"), "There is no such account, or it is not yours"),
        (("freeze", ""), "There is no such account, or it is not yours"),
        (("thaw", "000000000000"), "There is no such account, or it is not yours"),
        (("refund", "nonsense"), "There is no such checkout, or it is not yours"),
        (("refund", "000000000000-abcdefghijklmnopqrstuvwx"), "There is no such purchase"),
        (("resolve", "evt_nobody"), "There is no such event in quarantine"),
        (("resolve", "evt_nobody", "--look-again"), "There is no such event in quarantine"),
    ],
)
def test_a_refusal_is_one_sentence_and_exit_1(desk: Desk, arguments: tuple[str, ...], sentence: str) -> None:
    assert sentence in desk.refuses(*arguments, *WHY)


def test_a_reason_is_asked_for_and_an_empty_one_is_none(desk: Desk) -> None:
    for words in (
        ("grant", desk.account_id, "--amount", "1"),
        ("adjust", desk.account_id, "--amount", "1"),
        ("freeze", desk.account_id),
        ("thaw", desk.account_id),
        ("refund", desk.purchase.checkout_id),
        ("resolve", desk.event_id),
    ):
        assert "--reason" in desk.refuses(*words, code=2)
    for reason in ("", "r" * 501):
        refused = desk.refuses("grant", desk.account_id, "--amount", "1", "--reason", reason)
        assert refused == "oanim-server: reason: it must have 1 to 500 bytes and no NUL."


BAD = ["", "five", "0", "0.0", "nan", "inf", "1.0000001", "1000000.000001", "1e999999", "1e-999999", "$5"]
# More digits than decimals are usually kept with: it is no dollar.
BAD.append("1.0000000000000000000000000000000000001")


def test_an_amount_that_is_none_is_exit_2_and_moves_nothing(desk: Desk) -> None:
    before = desk.answer("accounts", "--email", desk.email)
    for amount in (*BAD, "-1"):
        assert "--amount" in desk.refuses("grant", desk.account_id, f"--amount={amount}", *WHY, code=2)
    for amount in BAD[2:4]:
        assert "--amount" in desk.refuses("adjust", desk.account_id, "--amount", amount, *WHY, code=2)
        # 0 is not all of it.
        assert "--amount" in desk.refuses(
            "refund", desk.purchase.checkout_id, "--amount", amount, *WHY, code=2
        )
    assert desk.answer("accounts", "--email", desk.email) == before


# Purchases -------------------------------------------------------------------------------------------


def test_a_purchase_is_given_back_in_parts(desk: Desk) -> None:
    words = ("refund", desk.purchase.checkout_id, *WHY)
    key = new_key()
    told = desk.tells(*words, "--amount", "20", "--key", key)
    assert re.fullmatch(r"\$20\.00 goes back: re_\w+ \(succeeded\)\.\n", told)
    again = desk.answer(*words, "--amount", "20", "--key", key)
    assert (again["amount_micros"], again["provider_id"] in told, again["replayed"]) == (
        20_000_000,
        True,
        True,
    )
    assert "amount_micros" in desk.refuses(*words, "--amount", "30.01")
    assert "idempotency key" in desk.refuses(*words, "--amount", "5", "--key", key)
    assert desk.answer(*words)["amount_micros"] == 30_000_000
    assert "amount_micros" in desk.refuses(*words)


def test_an_event_that_does_not_match_is_listed_looked_at_and_closed(desk: Desk) -> None:
    problem = "currency is eur and must be usd"
    listed = desk.tells("quarantined")
    assert re.fullmatch(rf"{desk.event_id}  {COMPLETED}  {desk.account_id}-\w+  {problem}\n", listed)
    again = desk.admin("resolve", desk.event_id, "--look-again", *WHY)
    assert (again.returncode, again.stdout) == (0, f"{desk.event_id} was looked at again: {problem}.\n")
    [event] = desk.answer("quarantined")["events"]
    assert (event["event_id"], event["resolved_by"], event["resolution"]) == (desk.event_id, "local", WHY[1])
    assert desk.tells("resolve", desk.event_id, *WHY) == f"{desk.event_id} was closed.\n"
    assert desk.tells("quarantined") == "Nothing is in quarantine.\n"
    assert f"[local: {WHY[1]}]" in desk.tells("quarantined", "--all")


def test_where_nothing_is_owed_that_is_said(desk: Desk) -> None:
    assert desk.tells("uncollected") == "Everything was paid for.\n"
    assert desk.tells("uncollected", "--account", desk.email) == "Everything was paid for.\n"
    assert desk.answer("uncollected") == {"work": [], "next_page_token": ""}
    assert "no account has" in desk.refuses("uncollected", "--account", "nobody@example.com")


def test_work_that_a_service_did_without_a_hold_is_listed_by_its_event(tmp_path: Path) -> None:
    environment = {"OANIM_DATA": str(tmp_path)}
    with running(environment) as server:
        customer = server.sign_up()
        service = Calls(server.channel, server.create_key(ROLE_SERVICE))
        # Two thousand images at $0.003, and $5.00 there.
        used = EventUsage(
            account_id=customer.account_id,
            event_id="batch-7",
            line=PricedLine(model="fal-ai/flux/schnell", quantity=2_000),
        )
        request = StreamUsageRequest(items=[UsageItem(event=used)])
        (answer,) = service.wallet.StreamUsage(iter([request]), metadata=service.user.metadata, timeout=30)
        assert answer.outcomes[0].accepted.charged_micros == 5_000_000
        told = run("admin", "uncollected", **environment).stdout
    assert told.split()[2:] == [customer.account_id, "batch-7", "fal-ai/flux/schnell", "$1.00"]


def _dollars(micros: int) -> str:
    whole, rest = divmod(micros, 1_000_000)
    return f"${whole:,}.{f'{rest:06}'.rstrip('0').ljust(2, '0')}"


# What a server makes of it ---------------------------------------------------------------------------


def test_what_was_done_without_a_server_is_there_when_it_starts(tmp_path: Path) -> None:
    with stripe_of_its_own() as stripe:
        environment = {**environment_of(stripe.sandbox), "OANIM_DATA": str(tmp_path / "data")}
        with spawned(environment, tmp_path / "log") as server:
            shop = Shop(server, stripe)
            shop.listen()
            calls = Calls(server.channel, server.sign_up())
            bought = shop.buy(calls)
            server.kill()
        # The socket that the kill left behind is nobody's.
        assert (tmp_path / "data" / "oanim.sock").exists()
        for words in (
            ("grant", calls.user.account_id, "--amount", "2", "--reason", "sorry"),
            ("refund", bought.checkout_id, "--reason", "asked for"),
            ("freeze", calls.user.account_id, "--reason", "a look"),
        ):
            done = command("admin", *words, **environment)
            assert (done.returncode, done.stderr) == (0, "")
        with spawned(environment, tmp_path / "log2") as server:
            calls = Calls(server.channel, calls.user)
            # No webhook told it: the events are listed at the start.
            while not now(calls, bought).reversed_micros:
                time.sleep(0.05)
            found = wallet_of(calls)
            assert (found.balance_micros, found.frozen) == (FREE + 2_000_000, True)
            statement = calls(calls.wallet.ListTransactions, wallet.ListTransactionsRequest())
            assert [row.reason for row in statement.transactions if row.reason] == ["a look", "sorry"]
            assert command("audit", **environment).returncode == 0


def test_what_stripe_does_not_answer_names_the_key_to_repeat_it_with(tmp_path: Path) -> None:
    with stripe_of_its_own() as stripe:
        environment = {**environment_of(stripe.sandbox), "OANIM_DATA": str(tmp_path / "data")}
        with spawned(environment, tmp_path / "log") as server:
            shop = Shop(server, stripe)
            shop.listen()
            calls = Calls(server.channel, server.sign_up())
            desk = Desk(environment, "", calls.user.account_id, shop.buy(calls), "")
            # It makes the refund, and the answer is lost.
            stripe.tell("faults", at="api", do="drop_after", times=None, match="POST /v1/refunds")
            words = ("refund", desk.purchase.checkout_id, "--amount", "10", "--reason", "asked for")
            sentence = desk.refuses(*words)
            stripe.forget_faults()
            assert sentence.startswith("oanim-server: The payment provider does not answer: ")
            key = sentence.rpartition("--key ")[2]
            assert desk.answer(*words, "--key", key)["replayed"] is True
            stripe.told("delivering")
            assert now(calls, desk.purchase).reversed_micros == 11_000_000


def key_named_by(process: subprocess.Popen[str]) -> str:
    """Interrupt a command, and answer the key that it names."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (130, "")
    sentence, _, key = err.removesuffix("\n").rpartition(" --key ")
    assert sentence == (
        "oanim-server: interrupted. Whether it was done is not known; "
        "the same key repeats it without doing it twice: add"
    )
    return key


def test_what_is_interrupted_while_it_waits_names_the_key_to_repeat_it_with(tmp_path: Path) -> None:
    environment = {"OANIM_DATA": str(tmp_path)}
    with spawned(environment, tmp_path / "log") as server:
        customer = server.sign_up()
        for words, balance_micros, frozen in (
            (("grant", customer.account_id, "--amount", "10", *WHY), FREE + 10_000_000, False),
            (("adjust", customer.account_id, "--amount", "-1", *WHY), FREE + 9_000_000, False),
            (("freeze", customer.account_id, *WHY), FREE + 9_000_000, True),
            (("thaw", customer.account_id, *WHY), FREE + 9_000_000, False),
        ):
            key = interrupted_for_want_of_the_database(tmp_path, "admin", *words)
            again = [answered("admin", *words, "--key", key, "--json", **environment) for _ in range(2)]
            assert again[1] == {**again[0], "replayed": True}
            found = again[0]["wallet"]
            assert (found["balance_micros"], found["frozen"]) == (balance_micros, frozen)
        words = ("keys", "create", "--role", "worker", "--name", "farm")
        key = interrupted_for_want_of_the_database(tmp_path, *words)
        made = [answered(*words, "--key", key, "--json", **environment)["key_id"] for _ in range(2)]
        assert made[0] == made[1]


def answered(*arguments: str, **environment: str) -> Any:
    done = run(*arguments, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def interrupted_for_want_of_the_database(data: Path, *words: str) -> str:
    """Interrupt a command that waits for others to have written, and answer the key that it names."""

    def connected() -> bool:
        # One end listens, and another is there while a command calls.
        return Path("/proc/net/unix").read_text().count(str(data / "oanim.sock")) > 1

    while connected():  # the command before it, whose end the server has not seen yet
        time.sleep(0.01)
    with closing(sqlite3.connect(data / "oanim.db", isolation_level=None)) as lock:
        lock.execute("BEGIN IMMEDIATE")
        with started(*words, OANIM_DATA=str(data)) as process:
            while not connected():
                assert process.poll() is None
                time.sleep(0.01)
            time.sleep(0.2)  # until the call waits; it says nothing about itself
            key = key_named_by(process)
        lock.execute("ROLLBACK")
    return key


@pytest.mark.parametrize("served", [True, False])
def test_a_refund_that_is_interrupted_names_the_key_to_repeat_it_with(
    tmp_path: Path, *, served: bool
) -> None:
    with stripe_of_its_own() as stripe:
        environment = {**environment_of(stripe.sandbox), "OANIM_DATA": str(tmp_path / "data")}
        with spawned(environment, tmp_path / "log") as server:
            shop = Shop(server, stripe)
            shop.listen()
            calls = Calls(server.channel, server.sign_up())
            desk = Desk(environment, "", calls.user.account_id, shop.buy(calls), "")
            if not served:
                stripe.tell("webhooks", endpoints=[])
                assert server.terminate() == 0
            # It makes the refund, and does not answer.
            stripe.tell("faults", at="api", do="hang", match="POST /v1/refunds")
            words = ("refund", desk.purchase.checkout_id, "--amount", "10", *WHY)
            with started("admin", *words, **environment) as process:
                while not refunds_at(stripe):
                    assert process.poll() is None
                    time.sleep(0.01)
                key = key_named_by(process)
            first, again = (desk.answer(*words, "--key", key) for _ in range(2))
            assert (first["amount_micros"], again) == (10_000_000, {**first, "replayed": True})
            assert len(refunds_at(stripe)) == 1


def refunds_at(stripe: Stripe) -> list[Any]:
    """What Stripe gave back so far."""
    refunds: list[Any] = loopback.get(f"{stripe.sandbox.url}/sandbox/state").json()["refunds"]
    return refunds


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command that can be interrupted."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OANIM_")}
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "oanim_server", *arguments],
            env={**inherited, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, former)
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def test_commands_that_need_stripe_say_so_where_nothing_is_sold(tmp_path: Path) -> None:
    environment = {"OANIM_DATA": str(tmp_path)}
    named = "000000000000-abcdefghijklmnopqrstuvwx"
    refused = run("admin", "refund", named, "--reason", "r", **environment)
    assert said(refused) == (
        1,
        "",
        "oanim-server: This server sells no credits: ask whoever runs it.\n",
    )
    assert said(run("admin", "quarantined", **environment)) == (0, "Nothing is in quarantine.\n", "")


def test_a_bad_setting_is_one_sentence_and_exit_2_here_too(tmp_path: Path) -> None:
    refused = run("admin", "accounts", OANIM_DATA=str(tmp_path), OANIM_PORT="many")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
