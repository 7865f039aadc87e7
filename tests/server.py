"""Real servers for the tests: one in this process with its own event loop, or a process to be killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

import grpc
import pytest
import uvloop
from google.rpc.error_details_pb2 import (  # type: ignore[import-untyped]
    BadRequest,
    ErrorInfo,
    PreconditionFailure,
    RetryInfo,
)
from grpc_status import rpc_status

from oanim_server.app import App
from oanim_server.settings import Settings
from openanimate.metering.v1 import account_service_pb2, admin_service_pb2
from openanimate.metering.v1.account_service_pb2_grpc import AccountServiceStub
from openanimate.metering.v1.admin_service_pb2_grpc import AdminServiceStub
from openanimate.metering.v1.checkout_service_pb2_grpc import CheckoutServiceStub
from openanimate.metering.v1.generate_service_pb2_grpc import GenerateServiceStub
from openanimate.metering.v1.pricing_service_pb2_grpc import PricingServiceStub
from openanimate.metering.v1.render_service_pb2_grpc import RenderServiceStub
from openanimate.metering.v1.wallet_service_pb2_grpc import WalletServiceStub
from tests import migrated

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping
    from pathlib import Path

    from google.protobuf.message import Message

    from openanimate.metering.v1.role_pb2 import Role

T = TypeVar("T")

SECONDS = 30.0


def new_key() -> str:
    """An idempotency key that nobody has used."""
    return uuid.uuid4().hex


def authorization(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata that carries an API key."""
    return (("authorization", f"Bearer {token}"),)


@dataclass(frozen=True)
class User:
    """An account with its key, as a call needs it."""

    account_id: str
    key_id: str
    token: str

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What its calls carry."""
        return authorization(self.token)


class Calls:
    """The contract's unary calls as one user makes them: `calls(wallet.Reserve, request)` and the like."""

    def __init__(self, channel: grpc.Channel, user: User) -> None:
        self.user = user
        self.channel = channel
        self.account = AccountServiceStub(channel)
        self.wallet = WalletServiceStub(channel)
        self.pricing = PricingServiceStub(channel)
        self.checkout = CheckoutServiceStub(channel)
        self.generate = GenerateServiceStub(channel)
        self.render = RenderServiceStub(channel)
        self.admin = AdminServiceStub(channel)

    def __call__(self, method: Callable[..., T], request: Message) -> T:
        """Make a call with the user's key."""
        return method(request, metadata=self.user.metadata, timeout=SECONDS)

    def refused(self, method: Callable[..., object], request: Message) -> Refused:
        """Make a call that is refused, and read why."""
        with pytest.raises(grpc.RpcError) as caught:
            self(method, request)
        return Refused.of(caught.value)


@dataclass(frozen=True)
class Refused:
    """What a refused call's caller learns."""

    code: grpc.StatusCode
    reason: str
    metadata: dict[str, str] = field(default_factory=dict)
    message: str = field(default="", compare=False)
    fields: tuple[str, ...] = ()
    violations: tuple[tuple[str, str], ...] = ()
    retry_seconds: float | None = field(default=None, compare=False)

    @classmethod
    def of(cls, error: grpc.RpcError) -> Refused:
        """Read an error's details."""
        status = rpc_status.from_call(cast("grpc.Call", error))
        assert status is not None, f"no details: {error.code()} {error.details()}"
        assert status.code == error.code().value[0]
        assert status.message == error.details()
        found: dict[str, Any] = {}
        for detail in status.details:
            if detail.Is(ErrorInfo.DESCRIPTOR):
                info = ErrorInfo.FromString(detail.value)
                assert info.domain == "open-animate.com"
                found |= {"reason": info.reason, "metadata": dict(info.metadata)}
            elif detail.Is(BadRequest.DESCRIPTOR):
                bad = BadRequest.FromString(detail.value)
                found["fields"] = tuple(violation.field for violation in bad.field_violations)
            elif detail.Is(PreconditionFailure.DESCRIPTOR):
                failure = PreconditionFailure.FromString(detail.value)
                found["violations"] = tuple((one.type, one.subject) for one in failure.violations)
            elif detail.Is(RetryInfo.DESCRIPTOR):
                retry = RetryInfo.FromString(detail.value)
                found["retry_seconds"] = retry.retry_delay.ToNanoseconds() / 1e9
        return cls(code=error.code(), message=error.details() or "", **found)


class Endpoint:
    """A server that answers, whatever runs it: its address, its channel, accounts on it."""

    def __init__(self, data: Path, port: int, http_port: int) -> None:
        self.data = data
        self.port = port
        self.http_port = http_port
        self.channel = grpc.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)])

    @property
    def address(self) -> str:
        """Where gRPC listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def http_url(self) -> str:
        """Where HTTP listens."""
        return f"http://127.0.0.1:{self.http_port}"

    def sign_up(self, email: str | None = None) -> User:
        """A new account with the free credits."""
        request = account_service_pb2.SignUpRequest(
            email=email or f"{new_key()}@example.com", idempotency_key=new_key()
        )
        made = AccountServiceStub(self.channel).SignUp(request, timeout=SECONDS)
        return User(made.account_id, made.api_key.key_id, made.secret)

    def create_key(self, role: Role.ValueType, name: str = "test") -> User:
        """A key of a role, made through the local socket."""
        request = admin_service_pb2.CreateKeyRequest(role=role, name=name, idempotency_key=new_key())
        with grpc.insecure_channel(f"unix:{self.data / 'oanim.sock'}") as channel:
            made = AdminServiceStub(channel).CreateKey(request, timeout=SECONDS)
        return User(made.account_id, made.key_id, made.secret)


class RunningServer(Endpoint):
    """A server in this process: its parts can be looked at while it runs. Start it with `running`."""

    def __init__(self, app: App, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(settings.data, app.port, app.http_port)
        self.app = app
        self._loop = loop

    def on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the server's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)


def _migrate(settings: Settings) -> None:
    """Save a server on SQLite what takes it two thirds of its first start in a test."""
    if settings.database_url is None and not settings.database_file.exists():
        settings.database_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        migrated.sqlite(settings.database_file)


@contextmanager
def running(environment: Mapping[str, str]) -> Iterator[RunningServer]:
    """A server with these settings, on free ports, until the block ends; then it is drained."""
    settings = Settings.from_environment({"OANIM_PORT": "0", "OANIM_HTTP_PORT": "0", **environment})
    _migrate(settings)
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="server", daemon=True)
    thread.start()

    async def made() -> App:
        app = App(settings)
        await app.start()
        return app

    try:
        app = asyncio.run_coroutine_threadsafe(made(), loop).result(SECONDS)
        server = RunningServer(app, settings, loop)
        try:
            yield server
        finally:
            server.channel.close()
            asyncio.run_coroutine_threadsafe(app.stop(), loop).result(SECONDS)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(SECONDS)
        loop.close()


class ServerProcess(Endpoint):
    """A server in a process of its own. Start it with `spawned`."""

    def __init__(self, process: subprocess.Popen[str], log: Path, data: Path) -> None:
        self.process = process
        self.log = log
        serving = self._serving()
        super().__init__(data, serving["port"], serving["http_port"])

    def kill(self) -> None:
        """End it at this very instruction, as a power cut would."""
        self.process.kill()
        self.process.wait(SECONDS)

    def terminate(self) -> int:
        """Ask it to stop, and answer its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)

    def entries(self) -> list[dict[str, Any]]:
        """What it has logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def _serving(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the server did not start:\n{self.log.read_text()}"
        serving: dict[str, Any] = json.loads(line)
        return serving


@contextmanager
def spawned(
    environment: Mapping[str, str], log: Path, *, program: tuple[str, ...] = ("oanim_server",)
) -> Iterator[ServerProcess]:
    """`oanim-server serve` with these settings, on free ports unless they name some; killed at the end.

    :param program: a module that serves as the server does, and what it is told besides.
    """
    settings = Settings.from_environment(environment)
    _migrate(settings)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OANIM_")}
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", *program, "serve", "--json"],
            env={**inherited, "OANIM_PORT": "0", "OANIM_HTTP_PORT": "0", **environment},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        server = ServerProcess(process, log, settings.data)
        yield server
        server.channel.close()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(SECONDS)
        if process.stdout is not None:
            process.stdout.close()
