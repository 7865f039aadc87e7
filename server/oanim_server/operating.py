"""The operator's commands: each is a call of AdminService on the local socket.

Where a server runs, it answers; where none does, the command opens the database, answers itself, and lets go.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

    from oanim_server.settings import Settings

_MICROS_PER_USD = 1_000_000
_MOST_USD = 1_000_000
_SMALLEST = Decimal("0.000001")


def ask(settings: Settings, method: str, request: Message) -> Any:
    """Make a call of AdminService, through the server that holds the database or without one.

    What leaves the outcome unknown, an interruption too, names the --key that repeats the call.

    :raises RefusedError: when it is refused.
    :raises DatabaseError: when the database cannot be used.
    :raises KeyboardInterrupt: with a sentence where the call has a key.
    """
    from oanim_server.rpc.local import NobodyThereError, RefusedError, UnansweredError
    from oanim_server.rpc.local import ask as ask_socket

    async def alone() -> Any:
        from oanim_server.app import operating

        async with operating(settings):
            return await asyncio.to_thread(ask_socket, settings.socket, method, request)

    # The commands whose calls have one have a --key.
    key = getattr(request, "idempotency_key", "")
    try:
        try:
            return ask_socket(settings.socket, method, request)
        except NobodyThereError:
            return asyncio.run(alone())
    except UnansweredError as error:
        raise RefusedError(f"{error} Add --key {key}" if key else str(error)) from None
    except KeyboardInterrupt:
        if not key:
            raise
        unknown = "Whether it was done is not known; the same key repeats it without doing it twice"
        raise KeyboardInterrupt(f"interrupted. {unknown}: add --key {key}") from None


@dataclass(frozen=True, slots=True)
class Operator:
    """What every command of the group needs: the call, and the sentences that refusals become."""

    ask: Callable[[str, Message], Any]


class Usd(click.ParamType[int]):
    """An amount in USD with at most six decimals, as micro-USD; above 0, or with `either_way` not 0."""

    name = "USD"

    def __init__(self, *, either_way: bool = False) -> None:
        self._either_way = either_way

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            amount = Decimal(value)
        except InvalidOperation:
            amount = Decimal("NaN")
        if not amount.is_finite() or abs(amount) > _MOST_USD or amount != amount.quantize(_SMALLEST):
            self.fail(f"{value!r} is no amount such as 12.50", param, ctx)
        if not amount or (amount < 0 and not self._either_way):
            self.fail(f"{value!r} must {'not be' if self._either_way else 'be above'} 0", param, ctx)
        return int(amount * _MICROS_PER_USD)


_operator = click.make_pass_decorator(Operator)
_reason = click.option("--reason", required=True, help="Why; it is kept with the row, and the owner sees it.")
_json = click.option("--json", "as_json", is_flag=True, help="Answer as one line of JSON.")
key_option = click.option("--key", help="The idempotency key of an earlier try, to repeat it.")
_most = click.option("-l", "--limit", type=click.IntRange(1, 1_000), default=20, help="How many at most.")


@click.group()
def admin() -> None:
    """Look after accounts: grants, corrections, refunds, freezes, and what needs a look."""


@admin.command()
@click.option("--email", default="", help="Only the account of this e-mail address.")
@_most
@_json
@_operator
def accounts(operator: Operator, email: str, limit: int, *, as_json: bool) -> None:
    """List accounts, newest first."""
    from openanimate.metering.v1.admin_service_pb2 import ListAccountsRequest

    answer = operator.ask("ListAccounts", ListAccountsRequest(email=email, page_size=limit))
    rows = [
        f"{found.account_id}  {found.email or found.name:32}  {_usd(found.wallet.balance_micros):>12}"
        f"{'  frozen' if found.wallet.frozen else ''}"
        f"{f'  owes {_usd(found.wallet.debt_micros)}' if found.wallet.debt_micros else ''}"
        for found in answer.accounts
    ]
    _say(answer, rows or ["No accounts."], as_json=as_json)


@admin.command()
@click.argument("account")
@click.option("--amount", type=Usd(), required=True, help="How much, in USD.")
@click.option("--expires-days", type=click.IntRange(1, 36_500), help="After how many days it lapses.")
@_reason
@key_option
@_json
@_operator
def grant(
    operator: Operator,
    account: str,
    amount: int,
    *,
    expires_days: int | None,
    reason: str,
    key: str | None,
    as_json: bool,
) -> None:
    """Give credits to ACCOUNT, an id or an e-mail address."""
    from openanimate.metering.v1.admin_service_pb2 import GrantCreditsRequest

    request = GrantCreditsRequest(
        account_id=_account_id(operator, account),
        amount_micros=amount,
        reason=reason,
        expires_after_days=expires_days or 0,
        idempotency_key=key or secrets.token_hex(16),
    )
    _say_wallet(operator.ask("GrantCredits", request), as_json=as_json)


@admin.command()
@click.argument("account")
@click.option(
    "--amount", type=Usd(either_way=True), required=True, help="The change in USD, as 1.50 or -1.50."
)
@_reason
@key_option
@_json
@_operator
def adjust(
    operator: Operator, account: str, amount: int, reason: str, key: str | None, *, as_json: bool
) -> None:
    """Correct the balance of ACCOUNT. Below zero it owes, and no work starts until that is paid."""
    from openanimate.metering.v1.admin_service_pb2 import AdjustBalanceRequest

    request = AdjustBalanceRequest(
        account_id=_account_id(operator, account),
        amount_micros=amount,
        reason=reason,
        idempotency_key=key or secrets.token_hex(16),
    )
    _say_wallet(operator.ask("AdjustBalance", request), as_json=as_json)


@admin.command()
@click.argument("account")
@_reason
@key_option
@_json
@_operator
def freeze(operator: Operator, account: str, reason: str, key: str | None, *, as_json: bool) -> None:
    """Stop ACCOUNT from starting work."""
    _freeze(operator, account, reason, key, frozen=True, as_json=as_json)


@admin.command()
@click.argument("account")
@_reason
@key_option
@_json
@_operator
def thaw(operator: Operator, account: str, reason: str, key: str | None, *, as_json: bool) -> None:
    """Let ACCOUNT start work again."""
    _freeze(operator, account, reason, key, frozen=False, as_json=as_json)


@admin.command()
@click.argument("purchase")
@click.option("--amount", type=Usd(), help="How much of what was paid; without it, all that is left.")
@_reason
@key_option
@_json
@_operator
def refund(
    operator: Operator, purchase: str, amount: int | None, reason: str, key: str | None, *, as_json: bool
) -> None:
    """Have Stripe give the money of PURCHASE back; its credits go when Stripe says that it is done."""
    from openanimate.metering.v1.admin_service_pb2 import RefundPurchaseRequest

    attempt = key or secrets.token_hex(16)
    request = RefundPurchaseRequest(
        checkout_id=purchase, amount_micros=amount or 0, reason=reason, idempotency_key=attempt
    )
    answer = operator.ask("RefundPurchase", request)
    said = f"{_usd(answer.amount_micros)} goes back: {answer.provider_id} ({answer.state})."
    _say(answer, [said], as_json=as_json)


@admin.command()
@click.option("--all", "with_resolved", is_flag=True, help="Those that were resolved, too.")
@_most
@_json
@_operator
def quarantined(operator: Operator, limit: int, *, with_resolved: bool, as_json: bool) -> None:
    """List Stripe's events that do not match what was sold."""
    from openanimate.metering.v1.admin_service_pb2 import ListQuarantinedRequest

    request = ListQuarantinedRequest(with_resolved=with_resolved, page_size=limit)
    answer = operator.ask("ListQuarantined", request)
    rows = [
        f"{event.event_id}  {event.type}  {event.checkout_id or '-'}  {event.problem}"
        f"{f'  [{event.resolved_by}: {event.resolution}]' if event.resolution else ''}"
        for event in answer.events
    ]
    _say(answer, rows or ["Nothing is in quarantine."], as_json=as_json)


@admin.command()
@click.argument("event")
@click.option("--look-again", is_flag=True, help="Apply it if it matches now, instead of closing it.")
@_reason
@_json
@_operator
def resolve(operator: Operator, event: str, reason: str, *, look_again: bool, as_json: bool) -> None:
    """Close EVENT in quarantine, or look at it again."""
    from openanimate.metering.v1.admin_service_pb2 import ResolveQuarantinedRequest

    request = ResolveQuarantinedRequest(event_id=event, reason=reason, look_again=look_again)
    answer = operator.ask("ResolveQuarantined", request)
    became = f"looked at again: {answer.event.problem or 'it matches now'}" if look_again else "closed"
    _say(answer, [f"{event} was {became}."], as_json=as_json)


@admin.command()
@click.option("--account", default="", help="Only of this account.")
@_most
@_json
@_operator
def uncollected(operator: Operator, account: str, limit: int, *, as_json: bool) -> None:
    """List work that was done and that no wallet covered."""
    from openanimate.metering.v1.admin_service_pb2 import ListUncollectedRequest

    account_id = _account_id(operator, account) if account else ""
    request = ListUncollectedRequest(account_id=account_id, page_size=limit)
    answer = operator.ask("ListUncollected", request)
    rows = [
        f"{work.at.ToDatetime():%Y-%m-%d %H:%M:%S}  "
        # Work without a reservation has the id that its service gave the event.
        f"{work.reservation_id or f'{work.account_id} {work.event_id}'}  {work.model or '-'}  "
        f"{_usd(work.uncollected_micros)}"
        for work in answer.work
    ]
    _say(answer, rows or ["Everything was paid for."], as_json=as_json)


def _freeze(
    operator: Operator, account: str, reason: str, key: str | None, *, frozen: bool, as_json: bool
) -> None:
    from openanimate.metering.v1.admin_service_pb2 import FreezeAccountRequest

    request = FreezeAccountRequest(
        account_id=_account_id(operator, account),
        frozen=frozen,
        reason=reason,
        idempotency_key=key or secrets.token_hex(16),
    )
    _say_wallet(operator.ask("FreezeAccount", request), as_json=as_json)


def _account_id(operator: Operator, named: str) -> str:
    """The id of an account that is named by it, or by its e-mail address."""
    if "@" not in named:
        return named
    from openanimate.metering.v1.admin_service_pb2 import ListAccountsRequest

    found = operator.ask("ListAccounts", ListAccountsRequest(email=named, page_size=1)).accounts
    if not found:
        raise click.ClickException(f"no account has the e-mail address {named}.")
    return str(found[0].account_id)


def _usd(micros: int) -> str:
    from oanim_server.rpc.refusals import dollars

    return dollars(micros)


def _say_wallet(answer: Any, *, as_json: bool) -> None:
    wallet = answer.wallet
    words = [f"{wallet.account_id}: balance {_usd(wallet.balance_micros)}, held {_usd(wallet.held_micros)}"]
    if wallet.debt_micros:
        words.append(f"owes {_usd(wallet.debt_micros)}")
    if wallet.frozen:
        words.append("frozen")
    _say(answer, [", ".join(words)], as_json=as_json)


def _say(answer: Any, lines: list[str], *, as_json: bool) -> None:
    if as_json:
        from google.protobuf.json_format import MessageToDict

        told = MessageToDict(
            answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        click.echo(json.dumps(_with_numbers(told, answer.DESCRIPTOR)))
    else:
        click.echo("\n".join(lines))


def _with_numbers(told: Any, kind: Descriptor) -> Any:
    """The same with the numbers as numbers, of which protobuf's JSON makes text."""
    for field in kind.fields:
        found = told.get(field.name)
        if field.cpp_type == field.CPPTYPE_INT64 and isinstance(found, str):
            told[field.name] = int(found)
        elif field.message_type is not None:
            for one in found if isinstance(found, list) else [found]:
                # A point in time is a text.
                if isinstance(one, dict):
                    _with_numbers(one, field.message_type)
    return told
