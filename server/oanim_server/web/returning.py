"""The page that a customer comes back to from Stripe's: paid, cancelled, or still waiting.

It shows how our own row stands, whatever the address claims, and nothing of the request but the id that was
found. Who has the id, 24 letters and digits of chance, may see it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse
from starlette.routing import Route

from oanim_server.checkout.rows import reference, reference_of
from oanim_server.checkout.values import MICROS_PER_CENT, State
from oanim_server.database.engine import is_away
from oanim_server.ledger.refusals import NotFound
from oanim_server.ledger.values import MICROS_PER_USD

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from oanim_server.checkout.values import Purchase

_TEMPLATES = Environment(loader=PackageLoader("oanim_server.web"), autoescape=True, undefined=StrictUndefined)
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_AWAY = {
    "title": "Not now",
    "message": "We cannot look at the moment. What was paid is not lost: this page looks again by itself.",
    "waiting": True,
}
_EMPTY = {"waiting": False, "pay_url": "", "next_step": "", "checkout_id": ""}


def returning(get: Callable[[int, str], Awaitable[Purchase]]) -> Route:
    """The page's route. `get` answers a purchase, or raises NotFound."""

    async def show(request: Request) -> Response:
        named = reference_of(request.path_params["checkout_id"])
        try:
            purchase = await get(*named) if named is not None else None
        except NotFound:
            purchase = None
        except Exception as error:
            if is_away(error):
                return _page(503, **_AWAY)
            raise
        if purchase is None:
            return _page(404, title="No such purchase", message="Look at the address again.")
        return _page(200, **_shown(purchase, cancelled="cancelled" in request.query_params))

    return Route("/checkout/{checkout_id:str}", show, methods=["GET"])


def _shown(purchase: Purchase, *, cancelled: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {"checkout_id": reference(purchase.wallet_id, purchase.token)}
    if purchase.state is State.PAID:
        message = f"{_usd(purchase.credits_micros)} of credits are in your account. You can close this page."
        if purchase.reversed_micros:
            message = (
                f"{_usd(purchase.credits_micros)} of credits came in, and {_usd(purchase.reversed_micros)} "
                "of them went back with a refund or a dispute."
            )
        return shown | {"title": "Paid", "message": message, "next_step": "oanim billing"}
    if purchase.state in (State.EXPIRED, State.FAILED):
        why = "took too long" if purchase.state is State.EXPIRED else "did not go through"
        return shown | {
            "title": "Not paid",
            "message": f"The payment {why}. Nothing was charged.",
            "next_step": f"oanim billing buy --amount {_amount(purchase.amount_micros)}",
        }
    if purchase.state is State.PROCESSING:
        return shown | {
            "title": "On its way",
            "message": "Your bank takes its time. The credits come when the money does.",
            "next_step": "oanim billing",
        }
    if cancelled:
        return shown | {
            "title": "Cancelled",
            "message": "Nothing was charged.",
            "pay_url": purchase.url,
        }
    return shown | {
        "title": "Still waiting",
        "message": "We wait for the word that the payment went through. This page looks again by itself.",
        "waiting": True,
    }


def _usd(micros: int) -> str:
    dollars, rest = divmod(micros, MICROS_PER_USD)
    return f"${dollars:,}.{rest // MICROS_PER_CENT:02}"


def _amount(micros: int) -> str:
    """An amount as a command takes it."""
    dollars, rest = divmod(micros, MICROS_PER_USD)
    return f"{dollars}.{rest // MICROS_PER_CENT:02}" if rest else str(dollars)


def _page(status_code: int, **shown: Any) -> Response:
    text = _TEMPLATES.get_template("checkout.html").render(_EMPTY | shown)
    return HTMLResponse(text, status_code=status_code, headers=_HEADERS)
