"""The composition root: one server process, put together from its settings, started and stopped in order.

What is started last is stopped first: the network before the work, the work before the ledger, the ledger
before the database. A start that fails on the way stops what it had started.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from sqlalchemy import text

from oanim_models import catalogue
from oanim_models.fal import FalQueue
from oanim_server.accounts.accounts import Accounts
from oanim_server.accounts.authenticator import Authenticator
from oanim_server.accounts.opening import SignUpLimits
from oanim_server.accounts.values import Role
from oanim_server.checkout.checkouts import Checkouts
from oanim_server.checkout.stripe_api import PageOptions, Stripe
from oanim_server.checkout.values import Terms
from oanim_server.database import marks
from oanim_server.database.engine import DatabaseError
from oanim_server.database.migrate import migrate
from oanim_server.database.opening import open_database, require_current
from oanim_server.generation.generations import Generations
from oanim_server.ledger.audit import audit
from oanim_server.ledger.ledger import Ledger
from oanim_server.ledger.refusals import Draining
from oanim_server.ledger.values import DAY, MICROS_PER_USD, SECOND
from oanim_server.logs import CallLog
from oanim_server.pricing.prices import Prices
from oanim_server.rendering.renders import Renders
from oanim_server.rendering.store import FolderStore
from oanim_server.rendering.values import TIMES
from oanim_server.rpc.account import AccountServicer
from oanim_server.rpc.admin import AdminServicer
from oanim_server.rpc.admission import Rate
from oanim_server.rpc.checkout import CheckoutServicer
from oanim_server.rpc.echo import add_echo
from oanim_server.rpc.edge import Edge, Limits
from oanim_server.rpc.generate import GenerateServicer
from oanim_server.rpc.pricing import PricingServicer
from oanim_server.rpc.render import RenderServicer
from oanim_server.rpc.server import CannotListenError, LocalServer, RpcServer
from oanim_server.rpc.wallet import WalletServicer
from oanim_server.settings import BadSettingError
from oanim_server.web.metrics import CheckoutMetrics, GenerationMetrics, LedgerMetrics, RenderMetrics
from oanim_server.web.pages import pages
from oanim_server.web.returning import returning
from oanim_server.web.serving import WebServer
from oanim_server.web.webhook import Webhook
from openanimate.metering.v1.account_service_pb2 import RateLimits, WhoAmIResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from starlette.routing import Route

    from oanim_models.catalogue import Catalogue
    from oanim_server.database.engine import Database
    from oanim_server.ledger.audit_wallet import Report
    from oanim_server.settings import Settings

log = logging.getLogger(__name__)

SIGN_UPS_AN_HOUR = 5
MINIMUM_PURCHASE_MICROS = 5 * MICROS_PER_USD


class App:
    """A server. `start` returns when it serves, `stop` when everything in flight has ended.

    :param sandbox: the providers are stand-ins: what the database holds is made up, and it is marked so.
    """

    def __init__(self, settings: Settings, *, sandbox: bool = False) -> None:
        self._settings = settings
        self._sandbox = sandbox
        self._stack = AsyncExitStack()
        self._draining = False
        # When what is in flight is to have ended, on the monotonic clock; None before the stop.
        self._deadline: float | None = None
        self.port = 0
        self.http_port = 0

    async def start(self) -> None:
        """Open, migrate, publish, listen.

        :raises DatabaseError: or CannotListenError, in one sentence, when it cannot.
        """
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        log.info(
            "serving",
            extra={
                "port": self.port,
                "http_port": self.http_port,
                "version": version("oanim"),
                "sandbox": self._sandbox,
            },
        )

    async def stop(self) -> None:
        """Drain, and stop everything."""
        log.info("stopping")
        self._draining = True
        self._deadline = time.monotonic() + self._settings.drain_seconds
        await self._stack.aclose()
        log.info("stopped")

    async def keys_for_dev(self) -> dict[str, str]:
        """A fresh key of each role."""
        name = secrets.token_hex(4)
        user = await self._accounts.sign_up(f"dev-{name}@example.com", name, "127.0.0.1")
        keys = {"user": user.secret or ""}
        for role in (Role.WORKER, Role.SERVICE, Role.ADMIN):
            made = await self._accounts.create_role_account(
                role, f"dev {role.name.lower()}", f"{name}-{role}"
            )
            keys[role.name.lower()] = made.secret or ""
        return keys

    async def _start(self) -> None:
        settings, stack = self._settings, self._stack
        database = self._database = _opened(settings, sandbox=self._sandbox)
        stack.callback(database.close)
        ledger = Ledger(database, queue_limit=settings.queue, group_limit=settings.group)
        ledger.start()
        stack.push_async_callback(ledger.stop)
        authenticator = Authenticator(database, ledger)
        authenticator.start()
        stack.push_async_callback(authenticator.stop)
        prices = Prices(database, ledger, unlisted=settings.unlisted_models)
        table = _price_file(settings)
        await prices.publish_file(table)
        self._accounts = _accounts(settings, database, ledger, authenticator, table)

        generations = await self._generations(database, ledger, prices)
        renders = await self._renders(database, ledger, prices)
        checkouts = _checkouts(settings, database, ledger, table, self._public_url)
        stack.push_async_callback(checkouts.aclose)

        call_log = CallLog(sys.stderr if settings.log_level in ("debug", "info") else None)
        stack.callback(call_log.flush)
        edge = Edge(authenticator, _limits(settings), call_log)
        registry = CollectorRegistry()
        registry.register(edge.counts)
        LedgerMetrics(ledger, registry)
        registry.register(GenerationMetrics(generations.counts))
        registry.register(RenderMetrics(renders.counts))
        registry.register(CheckoutMetrics(checkouts.counts))

        admin = _admin(database, ledger, self._accounts, checkouts)
        terms = checkouts.terms if checkouts.configured else None
        servicers = {
            "AccountService": AccountServicer(self._accounts, ledger, self._published()),
            "WalletService": WalletServicer(ledger, prices),
            "PricingService": PricingServicer(prices, table.free_credits_micros, terms),
            "CheckoutService": CheckoutServicer(checkouts, ledger),
            "GenerateService": GenerateServicer(generations),
            "RenderService": RenderServicer(renders),
            "AdminService": admin,
        }
        if settings.bench_echo:
            add_echo(edge)
        local = LocalServer(Edge(None, _limits(settings), call_log), admin, settings.socket)
        await local.start()
        stack.push_async_callback(local.stop)

        async def quiet() -> None:
            renders.quieten()
            await generations.quieten()

        await self._listen(edge, servicers, registry, quiet=quiet, more=_payment_pages(settings, checkouts))
        checkouts.start()
        stack.push_async_callback(checkouts.stop)

    async def _generations(self, database: Database, ledger: Ledger, prices: Prices) -> Generations:
        settings = self._settings
        queue = None
        if settings.fal_key is not None:
            try:
                queue = FalQueue(key=settings.fal_key.reveal(), url=settings.fal_url)
            except ValueError as error:
                raise BadSettingError(f"OANIM_FAL_KEY or OANIM_FAL_URL cannot be used: {error}.") from None
            self._stack.push_async_callback(queue.aclose)
        generations = Generations(
            database,
            ledger,
            prices,
            queue,
            uploads_folder=settings.uploads,
            output_hosts=settings.output_hosts,
            provider_url=settings.fal_url,
            limit=settings.running_generations,
        )
        await generations.start()
        self._stack.push_async_callback(lambda: generations.stop(self._seconds_left()))
        return generations

    async def _renders(self, database: Database, ledger: Ledger, prices: Prices) -> Renders:
        settings = self._settings
        renders = Renders(
            database,
            ledger,
            prices,
            FolderStore(settings.renders),
            limit=settings.leased_renders,
            times=TIMES._replace(
                attempt=settings.render_seconds * SECOND, kept=settings.videos_kept_days * DAY
            ),
        )
        await renders.start()
        self._stack.push_async_callback(renders.stop)
        return renders

    async def _listen(
        self,
        edge: Edge,
        servicers: dict[str, object],
        registry: CollectorRegistry,
        *,
        quiet: Callable[[], Awaitable[None]],
        more: Sequence[Route],
    ) -> None:
        """Open the doors: when this returns, calls are answered."""
        settings, stack = self._settings, self._stack
        try:
            web = WebServer(pages(self._ask_database, registry, more), settings.http_host, settings.http_port)
        except OSError as error:
            raise CannotListenError(
                f"HTTP cannot listen on {settings.http_host}:{settings.http_port}: {error.strerror}."
            ) from None
        stack.callback(web.close)
        rpc = RpcServer(
            edge,
            servicers,
            with_reflection=not settings.production,
            streams_per_connection=settings.streams_per_connection,
        )
        certificate = None
        if settings.tls_key is not None and settings.tls_cert is not None:
            certificate = (settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())
        self.port = rpc.listen(settings.host, settings.port, certificate)
        self.http_port = web.port
        await web.start()
        stack.push_async_callback(web.stop)
        await rpc.start()
        stack.push_async_callback(lambda: rpc.stop(self._seconds_left(), quiet))

    def _seconds_left(self) -> float:
        """How long calls and paid requests in flight may still take: one deadline for all of them."""
        if self._deadline is None:
            return self._settings.drain_seconds
        return max(0.0, self._deadline - time.monotonic())

    def _public_url(self) -> str:
        """Where customers reach the pages of the HTTP port."""
        settings = self._settings
        if settings.public_url is not None:
            return settings.public_url
        host = f"[{settings.http_host}]" if ":" in settings.http_host else settings.http_host
        return f"http://{host}:{self.http_port}"

    def _published(self) -> dict[Role, WhoAmIResponse]:
        settings = self._settings
        return {
            role: WhoAmIResponse(
                rate_limits=RateLimits(
                    calls_per_second=rate.per_second,
                    burst=rate.burst,
                    open_streams=settings.open_streams,
                    running_generations=settings.running_generations,
                    leased_renders=settings.leased_renders,
                ),
                server_version=version("oanim"),
                sandbox=self._sandbox,
            )
            for role, rate in _limits(settings).rates.items()
        }

    async def _ask_database(self) -> None:
        """See that the server may be sent calls. Raises when it may not."""
        if self._draining:
            raise Draining
        await self._database.read(lambda connection: connection.execute(text("SELECT 1")).scalar_one())


@asynccontextmanager
async def operating(settings: Settings) -> AsyncIterator[None]:
    """The local socket alone, for a command of the operator's where no server holds the database.

    :raises DatabaseError: when one does, or the database cannot be used.
    :raises CannotListenError: when the socket cannot be made.
    """
    async with AsyncExitStack() as stack:
        database = _opened(settings, sandbox=None)
        stack.callback(database.close)
        ledger = Ledger(database)
        ledger.start(sweep=False)
        stack.push_async_callback(ledger.stop)
        table = _price_file(settings)
        accounts = _accounts(settings, database, ledger, Authenticator(database, ledger), table)
        checkouts = _checkouts(settings, database, ledger, table, str)
        stack.push_async_callback(checkouts.aclose)
        admin = _admin(database, ledger, accounts, checkouts)
        local = LocalServer(Edge(None, _limits(settings), CallLog(None)), admin, settings.socket)
        await local.start()
        stack.push_async_callback(local.stop)
        yield


def _opened(settings: Settings, *, sandbox: bool | None) -> Database:
    """The database at the present schema, and never one that `dev` used where real work is done.

    :param sandbox: None takes either.
    """
    url = settings.database_url
    database = open_database(
        settings.database_file, url.reveal() if url else None, unsafe=settings.postgresql_unsafe
    )
    try:
        if database.dialect == "sqlite":
            migrate(database)
        else:
            require_current(database)
        if sandbox is False and marks.used_by_dev(database):
            raise DatabaseError("this database was used by `oanim-server dev`: what it holds is made up")
        if sandbox and not marks.mark_for_dev(database):
            raise DatabaseError("this database holds real accounts: `oanim-server dev` needs one of its own")
    except BaseException:
        database.close()
        raise
    return database


def _price_file(settings: Settings) -> Catalogue:
    file = settings.price_file
    try:
        found = catalogue.load() if file is None else catalogue.parse(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadSettingError(f"OANIM_PRICE_FILE names {file}, which is no price file: {error}.") from None
    try:
        return found.with_margin(settings.price_margin_percent) if settings.price_margin_percent else found
    except ValueError as error:
        raise BadSettingError(f"OANIM_PRICE_MARGIN_PERCENT cannot be added: {error}.") from None


def _checkouts(
    settings: Settings,
    database: Database,
    ledger: Ledger,
    table: Catalogue,
    public_url: Callable[[], str],
) -> Checkouts:
    stripe = None
    if settings.stripe_key is not None:
        options = PageOptions(
            return_url=public_url,
            invoices=settings.stripe_invoices,
            automatic_tax=settings.stripe_automatic_tax,
            receipt_mail=settings.stripe_receipt_mail,
        )
        stripe = Stripe(settings.stripe_key.reveal(), url=settings.stripe_url, options=options)
    expire = settings.bought_credits_expire_days
    return Checkouts(
        database,
        ledger,
        stripe,
        terms=Terms(
            minimum_micros=MINIMUM_PURCHASE_MICROS,
            maximum_micros=settings.purchase_maximum_usd * MICROS_PER_USD,
            bonus_threshold_micros=table.bonus_threshold_micros,
            bonus_percent=table.bonus_percent,
        ),
        lifetime=expire * DAY if expire else None,
    )


def _payment_pages(settings: Settings, checkouts: Checkouts) -> list[Route]:
    """Where Stripe speaks and where its customers come back; nothing where nothing is sold."""
    if not checkouts.configured:
        return []
    secrets_ = [secret.reveal() for secret in settings.stripe_webhook_secrets]
    if not secrets_:
        log.warning("OANIM_STRIPE_WEBHOOK_SECRETS is not set: purchases are credited by polling alone")
    return [Webhook(checkouts.receive, secrets_, checkouts.counts).route, returning(checkouts.get)]


def _admin(database: Database, ledger: Ledger, accounts: Accounts, checkouts: Checkouts) -> AdminServicer:
    async def recompute() -> Report:
        return await asyncio.to_thread(audit, database)

    return AdminServicer(accounts, ledger, checkouts, recompute)


def _accounts(
    settings: Settings,
    database: Database,
    ledger: Ledger,
    authenticator: Authenticator,
    table: Catalogue,
) -> Accounts:
    expire = settings.free_credits_expire_days
    a_day = int(settings.free_credits_daily_cap_usd * MICROS_PER_USD)
    return Accounts(
        database,
        ledger,
        authenticator,
        free_credits_micros=table.free_credits_micros,
        free_credits_lifetime=expire * DAY if expire else None,
        sign_up_limits=SignUpLimits(SIGN_UPS_AN_HOUR, a_day) if settings.sign_up == "open" else None,
    )


def _limits(settings: Settings) -> Limits:
    rate = Rate(settings.calls_per_second, settings.burst)
    service = Rate(
        settings.service_operations_per_second,
        max(settings.burst, 2 * settings.service_operations_per_second),
    )
    return Limits(
        rates={role: service if role is Role.SERVICE else rate for role in Role},
        keyless=rate,
        open_streams=settings.open_streams,
        calls_in_flight=settings.calls_in_flight,
        trusted_proxies=settings.trusted_proxies,
    )
