"""A server's checkouts in the test's process: real ledger, database, SDK and webhook, a sandbox beside it.

Webhooks arrive while something is done on the event loop, as they do while a server runs. Nothing is polled
unless a test says so.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import pytest
from sqlalchemy import text
from starlette.applications import Starlette

from oanim_server.checkout import rows, words
from oanim_server.checkout.checkouts import Checkouts
from oanim_server.checkout.receiving import Receiver
from oanim_server.checkout.reconciling import Reconciler
from oanim_server.checkout.refunding import Refunds, Wanted
from oanim_server.checkout.stripe_api import PageOptions, Stripe
from oanim_server.checkout.values import Purchase, RefundRequest, Standing, Terms
from oanim_server.database.columns import WALLET_COLUMNS, listed
from oanim_server.ledger import audit
from oanim_server.ledger.ids import new_account_id
from oanim_server.ledger.ledger import Ledger
from oanim_server.ledger.operations import Commit, OpenWallet, Release, Reserve
from oanim_server.ledger.refusals import Refusal
from oanim_server.ledger.rows import lot_of, wallet_of
from oanim_server.ledger.values import DEFAULT_TTL, MICROS_PER_USD, SERVER, Lot, Note, WalletFacts
from oanim_server.web.returning import returning
from oanim_server.web.serving import WebServer
from oanim_server.web.webhook import PATH, Webhook
from tests import loopback
from tests.ledger.driving import Clock, open_account, with_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from oanim_server.checkout.values import Event
    from oanim_server.database.engine import Database

T = TypeVar("T")

KEY = "sk_test_secretOfTheSeller"
SIGNING = "whsec_secretOfTheWebhook"
USD = MICROS_PER_USD
TERMS = Terms(
    minimum_micros=5 * USD, maximum_micros=10_000 * USD, bonus_threshold_micros=50 * USD, bonus_percent=10
)
SECONDS = 60.0
# Nobody listens there.
RETURN_URL = "http://127.0.0.1:9"
_AS_SELLER = {"authorization": f"Bearer {KEY}"}
NOTE = Note("ann", "the customer asked")


class Till:
    """The sandbox as a test sees it: customers who pay, banks that ask back, and what goes wrong."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = loopback.client(base_url=url, timeout=SECONDS)

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def tell(self, path: str, /, **body: object) -> dict[str, Any]:
        """Have something done that Stripe's API has no call for; what became of it."""
        answer = self._http.post(f"/sandbox/{path}", json=body).raise_for_status()
        content: dict[str, Any] = answer.json() if answer.content else {}
        return content

    def call(self, path: str, /, **fields: str) -> dict[str, Any]:
        """Call the API as somebody else of the seller's does."""
        answer = self._http.post(f"/v1/{path}", data=fields, headers=_AS_SELLER).raise_for_status()
        content: dict[str, Any] = answer.json()
        return content

    def look(self, path: str, /) -> dict[str, Any]:
        """What the API answers."""
        answer = self._http.get(f"/v1/{path}", headers=_AS_SELLER).raise_for_status()
        content: dict[str, Any] = answer.json()
        return content

    def fault(self, do: str, match: str, *, times: int | None = 1, **more: object) -> None:
        """Have calls fail."""
        self.tell("faults", at="api", do=do, match=match, times=times, **more)

    def forgive(self) -> None:
        """Have nothing fail any more."""
        self._http.delete("/sandbox/faults").raise_for_status()

    def pay(self, purchase: Purchase, **more: object) -> dict[str, Any]:
        """The customer pays; the session then."""
        return self.tell(f"sessions/{purchase.session_id}/pay", **more)

    def deliver(self, **mode: object) -> None:
        """Deliver events so from now on."""
        self.tell("delivering", **mode)

    def waiting(self, seconds: float = 30.0) -> int:
        """Wait until every event is delivered; how many still are not."""
        count: int = self.tell("queue/wait", seconds=seconds)["waiting"]
        return count

    def all(self, kind: str) -> list[dict[str, Any]]:
        """Every object of a kind, oldest first: sessions, charges, refunds, disputes, events."""
        found: list[dict[str, Any]] = self._http.get("/sandbox/state").json()[kind]
        return found

    def events(self, *types: str) -> list[Event]:
        """What happened, oldest first, of these types or of all that are of concern."""
        return [
            words.event_of(event) for event in self.all("events") if event["type"] in (types or words.TYPES)
        ]


class Rest(NamedTuple):
    """What a wallet is left with, and what the audit finds."""

    balance_micros: int
    held_micros: int
    debt_micros: int
    problems: list[str]


class Shop:
    """One server: its ledger, its checkouts and its webhook."""

    def __init__(
        self,
        database: Database,
        url: str | None,
        *,
        lifetime: int | None = None,
        tax: bool = False,
        clock: Clock | None = None,
        port: int = 0,
    ) -> None:
        self._port = port
        self.database = database
        if clock is not None:
            with_clock(database, clock)
        self.ledger = Ledger(database)
        options = PageOptions(lambda: RETURN_URL, invoices=False, automatic_tax=tax, receipt_mail=True)
        self.stripe = Stripe(KEY, url=url, options=options) if url else None
        self.checkouts = Checkouts(database, self.ledger, self.stripe, terms=TERMS, lifetime=lifetime)
        self.counts = self.checkouts.counts
        self.reconciler: Reconciler
        self.url = ""

    async def start(self) -> None:
        """Serve."""
        self.ledger.start(sweep=False)
        checkouts = self.checkouts
        webhook = Webhook(checkouts.receive, [SIGNING], self.counts)
        pages = Starlette(routes=[webhook.route, returning(checkouts.get)])
        self._web = WebServer(pages, "127.0.0.1", self._port)
        await self._web.start()
        self.url = f"http://127.0.0.1:{self._web.port}{PATH}"
        if self.stripe is not None:
            # The rounds of a server's own begin by its clock; a test begins these itself.
            given = (self.database, self.ledger, self.stripe)
            receiver = Receiver(*given, self.counts, lambda _wallet_id, _token: None)
            self.reconciler = Reconciler(*given, receiver, Refunds(*given), counts=self.counts)

    async def stop(self) -> None:
        """Stop serving."""
        await self.checkouts.stop()
        await self._web.stop()
        self._web.close()
        await self.checkouts.aclose()
        await self.ledger.stop()
        self.database.close()


class House:
    """One server or several on one database, and an event loop to run them on. The first one is asked."""

    def __init__(self, till: Till, *shops: Shop) -> None:
        self.till = till
        self.shops = shops
        self._loops = asyncio.Runner()
        for shop in shops:
            self.do(shop.start())
        self.send_webhooks()

    @property
    def shop(self) -> Shop:
        """The first server."""
        return self.shops[0]

    @property
    def checkouts(self) -> Checkouts:
        """The first server's checkouts."""
        return self.shops[0].checkouts

    def send_webhooks(self) -> None:
        """Have the sandbox tell every server everything."""
        sent = [{"url": shop.url, "secrets": [SIGNING], "types": ["*"]} for shop in self.shops]
        self.till.tell("webhooks", endpoints=sent)

    def do(self, work: Coroutine[object, object, T]) -> T:
        """Have work done on the event loop, within a time."""
        return self._loops.run(asyncio.wait_for(work, SECONDS))

    def close(self) -> None:
        """Stop everything."""
        self.till.tell("webhooks", endpoints=[])
        for shop in self.shops:
            self.do(shop.stop())
        self._loops.close()

    # Accounts

    def account(self, grant_micros: int = 0) -> int:
        """A new account, with credits or without."""
        return self.do(account(self.shop.ledger, grant_micros))

    def wallet(self, account_id: int) -> WalletFacts:
        """The account's wallet now."""
        return self.do(self.shop.ledger.wallet(account_id))

    def balance(self, account_id: int) -> int:
        """What is in the wallet."""
        return self.wallet(account_id).balance_micros

    def rest(self, account_id: int) -> Rest:
        """What the wallet is left with, and whether the books are right."""
        wallet = self.wallet(account_id)
        return Rest(wallet.balance_micros, wallet.held_micros, wallet.debt_micros, self.problems())

    def problems(self) -> list[str]:
        """What the audit finds."""
        return audit.audit(self.shop.database).problems

    def hold(self, account_id: int, micros: int, *, ttl: int | None = None) -> int:
        """Reserve; the reservation's number."""
        return self.do(hold(self.shop.ledger, account_id, micros, ttl=ttl))

    def release(self, account_id: int, reservation: int) -> None:
        """Give a hold back."""
        self.do(self.shop.ledger.submit(Release(**_attempt(account_id), reservation=reservation)))

    def capture(self, account_id: int, reservation: int, micros: int) -> None:
        """Charge a hold."""
        self.do(self.shop.ledger.submit(captured(account_id, reservation, micros)))

    def spend(self, account_id: int, micros: int) -> None:
        """Reserve and charge."""
        self.capture(account_id, self.hold(account_id, micros), micros)

    # Purchases

    def buy(self, account_id: int, dollars: float = 50, key: str = "") -> Purchase:
        """Begin a purchase."""
        return self.do(buy(self.checkouts, account_id, dollars, key))[0]

    def refused(self, account_id: int, dollars: float = 50, key: str = "") -> Refusal:
        """The refusal that beginning a purchase gets."""
        with pytest.raises(Refusal) as raised:
            self.buy(account_id, dollars, key)
        return raised.value

    def bought(self, account_id: int, dollars: float = 50, **more: object) -> Purchase:
        """A purchase that is paid and credited."""
        purchase = self.buy(account_id, dollars)
        self.till.pay(purchase, **more)
        self.delivered()
        return self.now(purchase)

    def now(self, purchase: Purchase) -> Purchase:
        """How a purchase stands."""
        return self.do(self.checkouts.get(purchase.wallet_id, purchase.token))

    def refund(self, purchase: Purchase, dollars: float = 0, key: str = "") -> tuple[RefundRequest, bool]:
        """Have the operator give money back; 0 is all that is left."""
        return self.do(self.checkouts.refunds.ask(wanted(purchase, dollars, key)))

    def refund_refused(self, purchase: Purchase, dollars: float = 0, key: str = "") -> Refusal:
        """The refusal that the operator gets."""
        with pytest.raises(Refusal) as raised:
            self.refund(purchase, dollars, key)
        return raised.value

    # What Stripe tells

    def delivered(self) -> None:
        """Work until every event is delivered."""
        assert self.do(asyncio.to_thread(self.till.waiting)) == 0

    def receive(self, *events: Event) -> list[Standing | None]:
        """Take events, one after the other."""

        async def received() -> list[Standing | None]:
            return [await self.checkouts.receive(event) for event in events]

        return self.do(received())

    def poll(self) -> None:
        """One round of the poller."""
        self.do(self.shop.reconciler.poll())

    def reconcile(self) -> int:
        """One round of the reconciliation; how many events were new."""
        return self.do(self.shop.reconciler.reconcile())

    def inbox(self, *columns: str) -> list[tuple[Any, ...]]:
        """What was told, in the order in which it was written."""
        return self.select(f"SELECT {', '.join(columns or ('type', 'standing'))} FROM inbox ORDER BY number")

    def standings(self) -> list[str]:
        """What became of each event."""
        return [Standing(standing).name for (standing,) in self.inbox("standing")]

    def select(self, query: str, **values: object) -> list[tuple[Any, ...]]:
        """What is stored."""
        return self.do(
            self.shop.database.read(
                lambda connection: [tuple(r) for r in connection.execute(text(query), values)]
            )
        )

    def lots(self, account_id: int) -> list[Lot]:
        """All lots of an account, open and closed, by their numbers."""
        [wallet] = self.select(
            f"SELECT {listed(WALLET_COLUMNS)} FROM wallets WHERE wallet_id = :w", w=account_id
        )
        closed = self.select("SELECT * FROM lots WHERE wallet_id = :w", w=account_id)
        lots = [*wallet_of(wallet).lots.values(), *(lot_of(row[1:]) for row in closed)]
        return sorted(lots, key=lambda lot: lot.number)

    def sql(self, statement: str, **values: object) -> None:
        """Change rows behind everybody's back."""

        def change(connection: Any, _now: int) -> None:
            connection.execute(text(statement), values)

        self.do(self.shop.ledger.write(change))

    def until(self, condition: Callable[[], bool]) -> None:
        """Work until something is so."""

        async def come_about() -> None:
            while not condition():  # noqa: ASYNC110 - what is waited for is elsewhere
                await asyncio.sleep(0.01)

        self.do(come_about())


def _attempt(account_id: int) -> dict[str, Any]:
    return {"wallet_id": account_id, "caller": account_id, "idempotency_key": uuid.uuid4().hex}


async def account(ledger: Ledger, grant_micros: int = 0) -> int:
    """A new account."""
    account_id = new_account_id()
    await ledger.write(lambda connection, _now: open_account(connection, account_id))
    opening = OpenWallet(
        wallet_id=account_id, caller=SERVER, idempotency_key="sign-up", grant_micros=grant_micros
    )
    await ledger.submit(opening)
    return account_id


async def hold(ledger: Ledger, account_id: int, micros: int, *, ttl: int | None = None) -> int:
    """Reserve; the reservation's number."""
    reserve = Reserve(
        **_attempt(account_id),
        amount_micros=micros,
        opener=account_id,
        api_key_id="k",
        ttl=DEFAULT_TTL if ttl is None else ttl,
    )
    held = (await ledger.submit(reserve)).reservation
    assert held is not None
    return held.number


def captured(account_id: int, reservation: int, micros: int) -> Commit:
    """Charge a hold."""
    return Commit(**_attempt(account_id), reservation=reservation, amount_micros=micros)


async def buy(
    checkouts: Checkouts, account_id: int, dollars: float = 50, key: str = "", api_key_id: str = "k"
) -> tuple[Purchase, bool]:
    """Begin a purchase."""
    return await checkouts.create(
        account_id,
        api_key_id=api_key_id,
        amount_micros=micros_of(dollars),
        idempotency_key=key or uuid.uuid4().hex,
    )


def wanted(purchase: Purchase, dollars: float = 0, key: str = "") -> Wanted:
    """A refund as the operator asks for it."""
    return Wanted(
        wallet_id=purchase.wallet_id,
        token=purchase.token,
        amount_micros=micros_of(dollars),
        note=NOTE,
        caller=SERVER,
        idempotency_key=key or uuid.uuid4().hex,
    )


def micros_of(dollars: float) -> int:
    """Dollars with cents, as a test writes them."""
    return round(dollars * 100) * 10_000


def now_clock() -> Clock:
    """A clock that stands at the present, until the test moves it."""
    clock = Clock()
    clock.now = time.time_ns() // 1_000
    return clock


def reference(purchase: Purchase) -> str:
    """The purchase's id, as Stripe is told it."""
    return rows.reference(purchase.wallet_id, purchase.token)


def event(kind: str, about: dict[str, Any], event_id: str = "") -> Event:
    """An event about an object, as it would be told."""
    content = {"id": event_id or f"evt_{uuid.uuid4().hex}", "type": kind, "data": {"object": about}}
    return words.event_of(content)
