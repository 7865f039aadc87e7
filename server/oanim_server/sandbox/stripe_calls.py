"""The calls of Stripe's API that the sandbox answers: a table of method, path and what does it."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from oanim_server.sandbox.stripe_forms import BadParameter, Params, Refused, Thing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from oanim_server.sandbox.stripe_account import Account

    # Method, path, and what takes the parameters, then the ids in the path.
    Call = tuple[str, str, Callable[..., Thing]]

_PAGING = ("created", "ending_before", "limit", "starting_after")
_MOST_TYPES = 20


def calls(account: Account) -> list[Call]:
    """Every call, each with its method and path."""
    checkout, payments, reversals = account.checkout, account.payments, account.reversals
    catalog, methods, webhooks = account.catalog, account.methods, account.webhooks
    return [
        *_read(
            account, "checkout.session", "/v1/checkout/sessions", ("customer", "payment_intent", "status")
        ),
        ("POST", "/v1/checkout/sessions", checkout.create),
        ("POST", "/v1/checkout/sessions/{id}", checkout.update),
        ("POST", "/v1/checkout/sessions/{id}/expire", checkout.expire),
        ("GET", "/v1/checkout/sessions/{id}/line_items", lambda *asked: _lines(account, *asked)),
        *_read(account, "payment_intent", "/v1/payment_intents", ("customer",)),
        ("POST", "/v1/payment_intents", payments.create),
        ("POST", "/v1/payment_intents/{id}", payments.update),
        ("POST", "/v1/payment_intents/{id}/cancel", payments.cancel),
        ("POST", "/v1/payment_intents/{id}/capture", payments.capture),
        ("POST", "/v1/payment_intents/{id}/confirm", payments.confirm),
        *_read(account, "charge", "/v1/charges", ("customer", "payment_intent")),
        *_read(account, "balance_transaction", "/v1/balance_transactions", ("source", "type")),
        *_read(account, "invoice", "/v1/invoices", ("customer", "status")),
        *_read(account, "refund", "/v1/refunds", ("charge", "payment_intent")),
        ("POST", "/v1/refunds", reversals.create_refund),
        ("POST", "/v1/refunds/{id}", reversals.update_refund),
        ("POST", "/v1/refunds/{id}/cancel", reversals.cancel_refund),
        *_read(account, "dispute", "/v1/disputes", ("charge", "payment_intent")),
        ("POST", "/v1/disputes/{id}", reversals.update_dispute),
        ("POST", "/v1/disputes/{id}/close", reversals.accept_dispute),
        ("GET", "/v1/events", lambda params: _events(account, params)),
        ("GET", "/v1/events/{id}", lambda params, identity: _one(account, "event", params, identity)),
        *_read(account, "customer", "/v1/customers", ("email",)),
        ("POST", "/v1/customers", catalog.create_customer),
        ("POST", "/v1/customers/{id}", catalog.update_customer),
        ("DELETE", "/v1/customers/{id}", lambda _params, identity: catalog.delete("customer", identity)),
        ("GET", "/v1/customers/{id}/payment_methods", lambda *asked: _methods_of(account, *asked)),
        *_read(account, "product", "/v1/products", ()),
        ("POST", "/v1/products", catalog.create_product),
        ("POST", "/v1/products/{id}", catalog.update_product),
        ("DELETE", "/v1/products/{id}", lambda _params, identity: catalog.delete("product", identity)),
        *_read(account, "price", "/v1/prices", ("currency", "product")),
        ("POST", "/v1/prices", catalog.create_price),
        ("POST", "/v1/prices/{id}", catalog.update_price),
        *_read(account, "payment_method", "/v1/payment_methods", ("customer", "type")),
        ("POST", "/v1/payment_methods", methods.create),
        ("POST", "/v1/payment_methods/{id}", methods.update),
        ("POST", "/v1/payment_methods/{id}/attach", methods.attach),
        ("POST", "/v1/payment_methods/{id}/detach", methods.detach),
        *_read(account, "setup_intent", "/v1/setup_intents", ("customer", "payment_method")),
        ("POST", "/v1/setup_intents", methods.create_setup),
        ("POST", "/v1/setup_intents/{id}/cancel", methods.cancel_setup),
        ("POST", "/v1/setup_intents/{id}/confirm", methods.confirm_setup),
        *_read(account, "webhook_endpoint", "/v1/webhook_endpoints", ()),
        ("POST", "/v1/webhook_endpoints", webhooks.create),
        ("POST", "/v1/webhook_endpoints/{id}", webhooks.update),
        ("DELETE", "/v1/webhook_endpoints/{id}", webhooks.delete),
        # Stripe's own pay page talks to these, and so do the fixtures of Stripe's CLI.
        ("GET", "/v1/payment_pages/{id}", lambda *asked: _payment_page(account, *asked)),
        ("POST", "/v1/payment_pages/{id}/confirm", lambda *asked: _confirm_page(account, *asked)),
    ]


def _read(account: Account, kind: str, path: str, same: Iterable[str]) -> list[Call]:
    """Retrieve one, and list them all or those whose fields are the `same`."""

    def some(params: Params) -> Thing:
        params.only((*_PAGING, *same))
        return account.objects.page(kind, params, path, same)

    return [
        ("GET", path, some),
        ("GET", f"{path}/{{id}}", lambda params, identity: _one(account, kind, params, identity)),
    ]


def _one(account: Account, kind: str, params: Params, identity: str) -> Thing:
    params.only(())
    if kind == "customer" and account.objects.is_deleted(kind, identity):
        # Of customers alone Stripe remembers that they were.
        return {"id": identity, "object": kind, "deleted": True}
    return account.objects.get(kind, identity)


def _events(account: Account, params: Params) -> Thing:
    params.only((*_PAGING, "type", "types"))
    types = params.texts("types")
    if types and "type" in params:
        raise BadParameter("You may only specify one of these parameters: type, types.", param="types")
    if len(types) > _MOST_TYPES:
        raise BadParameter(f"Array types exceeded maximum {_MOST_TYPES} allowed elements.", param="types")
    kind = params.text("type")
    patterns = [kind] if kind else types
    found = [
        event
        for event in account.objects.all("event")[::-1]
        if not patterns or any(fnmatchcase(event["type"], pattern) for pattern in patterns)
    ]
    return account.objects.paged(found, params, "/v1/events")


def _lines(account: Account, params: Params, identity: str) -> Thing:
    params.only(_PAGING)
    lines = account.checkout.lines(identity)
    return account.objects.paged(lines, params, f"/v1/checkout/sessions/{identity}/line_items")


def _methods_of(account: Account, params: Params, identity: str) -> Thing:
    params.only((*_PAGING, "type"))
    account.objects.get("customer", identity)
    asked = Params({**params.raw(), "customer": identity})
    where = f"/v1/customers/{identity}/payment_methods"
    return account.objects.page("payment_method", asked, where, ("customer", "type"))


def _payment_page(account: Account, _params: Params, identity: str) -> Thing:
    session = account.checkout.get(identity)
    return {"id": session["id"], "object": "checkout.session", "session_id": identity, **session}


def _confirm_page(account: Account, params: Params, identity: str) -> Thing:
    session = account.checkout.get(identity)
    amount = session["amount_subtotal"] + account.checkout.tax(session)
    if params.integer("expected_amount", amount) != amount:
        raise Refused("The amount is another one.", code="checkout_amount_mismatch", param="expected_amount")
    method = account.methods.find(params.needed("payment_method"))
    return account.checkout.pay(identity, method, method["billing_details"]["email"])
