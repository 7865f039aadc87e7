"""The pages of the sandbox of Stripe: where a customer pays a session, and the receipt of a charge.

They work without scripts. No form-action is among the policies: browsers apply it to the redirect after a
form, too, and that one leads to the seller.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from oanim_server.sandbox.stripe_forms import Refused, Thing

if TYPE_CHECKING:
    from starlette.requests import Request

    from oanim_server.sandbox.stripe_account import Account

_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1f36; background: #fff }
.sandbox { border: 1px solid #b45309; background: #fffbeb; padding: .5rem 1rem }
table { width: 100%; border-collapse: collapse }
th, td { text-align: left; padding: .4rem 0; border-bottom: 1px solid #d1d5db }
td:last-child, th:last-child { text-align: right }
[role=alert] { border: 1px solid #b91c1c; background: #fef2f2; padding: .5rem 1rem }
input, button { font: inherit; padding: .5rem 1rem; box-sizing: border-box }
input { width: 100% }
button { margin: .25rem .25rem .25rem 0; border: 1px solid #1a1f36; background: #fff; cursor: pointer }
button[value=pay] { background: #4338ca; border-color: #4338ca; color: #fff }
:focus-visible { outline: 3px solid #f59e0b; outline-offset: 2px }
"""


class Pages:
    def __init__(self, account: Account) -> None:
        self._account = account
        self.routes = [
            Route("/", self._front, methods=["GET"]),
            Route("/pay/{session}", self._show, methods=["GET"]),
            Route("/pay/{session}", self._act, methods=["POST"]),
            Route("/receipts/{charge}", self._receipt, methods=["GET"]),
        ]

    async def _front(self, _request: Request) -> Response:
        return _page("Stripe sandbox", "<p>Sessions are paid at the address that they are made with.</p>")

    async def _show(self, request: Request) -> Response:
        session = self._find(request)
        return self._checkout(session) if session else _nothing()

    async def _act(self, request: Request) -> Response:
        session = self._find(request)
        if session is None:
            return _nothing()
        fields = parse_qs((await request.body()).decode(errors="replace"))
        action, email = ((fields.get(name) or [""])[0].strip() for name in ("action", "email"))
        if session["status"] != "open":
            return RedirectResponse(f"/pay/{session['id']}", 303, _HEADERS)
        if action == "abandon":
            where = session["cancel_url"]
            return _leave(session, where) if where else self._checkout(session, "There is no way back.")
        checkout, methods = self._account.checkout, self._account.methods
        try:
            match action:
                case "pay":
                    checkout.pay(session["id"], methods.find("pm_card_visa"), email)
                case "decline":
                    checkout.pay(session["id"], methods.find("pm_card_chargeDeclined"), email)
                case "later":
                    checkout.pay_later(session["id"], email)
                case _:
                    return self._checkout(session, "Choose one of the buttons.", status=400)
        except Refused as error:
            return self._checkout(session, f"{error} Nothing was paid.", status=402)
        return _leave(session, session["success_url"])

    async def _receipt(self, request: Request) -> Response:
        try:
            charge = self._account.objects.get("charge", request.path_params["charge"])
        except Refused:
            return _nothing()
        amounts = {"Paid": charge["amount"], "Given back": charge["amount_refunded"]}
        rows = "".join(_row(name, money(amount, charge["currency"])) for name, amount in amounts.items())
        return _page(f"Receipt {charge['id']}", f"<table>{rows}</table>")

    def _find(self, request: Request) -> Thing | None:
        try:
            return self._account.checkout.get(request.path_params["session"])
        except Refused:
            return None

    def _checkout(self, session: Thing, problem: str = "", *, status: int = 200) -> Response:
        if session["status"] == "expired":
            return _page("This session has expired", "<p>Nothing was paid. Start again at the shop.</p>")
        if session["status"] == "complete":
            back = escape(_success(session), quote=True)
            return _page("You are all done here", f'<p><a href="{back}">Go back to the shop</a></p>')
        tax = self._account.checkout.tax(session)
        currency = session["currency"]
        rows = [
            _row(f"{line['quantity']} x {line['description']}", money(line["amount_subtotal"], currency))
            for line in self._account.checkout.lines(session["id"])
        ]
        if tax:
            rows.append(_row("Tax (10 %, made up)", money(tax, currency)))
        total = money(session["amount_subtotal"] + tax, currency)
        rows.append(_row("Total", total))
        alert = f'<p role="alert">{escape(problem)}</p>' if problem else ""
        # An address that the seller knows is not for the customer to change.
        fixed = " readonly" if session["customer_email"] else ""
        email = escape(session["customer_email"] or "", quote=True)
        return _page(
            f"Pay {total}",
            f"""{alert}
<table>{"".join(rows)}</table>
<form method="post">
<p><label for="email">E-mail</label>
<input id="email" name="email" type="email" autocomplete="email" value="{email}"{fixed}></p>
<p><button name="action" value="pay">Pay {escape(total)}</button>
<button name="action" value="decline">Pay with a card that is declined</button>
<button name="action" value="later">Pay later</button>
<button name="action" value="abandon">Abandon</button></p>
</form>""",
            status=status,
        )


def money(amount: int, currency: str) -> str:
    """Write cents with the currency's code."""
    whole, cents = divmod(amount, 100)
    return f"{whole:,}.{cents:02} {currency.upper()}"


def _success(session: Thing) -> str:
    where: str = session["success_url"]
    return where.replace("{CHECKOUT_SESSION_ID}", session["id"])


def _leave(session: Thing, where: str) -> Response:
    return RedirectResponse(where.replace("{CHECKOUT_SESSION_ID}", session["id"]), 303, _HEADERS)


def _row(name: str, value: str) -> str:
    return f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'


def _nothing() -> Response:
    return _page("There is nothing here", "<p>The sandbox knows no such page.</p>", status=404)


def _page(title: str, content: str, *, status: int = 200) -> Response:
    return HTMLResponse(
        f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{_STYLE}</style></head>
<body><main>
<p class="sandbox">This is a sandbox in place of Stripe: no money moves.</p>
<h1>{escape(title)}</h1>
{content}
</main></body>
</html>
""",
        status,
        _HEADERS,
    )
