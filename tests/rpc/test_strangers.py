"""Clients that are not ours: reflection and JSON through `buf curl`; and TLS."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from openanimate.metering.v1 import wallet_service_pb2 as wallet
from tests.server import SECONDS, Calls, User, running

if TYPE_CHECKING:
    from tests.server import RunningServer

# For localhost, for a hundred years; it protects nothing, so its key may lie beside it.
CERTIFICATE = Path(__file__).with_name("localhost.pem")
BUF = Path(sys.executable).with_name("buf")
OVER = ("--protocol", "grpc", "--http2-prior-knowledge")
PACKAGE = "openanimate.metering.v1"


def curl(server: RunningServer, method: str, request: dict[str, Any], token: str = "") -> dict[str, Any]:
    header = ["--header", f"authorization: Bearer {token}"] if token else []
    finished = subprocess.run(
        [
            BUF,
            "curl",
            *OVER,
            *header,
            "--data",
            json.dumps(request),
            f"http://{server.address}/{PACKAGE}.{method}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    answer: dict[str, Any] = json.loads(finished.stdout)
    return answer


def test_any_client_can_sign_up_reserve_commit_release_and_read_the_statement(tmp_path: Path) -> None:
    with running({"OANIM_DATA": str(tmp_path)}) as server:
        email = {"email": "ada@example.com", "idempotencyKey": "a"}
        token = curl(server, "AccountService/SignUp", email)["secret"]
        reserve = {"amountMicros": "100", "idempotencyKey": "a"}
        first = curl(server, "WalletService/Reserve", reserve, token)["reservation"]["reservationId"]
        commit = {"reservationId": first, "amountMicros": "40", "idempotencyKey": "b"}
        assert curl(server, "WalletService/Commit", commit, token)["chargedMicros"] == "40"
        reserve["idempotencyKey"] = "c"
        second = curl(server, "WalletService/Reserve", reserve, token)["reservation"]["reservationId"]
        release = {"reservationId": second, "idempotencyKey": "d"}
        assert curl(server, "WalletService/Release", release, token)["releasedMicros"] == "100"
        statement = curl(server, "WalletService/ListTransactions", {}, token)
        assert [row["kind"].removeprefix("TRANSACTION_KIND_") for row in statement["transactions"]] == [
            "RELEASE",
            "RESERVE",
            "CAPTURE",
            "RESERVE",
            "SIGN_UP_GRANT",
        ]
        assert statement["wallet"]["balanceMicros"] == "4999960"


def test_production_answers_no_reflection(tmp_path: Path) -> None:
    with running({"OANIM_DATA": str(tmp_path), "OANIM_PRODUCTION": "1"}) as server:
        names = subprocess.run(
            [BUF, "curl", "--list-methods", *OVER, f"http://{server.address}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert names.returncode != 0
        assert "unimplemented" in names.stderr
        server.sign_up()


def test_with_a_certificate_calls_travel_in_tls(tmp_path: Path) -> None:
    environment = {
        "OANIM_DATA": str(tmp_path / "data"),
        "OANIM_HOST": "0.0.0.0",  # noqa: S104 - what a certificate is for
        "OANIM_TLS_CERT": str(CERTIFICATE),
        "OANIM_TLS_KEY": str(CERTIFICATE.with_name("localhost-key.pem")),
    }
    with running(environment) as server:
        credentials = grpc.ssl_channel_credentials(CERTIFICATE.read_bytes())
        with grpc.secure_channel(f"localhost:{server.port}", credentials) as channel:
            calls = Calls(channel, User("", "", "none"))
            refused = calls.refused(calls.wallet.GetWallet, wallet.GetWalletRequest())
            assert refused.reason == "KEY_INVALID"
        calls = Calls(server.channel, User("", "", "none"))
        with pytest.raises(grpc.RpcError) as caught:
            calls.wallet.GetWallet(wallet.GetWalletRequest(), timeout=SECONDS)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
