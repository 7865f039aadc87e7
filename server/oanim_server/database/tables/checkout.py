"""Purchases, what takes them back, and the inbox of events."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

from oanim_server.database.tables.schema import Int64, metadata, partial_index

# A purchase of credits, from its page to its end. The row is there before Stripe is asked for the page.
purchases = Table(
    "purchases",
    metadata,
    Column("wallet_id", Int64, ForeignKey("wallets.wallet_id"), nullable=False),
    # 24 letters and digits: Stripe's client_reference_id and idempotency key, behind the account's id.
    Column("token", Text, nullable=False),
    Column("api_key_id", Text, nullable=False),
    Column("idem_key", Text, nullable=False),
    Column("state", Integer, nullable=False),
    Column("amount_micros", Int64, nullable=False),
    Column("bonus_micros", Int64, nullable=False),
    # How long its credits last from when they come in, in microseconds; null is for ever.
    Column("lifetime", Int64),
    Column("created_at", Int64, nullable=False),
    Column("expires_at", Int64, nullable=False),
    # Stripe's words: the session with its page, what was paid with, and what its customer was charged.
    Column("session_id", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("payment_intent", Text, nullable=False),
    Column("charge", Text, nullable=False),
    Column("receipt_url", Text, nullable=False),
    Column("paid_micros", Int64, nullable=False),
    Column("tax_micros", Int64, nullable=False),
    # The wallet_seq of the row that credited it; 0 before.
    Column("credit", Int64, nullable=False),
    Column("credited_at", Int64),
    # What refunds and disputes took of its credits.
    Column("reversed_micros", Int64, nullable=False),
    # Grows with every change, so that replicas see what is new.
    Column("revision", Int64, nullable=False),
    PrimaryKeyConstraint("wallet_id", "token"),
    UniqueConstraint("wallet_id", "idem_key", name="uq_purchases_idem_key"),
    CheckConstraint("state BETWEEN 1 AND 6", "state"),
    CheckConstraint("amount_micros > 0 AND amount_micros % 10000 = 0", "amount"),
    CheckConstraint("bonus_micros >= 0", "bonus"),
    CheckConstraint("(state = 4) = (credit > 0)", "credit"),
    CheckConstraint("reversed_micros BETWEEN 0 AND amount_micros + bonus_micros", "reversed"),
    sqlite_strict=True,
)
partial_index(
    "ix_purchases_unpaid",
    purchases.c.created_at,
    where="state <= 3",
)
Index("ix_purchases_session_id", purchases.c.session_id)
Index("ix_purchases_payment_intent", purchases.c.payment_intent)
Index("ix_purchases_charge", purchases.c.charge)

# Money that went back, or is on its way: each by Stripe's id, and its state only moves forward.
refunds = Table(
    "refunds",
    metadata,
    Column("wallet_id", Int64, nullable=False),
    Column("refund_id", Text, nullable=False),
    Column("token", Text, nullable=False),
    Column("amount_micros", Int64, nullable=False),
    Column("state", Text, nullable=False),
    Column("first_seen_at", Int64, nullable=False),
    PrimaryKeyConstraint("wallet_id", "refund_id"),
    ForeignKeyConstraint(["wallet_id", "token"], ["purchases.wallet_id", "purchases.token"]),
    CheckConstraint("amount_micros > 0", "amount"),
    sqlite_strict=True,
)
Index("ix_refunds_token", refunds.c.wallet_id, refunds.c.token)

disputes = Table(
    "disputes",
    metadata,
    Column("wallet_id", Int64, nullable=False),
    Column("dispute_id", Text, nullable=False),
    Column("token", Text, nullable=False),
    Column("amount_micros", Int64, nullable=False),
    Column("state", Text, nullable=False),
    # What has happened to the money, once and for all.
    Column("withdrawn", Integer, nullable=False),
    Column("reinstated", Integer, nullable=False),
    Column("first_seen_at", Int64, nullable=False),
    PrimaryKeyConstraint("wallet_id", "dispute_id"),
    ForeignKeyConstraint(["wallet_id", "token"], ["purchases.wallet_id", "purchases.token"]),
    CheckConstraint("amount_micros > 0", "amount"),
    sqlite_strict=True,
)
Index("ix_disputes_token", disputes.c.wallet_id, disputes.c.token)

# Refunds that the operator asked for. The row is there before Stripe is asked; the event books it.
refund_requests = Table(
    "refund_requests",
    metadata,
    Column("wallet_id", Int64, nullable=False),
    # Stripe's idempotency key.
    Column("request_id", Text, nullable=False),
    Column("token", Text, nullable=False),
    # The account of the admin key, or 0 on the local socket, and its attempt.
    Column("caller", Int64, nullable=False),
    Column("idem_key", Text, nullable=False),
    # As asked for, 0 being all that is left; and as it was decided.
    Column("asked_micros", Int64, nullable=False),
    Column("amount_micros", Int64, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", Int64, nullable=False),
    # Stripe's id of the refund, once it has answered.
    Column("refund_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    PrimaryKeyConstraint("wallet_id", "request_id"),
    UniqueConstraint("wallet_id", "caller", "idem_key", name="uq_refund_requests_idem_key"),
    ForeignKeyConstraint(["wallet_id", "token"], ["purchases.wallet_id", "purchases.token"]),
    sqlite_strict=True,
)

# What Stripe has told, each event once, in the transaction of what it did.
inbox = Table(
    "inbox",
    metadata,
    Column("number", Int64, primary_key=True, autoincrement=True),
    Column("source", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("received_at", Int64, nullable=False),
    # 1 applied, 2 of no concern, 3 parked, 4 in quarantine, 5 dismissed by the operator.
    Column("standing", Integer, nullable=False),
    # What does not match, in a sentence.
    Column("problem", Text, nullable=False),
    # The purchase that it names; empty for none of ours.
    Column("purchase_id", Text, nullable=False),
    # The payment intent or the charge of the purchase that a parked event waits for.
    Column("waits_for", Text, nullable=False),
    Column("resolved_at", Int64),
    Column("resolved_by", Text, nullable=False),
    Column("resolution", Text, nullable=False),
    UniqueConstraint("source", "event_id", name="uq_inbox_event_id"),
    CheckConstraint("standing BETWEEN 1 AND 5", "standing"),
    sqlite_strict=True,
)
partial_index(
    "ix_inbox_parked",
    inbox.c.waits_for,
    where="standing = 3",
)
partial_index(
    "ix_inbox_quarantined",
    inbox.c.number,
    where="standing >= 4",
)
