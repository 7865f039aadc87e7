"""The commands of the server's machine. What goes wrong is one sentence on stderr, never a traceback.

Exit codes: 0 done, 1 failed (an audit that found something, too), 2 a setting or an argument, 130
interrupted. Imports are made where they are needed: a command that makes a key does not wait for the web
server's.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import sys
import tempfile
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oanim_server.operating import Operator, admin, ask, key_option
from oanim_server.settings import BadSettingError, Secret, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from google.protobuf.message import Message

    from oanim_server.app import App
    from oanim_server.database.engine import Database
    from oanim_server.ledger.audit_wallet import Report

log = logging.getLogger(__name__)

_ROLES = ("user", "worker", "service", "admin")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="oanim", prog_name="oanim-server")
@click.pass_context
def main(context: click.Context) -> None:
    """Serve prepaid credits, and look after them. Settings are read from OANIM_* variables."""
    context.obj = Operator(_ask)


main.add_command(admin)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Say where it listens, as one line of JSON.")
def serve(*, as_json: bool) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    with _sentences():
        from oanim_server.app import App

        app = App(_settings())

        async def ready() -> None:
            if as_json:
                click.echo(json.dumps({"port": app.port, "http_port": app.http_port}))

        _run(app, ready)


@main.command()
@click.option("--data", type=click.Path(path_type=Path), help="Keep everything in this folder.")
@click.option("--port", type=click.IntRange(0, 65_535), help="The port for gRPC; 0 takes free ports.")
@click.option("--json", "as_json", is_flag=True, help="Say how to talk to it as one line of JSON.")
def dev(data: Path | None, port: int | None, *, as_json: bool) -> None:
    """Serve with made-up providers and made-up money, and print a key of each role."""
    with _sentences("server,sandbox"), ExitStack() as stack:
        from oanim_server.app import App
        from oanim_server.sandbox import FalSandbox, StripeSandbox
        from oanim_server.web.webhook import PATH

        folder = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oanim-dev-")))
        quiet = {"OANIM_LOG_LEVEL": os.environ.get("OANIM_LOG_LEVEL") or "warning"}
        settings = _settings(OANIM_DATA=str(folder), **quiet)
        sandbox = stack.enter_context(FalSandbox())
        stripe = stack.enter_context(StripeSandbox())
        webhook_secret = secrets.token_hex(16)
        if port is not None:
            settings = replace(settings, port=port, http_port=settings.http_port if port else 0)
        settings = replace(
            settings,
            sign_up="open",
            # Made-up money has no end.
            free_credits_daily_cap_usd=Decimal(1_000_000_000),
            fal_url=sandbox.url,
            fal_key=Secret("sandbox"),
            output_hosts=("127.0.0.1",),
            stripe_url=stripe.url,
            stripe_key=Secret("sk_test_sandbox"),
            stripe_webhook_secrets=(Secret(webhook_secret),),
        )
        app = App(settings, sandbox=True)

        async def ready() -> None:
            http_url = f"http://{settings.http_host}:{app.http_port}"
            stripe.send_webhooks(f"{http_url}{PATH}", webhook_secret)
            talk = {
                "address": f"{settings.host}:{app.port}",
                "url": f"http://{settings.host}:{app.port}",
                "http_url": http_url,
                "sandbox_url": sandbox.url,
                "stripe_url": stripe.url,
                "data": str(folder),
                "keys": await app.keys_for_dev(),
            }
            click.echo(json.dumps(talk) if as_json else _how_to_talk(talk, kept=data is not None))

        _run(app, ready)


@main.command()
def migrate() -> None:
    """Bring the database to the present schema."""
    with _sentences():
        from oanim_server.database.migrate import migrate as bring

        with closing(_database(_settings())) as database:
            bring(database)
    click.echo("The database is at the present schema.")


@main.group()
def keys() -> None:
    """API keys of the operator's making."""


@keys.command()
@click.option("--role", type=click.Choice(_ROLES), required=True, help="What the key may do.")
@click.option("--name", required=True, help="What to call the key and its account.")
@key_option
@click.option("--json", "as_json", is_flag=True, help="Answer as one line of JSON.")
def create(role: str, name: str, key: str | None, *, as_json: bool) -> None:
    """Make an account for a role, and its first key, which is shown once."""
    from openanimate.metering.v1.admin_service_pb2 import CreateKeyRequest
    from openanimate.metering.v1.role_pb2 import Role

    attempt = key or secrets.token_hex(16)
    request = CreateKeyRequest(role=Role.Value(f"ROLE_{role.upper()}"), name=name, idempotency_key=attempt)
    made = _ask("CreateKey", request)
    if not made.secret:
        _fail(f"the key {made.key_id} was made before, and its secret is shown once.", 1)
    if as_json:
        said = {"account_id": made.account_id, "key_id": made.key_id, "secret": made.secret}
        click.echo(json.dumps(said))
    else:
        click.echo(f"account  {made.account_id}\nkey      {made.secret}")
        click.echo("Keep the key: it is not shown again.", err=True)


@main.command()
@click.option(
    "--anchor",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Compare with the heads in this file, then write them there anew.",
)
def audit(anchor: Path | None) -> None:
    """Recompute everything that is stored about money; exit 1 when anything is off."""
    with _sentences():
        from oanim_server.database.opening import require_current
        from oanim_server.ledger.audit import audit as recompute

        with closing(_database(_settings(), writing=False)) as database:
            require_current(database)
            report = recompute(database, anchor)
    click.echo(_found(report))
    if anchor is not None:
        click.echo(_compared(report, anchor))
    sys.exit(1 if report.problems else 0)


@main.command()
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
def backup(target: Path) -> None:
    """Copy the embedded database to TARGET, also while it is served."""
    with _sentences():
        from oanim_server.database.backup import backup as copy

        settings = _settings()
        if settings.database_url is not None:
            raise click.ClickException("PostgreSQL has tools of its own for this: use pg_dump.")
        copy(settings.database_file, target.absolute())
    click.echo(f"{target}: {target.stat().st_size:,} bytes")


# Pieces ---------------------------------------------------------------------------------------------


def _settings(**overrides: str) -> Settings:
    """Read the settings, and log as they say from here on."""
    settings = Settings.from_environment({**os.environ, **overrides})
    _log(settings)
    return settings


def _database(settings: Settings, *, writing: bool = True) -> Database:
    from oanim_server.database.opening import open_database

    url = settings.database_url
    return open_database(
        settings.database_file,
        url.reveal() if url else None,
        unsafe=settings.postgresql_unsafe,
        writing=writing,
    )


def _log(settings: Settings) -> None:
    from oanim_server import logs

    logs.configure(settings.log_level)


@contextmanager
def _sentences(extras: str = "server") -> Iterator[None]:
    """Turn what may go wrong into a sentence and an exit code; `extras` are those whose packages it needs."""
    try:
        yield
    except BadSettingError as error:
        _fail(str(error), 2)
    except click.ClickException:
        raise
    except KeyboardInterrupt as interrupted:
        if sentence := str(interrupted):
            _fail(sentence, 130)
        sys.exit(130)
    except ModuleNotFoundError as error:
        _fail(f"this needs {error.name}, which is not installed: pip install 'oanim[{extras}]'", 1)
    except Exception as error:
        from oanim_server.database.engine import DatabaseError
        from oanim_server.ledger.audit import AnchorError
        from oanim_server.rpc.local import RefusedError
        from oanim_server.rpc.server import CannotListenError

        if isinstance(error, DatabaseError | AnchorError | RefusedError | CannotListenError):
            _fail(str(error), 1)
        if sentence := _of_the_machine(error):
            log.debug("a command failed", exc_info=error)
            _fail(sentence, 1)
        log.critical("a command failed", exc_info=error)
        _fail(f"a fault of ours ({type(error).__name__}): the log has more.", 1)


def _of_the_machine(error: Exception) -> str:
    """A sentence for what is no fault of ours: a file or a database that cannot be used; else empty."""
    import sqlite3

    import psycopg
    from sqlalchemy.exc import DBAPIError

    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    cause = error.orig if isinstance(error, DBAPIError) else error
    if type(cause) in (sqlite3.DatabaseError, sqlite3.OperationalError):
        return f"the database cannot be used: {cause}"
    if isinstance(cause, psycopg.OperationalError):
        # Not its words: they name the host and the user.
        return f"the database cannot be used: {type(cause).__name__}"
    return ""


def _fail(sentence: str, code: int) -> None:
    click.echo(f"oanim-server: {sentence}", err=True)
    sys.exit(code)


def _run(app: App, ready: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Serve until a signal, then drain."""
    import signal

    import uvloop

    async def serving() -> None:
        asked = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, asked.set)
        await app.start()
        _quiet_collector()
        try:
            await ready()
            await asked.wait()
        finally:
            await app.stop()

    uvloop.run(serving())


def _quiet_collector() -> None:
    """What was made at the start stays; what calls make dies by its count, but for what the edge collects."""
    import gc

    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


def _ask(method: str, request: Message) -> Any:
    """Make a call of AdminService; what goes wrong is a sentence."""
    with _sentences():
        return ask(_settings(), method, request)


def _found(report: Report) -> str:
    from oanim_server.rpc.refusals import dollars

    checked = (
        f"{report.wallets:,} wallets, {report.transactions:,} transactions with {report.entries:,} entries, "
        f"{report.lots:,} lots, {report.reservations:,} reservations; "
        f"balance {dollars(report.balance_micros)}, held {dollars(report.held_micros)}"
    )
    if not report.problems:
        return f"Audited {checked}. Everything adds up."
    return "\n".join([f"Audited {checked}. {len(report.problems)} found:", *report.problems])


def _compared(report: Report, anchor: Path) -> str:
    if report.anchor_was_there:
        return f"{report.anchored:,} heads compared with {anchor}."
    made = "it is made when nothing is off" if report.problems else "it was made"
    return f"{anchor} was not there, so that nothing was compared; {made}."


def _how_to_talk(talk: dict[str, Any], *, kept: bool) -> str:
    keys = talk["keys"]
    return "\n".join(
        [
            "A server with sandboxes in place of fal.ai and Stripe: pictures and money are made up.",
            f"  gRPC     {talk['address']}   (reflection is on)",
            f"  HTTP     {talk['http_url']}/healthz and /metrics",
            f"  Stripe   {talk['stripe_url']}/sandbox/state",
            f"  data     {talk['data']}{'' if kept else '   (removed at the end)'}",
            *(f"  {role:8} {keys[role]}" for role in _ROLES),
            "",
            f"export ANIMATE_API_URL={talk['url']} ANIMATE_API_KEY={keys['user']}",
            "oanim billing",
            "oanim billing buy --amount 50",
            "oanim assets gen-image --prompt gradient --out bg.png",
            f"ANIMATE_API_KEY={keys['worker']} oanim-farm   # renders what `oanim render --cloud` submits",
            "",
            "Ctrl-C stops it.",
        ]
    )


if __name__ == "__main__":
    main()
