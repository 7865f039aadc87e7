"""The operator's commands, as processes: what they say, and with which exit code."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import grpc
import pytest

from openanimate.metering.v1 import account_service_pb2 as account
from openanimate.metering.v1 import generate_service_pb2 as generate
from openanimate.metering.v1 import wallet_service_pb2 as wallet
from openanimate.metering.v1.role_pb2 import ROLE_SERVICE
from tests.server import SECONDS, Calls, User, new_key, spawned

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgresql import Cluster


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "oanim_server", *arguments, **environment)


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OANIM_")}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def said(finished: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return finished.returncode, finished.stdout, finished.stderr


def test_a_bad_setting_is_one_sentence_and_exit_2(tmp_path: Path) -> None:
    finished = command("serve", OANIM_DATA=str(tmp_path), OANIM_PORT="many")
    assert said(finished) == (
        2,
        "",
        "oanim-server: OANIM_PORT is 'many', and must be a whole number from 0 to 65,535.\n",
    )


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hunter2@pw@127.0.0.1:1/db",
        "postgresql://user:p@ss:hunter2@127.0.0.1/db",
        "postgresql://us/er:hunter2@127.0.0.1:1/db",
        "postgresql://user:hunter2@[::1",
    ],
)
def test_a_password_in_a_broken_url_is_not_shown(tmp_path: Path, url: str) -> None:
    finished = command("migrate", OANIM_DATA=str(tmp_path), OANIM_DATABASE_URL=url)
    assert (finished.returncode in (1, 2), finished.stdout, finished.stderr.count("\n")) == (True, "", 1)
    assert finished.stderr.startswith("oanim-server: OANIM_DATABASE_URL ")
    assert not any(part in finished.stderr for part in ("hunter2", "pw", "p@ss", "127.0.0.1"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve",),
        ("migrate",),
        ("audit",),
        ("keys", "create", "--role", "admin", "--name", "ada"),
        ("backup", "b"),
    ],
)
def test_a_database_that_is_none_is_one_sentence_and_exit_1(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "oanim.db").write_bytes(b"this is no database" * 1_000)
    if arguments[0] == "backup":
        arguments = ("backup", str(tmp_path / "b"))
    finished = command(*arguments, OANIM_DATA=str(tmp_path), OANIM_PORT="0", OANIM_HTTP_PORT="0")
    sentence = "oanim-server: the database cannot be used: file is not a database\n"
    assert said(finished) == (1, "", sentence)


def test_a_file_that_cannot_be_written_is_one_sentence_and_exit_1(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    with spawned({"OANIM_DATA": data}, tmp_path / "log"):
        pass
    target = tmp_path / "none" / "x.db"
    for arguments, more, sentence in (
        (("backup", str(target)), {}, f"{target} cannot be written: No such file or directory"),
        (("serve",), {"OANIM_UPLOADS_FOLDER": "/dev/null/x"}, "/dev/null/x: Not a directory"),
        (("serve",), {"OANIM_DATA": "/dev/null/x"}, "/dev/null/x cannot be used: Not a directory"),
        (("audit", "--anchor", "/dev/null/x"), {}, "/dev/null/x cannot be written: Not a directory"),
    ):
        environment = {"OANIM_DATA": data, "OANIM_PORT": "0", "OANIM_HTTP_PORT": "0", **more}
        finished = command(*arguments, **environment)
        assert said(finished) == (1, "", f"oanim-server: {sentence}\n")


def test_a_database_of_a_newer_server_is_one_sentence_and_exit_1(tmp_path: Path) -> None:
    with spawned({"OANIM_DATA": str(tmp_path)}, tmp_path / "log"):
        pass
    with closing(sqlite3.connect(tmp_path / "oanim.db")) as newer, newer:
        newer.execute("UPDATE alembic_version SET version_num = '9999'")
    for arguments in (("serve",), ("migrate",)):
        finished = command(*arguments, OANIM_DATA=str(tmp_path), OANIM_PORT="0", OANIM_HTTP_PORT="0")
        sentence = "this database was brought to its schema by a newer oanim-server: start that one"
        assert said(finished) == (1, "", f"oanim-server: {sentence}\n")


def test_a_price_file_that_is_none_is_one_sentence_and_exit_2(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text("prices = 5\nfree_credits_micros = 1\nunlisted_amount_micros = 1\n")
    finished = command("serve", OANIM_DATA=str(tmp_path / "data"), OANIM_PRICE_FILE=str(file))
    problem = "prices is no list of [[prices]]"
    sentence = f"oanim-server: OANIM_PRICE_FILE names {file}, which is no price file: {problem}.\n"
    assert said(finished) == (2, "", sentence)


def test_a_port_that_is_taken_is_one_sentence_and_exit_1(tmp_path: Path) -> None:
    with spawned({"OANIM_DATA": str(tmp_path / "a")}, tmp_path / "log") as server:
        for variable, port, other in (
            ("OANIM_PORT", server.port, "OANIM_HTTP_PORT"),
            ("OANIM_HTTP_PORT", server.http_port, "OANIM_PORT"),
        ):
            finished = command("serve", OANIM_DATA=str(tmp_path / "b"), **{variable: str(port), other: "0"})
            sentence = finished.stderr.splitlines()[-1]
            assert (finished.returncode, sentence.startswith("oanim-server: ")) == (1, True)
            assert f"127.0.0.1:{port}" in sentence
            assert "Traceback" not in finished.stderr


def test_a_key_is_made_with_and_without_a_server(tmp_path: Path) -> None:
    data = {"OANIM_DATA": str(tmp_path / "data")}
    arguments = ("keys", "create", "--role", "service", "--name", "farm", "--json")
    alone = command(*arguments, **data)
    assert alone.returncode == 0, alone.stderr
    with spawned(data, tmp_path / "log") as server:
        beside = command(*arguments, **data)
        assert beside.returncode == 0, beside.stderr
        for finished in (alone, beside):
            made = json.loads(finished.stdout)
            calls = Calls(server.channel, User(made["account_id"], made["key_id"], made["secret"]))
            answer = calls(calls.account.WhoAmI, account.WhoAmIRequest())
            assert (answer.account_id, answer.api_key.name) == (made["account_id"], "farm")
            assert answer.api_key.role == ROLE_SERVICE
        shown = command("keys", "create", "--role", "admin", "--name", "ada", **data)
        assert shown.stdout.splitlines()[1].startswith("key      anim_")


def test_the_audit_says_what_it_checked_and_fails_when_something_is_off(tmp_path: Path) -> None:
    data = {"OANIM_DATA": str(tmp_path / "data")}
    with spawned(data, tmp_path / "log") as server:
        calls = Calls(server.channel, server.sign_up())
        calls(calls.wallet.Reserve, wallet.ReserveRequest(idempotency_key=new_key(), amount_micros=5))
        anchor = str(tmp_path / "anchor")
        beside = command("audit", "--anchor", anchor, **data)
        sentence = (
            "Audited 1 wallets, 2 transactions with 2 entries, 1 lots, 1 reservations; balance $5.00, held "
            "$0.000005. Everything adds up.\n"
        )
        made = f"{anchor} was not there, so that nothing was compared; it was made.\n"
        assert said(beside) == (0, sentence + made, "")
        again = command("audit", "--anchor", anchor, **data)
        assert said(again) == (0, f"{sentence}1 heads compared with {anchor}.\n", "")
        assert said(command("audit", **data)) == (0, sentence, "")
    with closing(sqlite3.connect(tmp_path / "data" / "oanim.db")) as vandal:
        vandal.execute("UPDATE wallets SET balance_micros = balance_micros + 1")
        vandal.commit()
    off = command("audit", "--anchor", anchor, **data)
    assert off.returncode == 1
    assert f"{calls.user.account_id}: balance: 5000001 is stored, 5000000 is right" in off.stdout
    missing = command("audit", "--anchor", f"{anchor}s", **data)
    assert missing.returncode == 1
    assert missing.stdout.endswith("so that nothing was compared; it is made when nothing is off.\n")
    (tmp_path / "anchor").write_text("")
    empty = command("audit", "--anchor", anchor, **data)
    no_heads = "has no heads that an audit wrote: name another file, or move it away to begin anew"
    assert said(empty) == (1, "", f"oanim-server: {anchor} {no_heads}\n")


def test_a_backup_is_a_database_of_its_own_and_is_not_overwritten(tmp_path: Path) -> None:
    data = {"OANIM_DATA": str(tmp_path / "data")}
    copy = tmp_path / "copy" / "oanim.db"
    copy.parent.mkdir()
    with spawned(data, tmp_path / "log") as server:
        calls = Calls(server.channel, server.sign_up())
        before = calls(calls.wallet.GetWallet, wallet.GetWalletRequest())
        assert command("backup", str(copy), **data).returncode == 0
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        again = command("backup", str(copy), **data)
        assert said(again) == (1, "", f"oanim-server: {copy} is there already: name a new file\n")
    with spawned({"OANIM_DATA": str(copy.parent)}, tmp_path / "log2") as restored:
        calls = Calls(restored.channel, calls.user)
        assert calls(calls.wallet.GetWallet, wallet.GetWalletRequest()) == before
    nothing = command("backup", str(tmp_path / "x"), OANIM_DATA=str(tmp_path / "none"))
    assert said(nothing) == (
        1,
        "",
        f"oanim-server: there is no database at {tmp_path / 'none' / 'oanim.db'}\n",
    )


def test_a_postgresql_is_migrated_before_it_is_served(postgresql_cluster: Cluster, tmp_path: Path) -> None:
    environment = {
        "OANIM_DATA": str(tmp_path),
        "OANIM_DATABASE_URL": postgresql_cluster.create_database(),
        "OANIM_PORT": "0",
        "OANIM_HTTP_PORT": "0",
    }
    refused = command("serve", **environment)
    assert refused.returncode == 1
    assert "it would forget what it acknowledged" in refused.stderr.splitlines()[-1]
    environment["OANIM_POSTGRESQL_UNSAFE"] = "1"
    for arguments in (("serve",), ("audit",)):
        early = command(*arguments, **environment)
        assert said(early) == (
            1,
            "",
            "oanim-server: the database is not at the present schema: run `oanim-server migrate`\n",
        )
    for _ in range(2):
        assert said(command("migrate", **environment)) == (
            0,
            "The database is at the present schema.\n",
            "",
        )
    with spawned(environment, tmp_path / "log") as server:
        server.sign_up()
        assert command("audit", **environment).returncode == 0


def test_dev_serves_a_sandbox_with_a_key_of_each_role_and_its_database_is_never_served(
    tmp_path: Path,
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "oanim_server", "dev", "--data", str(tmp_path), "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        talk = json.loads(process.stdout.readline())
        assert sorted(talk["keys"]) == ["admin", "service", "user", "worker"]
        with grpc.insecure_channel(talk["address"]) as channel:
            calls = Calls(channel, User("", "", talk["keys"]["user"]))
            request = generate.GenerateRequest(
                model="fal-ai/flux/schnell", input_json='{"prompt": "gradient"}', idempotency_key="a"
            )
            *_, last = calls.generate.Generate(request, metadata=calls.user.metadata, timeout=SECONDS)
            made = last.succeeded.generation
            assert (made.charged_micros, made.sandbox) == (3_000, True)
            assert calls(calls.account.WhoAmI, account.WhoAmIRequest()).sandbox
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0
        process.stdout.close()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    refused = command("serve", OANIM_DATA=str(tmp_path), OANIM_PORT="0", OANIM_HTTP_PORT="0")
    assert said(refused) == (
        1,
        "",
        "oanim-server: this database was used by `oanim-server dev`: what it holds is made up\n",
    )


def test_dev_does_not_touch_a_database_with_real_accounts(tmp_path: Path) -> None:
    with spawned({"OANIM_DATA": str(tmp_path / "data")}, tmp_path / "log") as server:
        server.sign_up()
        assert server.terminate() == 0
    refused = command("dev", "--data", str(tmp_path / "data"), "--port", "0")
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1] == (
        "oanim-server: this database holds real accounts: `oanim-server dev` needs one of its own"
    )


def test_serve_without_a_providers_key_says_so(tmp_path: Path) -> None:
    with spawned({"OANIM_DATA": str(tmp_path)}, tmp_path / "log") as server:
        calls = Calls(server.channel, server.sign_up())
        request = generate.GenerateRequest(
            model="fal-ai/flux/schnell", input_json='{"prompt": "gradient"}', idempotency_key="a"
        )
        with pytest.raises(grpc.RpcError) as caught:
            next(calls.generate.Generate(request, metadata=calls.user.metadata, timeout=SECONDS))
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("package", "words", "extras"),
    [
        ("psycopg", ["serve"], "server"),
        ("sqlalchemy", ["keys", "create", "--role", "service", "--name", "pipeline"], "server"),
        ("orjson", ["admin", "accounts"], "server"),
        ("psycopg", ["dev"], "server,sandbox"),
        ("av", ["dev"], "server,sandbox"),
        ("PIL", ["dev"], "server,sandbox"),
    ],
)
def test_a_package_that_is_not_installed_is_one_sentence_and_exit_1(
    tmp_path: Path, package: str, words: list[str], extras: str
) -> None:
    without = f"import sys; sys.modules[{package!r}] = None; from oanim_server.__main__ import main; main()"
    assert said(python("-c", without, *words, OANIM_DATA=str(tmp_path))) == (
        1,
        "",
        f"oanim-server: this needs {package}, which is not installed: pip install 'oanim[{extras}]'\n",
    )


def test_a_servers_start_imports_no_command_line_of_others_and_no_migrations() -> None:
    needless = "{'httpx._main', 'pygments', 'rich', 'alembic'}"
    script = f"import sys, oanim_server.app; print({{name for name in {needless} if sys.modules.get(name)}})"
    assert said(python("-c", script)) == (0, "set()\n", "")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_need_no_settings(option: str) -> None:
    finished = command(option, OANIM_PORT="bad")
    assert (finished.returncode, finished.stderr) == (0, "")
