"""CheckoutService: the contract's words to checkout, and its values back."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from oanim_server.checkout.rules import counts, taken
from oanim_server.checkout.values import State
from oanim_server.ledger.values import MAX_AMOUNT_MICROS
from oanim_server.rpc import messages, shape
from openanimate.metering.v1 import checkout_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from oanim_server.checkout.checkouts import Checkouts
    from oanim_server.checkout.values import Purchase, Receipt
    from oanim_server.ledger.ledger import Ledger
    from oanim_server.rpc.call import Call

# Whether Stripe has made the page yet is nobody's concern but ours.
_STATES = {
    State.CREATING: pb.CHECKOUT_STATE_OPEN,
    State.OPEN: pb.CHECKOUT_STATE_OPEN,
    State.PROCESSING: pb.CHECKOUT_STATE_PROCESSING,
    State.PAID: pb.CHECKOUT_STATE_PAID,
    State.EXPIRED: pb.CHECKOUT_STATE_EXPIRED,
    State.FAILED: pb.CHECKOUT_STATE_FAILED,
}


class CheckoutServicer:
    """Answers CheckoutService."""

    def __init__(self, checkouts: Checkouts, ledger: Ledger) -> None:
        self._checkouts = checkouts
        self._ledger = ledger

    async def CreateCheckout(
        self, request: pb.CreateCheckoutRequest, call: Call
    ) -> pb.CreateCheckoutResponse:
        purchase, replayed = await self._checkouts.create(
            call.caller.account_id,
            api_key_id=call.caller.key_id,
            amount_micros=shape.amount("amount_micros", request.amount_micros),
            idempotency_key=shape.idempotency_key(request.idempotency_key),
        )
        return pb.CreateCheckoutResponse(checkout=_checkout(purchase), replayed=replayed)

    async def GetCheckout(self, request: pb.GetCheckoutRequest, call: Call) -> pb.GetCheckoutResponse:
        wallet_id, token = call.checkout(request.checkout_id)
        purchase = await self._checkouts.get(wallet_id, token)
        wallet = await self._ledger.wallet(wallet_id)
        return pb.GetCheckoutResponse(checkout=_checkout(purchase), wallet=messages.wallet(wallet))

    async def WatchCheckout(
        self, request: pb.WatchCheckoutRequest, call: Call
    ) -> AsyncGenerator[pb.WatchCheckoutResponse]:
        wallet_id, token = call.checkout(request.checkout_id)
        async with aclosing(self._checkouts.watch(wallet_id, token)) as states:
            async for purchase in states:
                wallet = await self._ledger.wallet(wallet_id)
                yield pb.WatchCheckoutResponse(checkout=_checkout(purchase), wallet=messages.wallet(wallet))

    async def ListPurchases(self, request: pb.ListPurchasesRequest, call: Call) -> pb.ListPurchasesResponse:
        limit = shape.page_size(request.page_size)
        found = await self._checkouts.page(
            call.account(request.account_id), before=shape.page_before(request.page_token), limit=limit + 1
        )
        return pb.ListPurchasesResponse(
            purchases=map(_checkout, found[:limit]),
            next_page_token=shape.next_page([purchase.credit for purchase in found], limit),
        )

    async def GetReceipt(self, request: pb.GetReceiptRequest, call: Call) -> pb.GetReceiptResponse:
        receipt, email = await self._checkouts.receipt(*call.checkout(request.checkout_id))
        return pb.GetReceiptResponse(receipt=_receipt(receipt, email))


def _checkout(purchase: Purchase) -> pb.Checkout:
    account = messages.account_text(purchase.wallet_id)
    return pb.Checkout(
        checkout_id=f"{account}-{purchase.token}",
        account_id=account,
        state=_STATES[purchase.state],
        amount_micros=purchase.amount_micros,
        bonus_micros=purchase.bonus_micros,
        credits_micros=purchase.credits_micros,
        url=purchase.url if purchase.state is State.OPEN else "",
        created_at=messages.timestamp(purchase.created_at),
        expires_at=messages.timestamp(purchase.expires_at),
        credited_at=messages.maybe_timestamp(purchase.credited_at),
        reversed_micros=purchase.reversed_micros,
    )


def _receipt(receipt: Receipt, email: str) -> pb.Receipt:
    purchase = receipt.purchase
    reversals = [
        (
            refund.first_seen_at,
            pb.Reversal(
                kind=pb.REVERSAL_KIND_REFUND,
                provider_id=refund.refund_id,
                amount_micros=min(refund.amount_micros, MAX_AMOUNT_MICROS),
                state=refund.state,
                counts=counts(refund),
            ),
        )
        for refund in receipt.refunds
    ]
    reversals += [
        (
            dispute.first_seen_at,
            pb.Reversal(
                kind=pb.REVERSAL_KIND_DISPUTE,
                provider_id=dispute.dispute_id,
                amount_micros=min(dispute.amount_micros, MAX_AMOUNT_MICROS),
                state=dispute.state,
                counts=taken(dispute),
            ),
        )
        for dispute in receipt.disputes
    ]
    reversals.sort(key=lambda reversal: reversal[0])
    return pb.Receipt(
        purchase=_checkout(purchase),
        email=email,
        paid_micros=purchase.paid_micros,
        tax_micros=purchase.tax_micros,
        receipt_url=purchase.receipt_url,
        reversals=[reversal for _, reversal in reversals],
    )
