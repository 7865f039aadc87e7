"""The capabilities' values as messages of the contract: the numbers of their enums are its numbers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

from google.protobuf.timestamp_pb2 import Timestamp

from oanim_server.pricing.values import OWN
from oanim_server.rpc import outcomes, shape
from openanimate.metering.v1 import (
    account_service_pb2,
    pricing_service_pb2,
    reservation_pb2,
    wallet_pb2,
    wallet_service_pb2,
)

if TYPE_CHECKING:
    from oanim_models.catalogue import Price
    from oanim_server.accounts.values import ApiKey
    from oanim_server.checkout.values import Terms
    from oanim_server.ledger.journal import Row
    from oanim_server.ledger.reads import ChargeRecord, Statement, UsageTotal
    from oanim_server.ledger.values import LimitFacts, Lot, ReservationFacts, WalletFacts
    from openanimate.metering.v1 import role_pb2

account_text = outcomes.account_text


def timestamp(micros: int) -> Timestamp:
    """A point in time."""
    seconds, rest = divmod(micros, 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1_000)


def maybe_timestamp(micros: int | None) -> Timestamp | None:
    """A point in time that there may not be."""
    return None if micros is None else timestamp(micros)


def reservation_text(wallet_id: int, number: int) -> str:
    """The id of a reservation, or of a generation."""
    return f"{account_text(wallet_id)}-{number}"


def maybe_reservation_text(wallet_id: int, number: int) -> str:
    """The same; empty for 0, which is none."""
    return reservation_text(wallet_id, number) if number else ""


def wallet(facts: WalletFacts) -> wallet_pb2.Wallet:
    """A wallet."""
    message = wallet_pb2.Wallet()
    outcomes.wallet(facts, message)
    return message


def reservation(facts: ReservationFacts) -> reservation_pb2.Reservation:
    """A reservation."""
    message = reservation_pb2.Reservation()
    outcomes.reservation(facts, message)
    return message


def transaction(row: Row, statement: Statement) -> wallet_service_pb2.Transaction:
    """A row of a statement's page."""
    return wallet_service_pb2.Transaction(
        wallet_seq=row.seq,
        at=timestamp(row.at),
        kind=cast("wallet_service_pb2.TransactionKind.ValueType", row.kind),
        reservation_id=maybe_reservation_text(row.wallet_id, row.reservation),
        entries=[
            wallet_service_pb2.Entry(account=account, amount_micros=micros)
            for account, micros in json.loads(row.entries)
        ],
        lots=[
            wallet_service_pb2.LotMovement(lot=number, remaining_micros=remaining, held_micros=held)
            for number, remaining, held in json.loads(row.lots)
        ],
        balance_micros=row.balance_micros,
        held_micros=row.held_micros,
        model=statement.models.get(row.reservation, ""),
        reason=statement.reasons.get(row.seq, ""),
    )


def lot(found: Lot) -> wallet_service_pb2.Lot:
    """A lot."""
    return wallet_service_pb2.Lot(
        lot=found.number,
        origin=cast("wallet_service_pb2.LotOrigin.ValueType", found.origin.value),
        amount_micros=found.amount_micros,
        remaining_micros=found.remaining_micros,
        held_micros=found.held_micros,
        expires_at=maybe_timestamp(found.expires_at),
        created_at=timestamp(found.created_at),
    )


def usage_total(total: UsageTotal) -> wallet_service_pb2.UsageTotal:
    """What one group was charged."""
    group = shape.day_text(total.group) if isinstance(total.group, int) else total.group
    return wallet_service_pb2.UsageTotal(
        group=group, charges=total.charges, charged_micros=total.charged_micros
    )


def usage_record(charge: ChargeRecord) -> wallet_service_pb2.UsageRecord:
    """One charge."""
    return wallet_service_pb2.UsageRecord(
        at=timestamp(charge.at),
        provider=_provider(charge.provider),
        model=charge.model,
        category=charge.category,
        charged_micros=charge.charged_micros,
        quantity=charge.quantity,
        reservation_id=maybe_reservation_text(charge.wallet_id, charge.reservation),
        api_key_id=charge.api_key_id,
        project=charge.project,
        wallet_seq=charge.seq,
        event_id=charge.event_id,
    )


def limit(facts: LimitFacts) -> account_service_pb2.Limit:
    """A limit, and what is left of it."""
    used = facts.charged_micros + facts.held_micros
    return account_service_pb2.Limit(
        key_id=facts.limit.api_key_id,
        period=cast("account_service_pb2.LimitPeriod.ValueType", facts.limit.period.value),
        limit_micros=facts.limit.limit_micros,
        charged_micros=facts.charged_micros,
        held_micros=facts.held_micros,
        left_micros=max(0, facts.limit.limit_micros - used),
        resets_at=timestamp(facts.window.end),
    )


def purchase_terms(terms: Terms) -> pricing_service_pb2.PurchaseTerms:
    """What credits can be bought for."""
    return pricing_service_pb2.PurchaseTerms(
        minimum_micros=terms.minimum_micros,
        maximum_micros=terms.maximum_micros,
        bonus_threshold_micros=terms.bonus_threshold_micros,
        bonus_percent=terms.bonus_percent,
    )


def api_key(key: ApiKey) -> account_service_pb2.ApiKey:
    """A key, without its secret."""
    return account_service_pb2.ApiKey(
        key_id=key.key_id,
        name=key.name,
        role=cast("role_pb2.Role.ValueType", key.role.value),
        created_at=timestamp(key.created_at),
        revoked_at=maybe_timestamp(key.revoked_at),
        used=key.used,
    )


def price(found: Price) -> pricing_service_pb2.Price:
    """What one model costs."""
    return pricing_service_pb2.Price(
        model=found.model,
        category=found.category,
        amount_micros=found.amount_micros,
        unit=found.unit,
        base_quantity=found.base_quantity,
        quantity_field=found.quantity_field,
        provider=_provider(found.provider),
        endpoint="" if found.endpoint == found.model else found.endpoint,
        is_default=found.default,
    )


def _provider(name: str) -> str:
    return "" if name == OWN else name
