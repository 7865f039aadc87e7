"""Customers, products and prices: things that are made, changed, listed and deleted, and do nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim_server.sandbox.stripe_forms import BadParameter, Params, Refused, Thing
from oanim_server.sandbox.stripe_objects import change, merge_metadata

if TYPE_CHECKING:
    from oanim_server.sandbox.stripe_objects import Objects

_CUSTOMER = ("address", "description", "email", "metadata", "name", "phone", "shipping")
_PRODUCT = ("active", "description", "metadata", "name", "tax_code")
_PRICE = (
    "active",
    "currency",
    "metadata",
    "nickname",
    "product",
    "product_data",
    "recurring",
    "tax_behavior",
    "unit_amount",
)
# Cents, for the whole of a session.
_LEAST = 50
_MOST = 99_999_999


class Catalog:
    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def create_customer(self, params: Params) -> Thing:
        params.only(_CUSTOMER)
        texts = {name: params.text(name) for name in ("description", "email", "name", "phone")}
        given = {name: params.inside(name).raw() or None for name in ("address", "shipping")}
        customer = self._objects.add("customer", {**texts, **given, "metadata": params.metadata()})
        self._objects.emit("customer.created", customer)
        return customer

    def update_customer(self, params: Params, customer_id: str) -> Thing:
        params.only((*_CUSTOMER, "invoice_settings"))
        return self._updated("customer", customer_id, params, ("description", "email", "name", "phone"))

    def create_product(self, params: Params) -> Thing:
        params.only(_PRODUCT)
        product = self._product(params)
        self._objects.emit("product.created", product)
        return product

    def update_product(self, params: Params, product_id: str) -> Thing:
        params.only(_PRODUCT)
        return self._updated("product", product_id, params, ("description", "name"))

    def create_price(self, params: Params) -> Thing:
        params.only(_PRICE)
        price = self.price(params)
        self._objects.emit("price.created", price)
        return price

    def update_price(self, params: Params, price_id: str) -> Thing:
        params.only(("active", "metadata", "nickname"))
        return self._updated("price", price_id, params, ("nickname",))

    def delete(self, kind: str, identity: str) -> Thing:
        """Delete a customer or a product; it is gone from then on."""
        thing = self._objects.get(kind, identity)
        self._objects.emit(f"{kind}.deleted", thing)
        thing["deleted"] = True
        return {"id": identity, "object": kind, "deleted": True}

    def price(self, params: Params) -> Thing:
        """Make a price of `price` parameters or of a line's `price_data`; it names no event of its own."""
        if ("product" in params) == ("product_data" in params):
            raise BadParameter(
                f"Name one of {params.name('product')} and {params.name('product_data')}",
                code="parameter_missing",
                param=params.name("product"),
            )
        if "product" in params:
            product = self._objects.get("product", params.needed("product"), params.name("product"))
        else:
            product = self._product(params.inside("product_data"))
        recurring = params.inside("recurring").raw() or None
        return self._objects.add(
            "price",
            {
                "active": params.flag("active", default=True),
                "billing_scheme": "per_unit",
                "currency": params.currency(),
                "metadata": params.metadata(),
                "nickname": params.text("nickname"),
                "product": product["id"],
                "recurring": recurring,
                "tax_behavior": params.choice(
                    "tax_behavior", ("exclusive", "inclusive", "unspecified"), "unspecified"
                ),
                "type": "recurring" if recurring else "one_time",
                "unit_amount": params.integer("unit_amount"),
            },
        )

    def line(self, params: Params) -> Thing:
        """Make one line of a session, of a price that there is or of a price of its own."""
        params.only(("price", "price_data", "quantity"))
        if "price" in params:
            price = self._objects.get("price", params.needed("price"), params.name("price"))
            if not price["active"]:
                raise Refused(
                    "The price specified is inactive.", code="price_inactive", param=params.name("price")
                )
        else:
            data = params.inside("price_data")
            data.only(("currency", "product", "product_data", "tax_behavior", "unit_amount"))
            data.inside("product_data").only(("description", "metadata", "name", "tax_code"))
            price = self.price(data)
            # A price of a session's own cannot be used again.
            price["active"] = False
        if price["recurring"]:
            raise Refused("You must provide one-time prices in payment mode.", param=params.name("price"))
        quantity = params.integer("quantity", least=1, most=999_999)
        amount = price["unit_amount"] * quantity
        return self._objects.add(
            "line_item",
            {
                "amount_discount": 0,
                "amount_subtotal": amount,
                "amount_tax": 0,
                "amount_total": amount,
                "currency": price["currency"],
                "description": self._objects.get("product", price["product"])["name"],
                "price": price,
                "quantity": quantity,
            },
        )

    def _product(self, params: Params) -> Thing:
        return self._objects.add(
            "product",
            {
                "active": params.flag("active", default=True),
                "description": params.text("description"),
                "metadata": params.metadata(),
                "name": params.needed("name"),
                "tax_code": params.text("tax_code"),
            },
        )

    def _updated(self, kind: str, identity: str, params: Params, texts: tuple[str, ...]) -> Thing:
        thing = self._objects.get(kind, identity)
        before = change(thing, **{name: params.text(name) for name in texts if name in params.raw()})
        before |= merge_metadata(thing, params)
        if "active" in params:
            before |= change(thing, active=params.flag("active"))
        if before:
            self._objects.emit(f"{kind}.updated", thing, before)
        return thing


def subtotal(lines: list[Thing]) -> int:
    """Add lines up. Raises when nobody may be charged so much, or so little."""
    if not lines:
        raise BadParameter(
            "Missing required param: line_items.", code="parameter_missing", param="line_items"
        )
    if len({line["currency"] for line in lines}) > 1:
        raise Refused("All prices must have the same currency.", param="line_items")
    amount: int = sum(line["amount_subtotal"] for line in lines)
    if amount < _LEAST:
        message = "The Checkout Session's total amount due must add up to at least $0.50 usd"
        raise Refused(message, code="amount_too_small")
    if amount > _MOST:
        raise Refused("The total amount due must be no more than $999,999.99 usd", code="amount_too_large")
    return amount
