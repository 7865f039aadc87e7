"""The statements on purchases, refunds, disputes and what Stripe told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import case, func, insert, or_, select, tuple_, update

from oanim_server.checkout.values import (
    SOURCE,
    Dispute,
    Event,
    Purchase,
    Quarantined,
    Receipt,
    Refund,
    RefundRequest,
    SessionWord,
    Standing,
    State,
    Word,
)
from oanim_server.database.tables import accounts, disputes, inbox, purchases, refund_requests, refunds
from oanim_server.ledger import ids

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import ColumnElement, Connection, Select

_P = purchases.c
_I = inbox.c
_Q = refund_requests.c


# Purchases ------------------------------------------------------------------------------------------


def purchase(connection: Connection, *, wallet_id: int, token: str, lock: bool = False) -> Purchase | None:
    """One purchase; with `lock` nobody else changes it before the database transaction ends."""
    query = select(purchases).where(_P.wallet_id == wallet_id, _P.token == token)
    return _one(connection, query.with_for_update() if lock else query)


def purchase_of_key(connection: Connection, *, wallet_id: int, idem_key: str) -> Purchase | None:
    """The purchase that an attempt made."""
    return _one(connection, select(purchases).where(_P.wallet_id == wallet_id, _P.idem_key == idem_key))


def find(connection: Connection, *, word: Word) -> Purchase | None:
    """The purchase that a word of Stripe's is about."""
    if isinstance(word, SessionWord):
        named = reference_of(word.reference)
        if named is not None:
            return purchase(connection, wallet_id=named[0], token=named[1])
        return _one(connection, select(purchases).where(_P.session_id == word.session_id))
    for column, value in ((_P.payment_intent, word.payment_intent), (_P.charge, word.charge)):
        found = _one(connection, select(purchases).where(column == value)) if value else None
        if found is not None:
            return found
    return None


def reference_of(text: str) -> tuple[int, str] | None:
    """The wallet and the token of a purchase's id; None for what is none."""
    account, _, token = text.partition("-")
    if len(token) != 24 or not (token.isascii() and token.isalnum()):
        return None
    try:
        return ids.account_id(account), token
    except ValueError:
        return None


def reference(wallet_id: int, token: str) -> str:
    """A purchase's id."""
    return f"{ids.account_text(wallet_id)}-{token}"


def add(connection: Connection, now: int, *, wanted: Purchase, page_lifetime: int) -> Purchase:
    """Write a new purchase; or answer the one that the attempt has made already."""
    known = purchase_of_key(connection, wallet_id=wanted.wallet_id, idem_key=wanted.idem_key)
    if known is not None:
        return known
    wanted = wanted._replace(created_at=now, expires_at=now + page_lifetime)
    connection.execute(insert(purchases).values(wanted._asdict()))
    return wanted


def has_page(
    connection: Connection,
    _now: int,
    *,
    wallet_id: int,
    token: str,
    session_id: str,
    url: str,
    expires_at: int,
) -> Purchase | None:
    """Keep the page that Stripe made, unless the purchase has gone further already."""
    connection.execute(
        update(purchases)
        .where(_P.wallet_id == wallet_id, _P.token == token, _P.session_id == "")
        .values(
            session_id=session_id,
            url=url,
            expires_at=expires_at,
            state=case((_P.state == State.CREATING.value, State.OPEN.value), else_=_P.state),
            revision=_P.revision + 1,
        )
    )
    return purchase(connection, wallet_id=wallet_id, token=token)


def save(connection: Connection, changed: Purchase) -> None:
    """Write a purchase anew. Its row is locked."""
    fields = changed._asdict() | {"revision": changed.revision + 1}
    here = (_P.wallet_id == changed.wallet_id) & (_P.token == changed.token)
    connection.execute(update(purchases).where(here).values(fields))


def paid(connection: Connection, *, wallet_id: int, before: int | None, limit: int) -> list[Purchase]:
    """Purchases whose credits are in, below a credit's number, newest first."""
    query = select(purchases).where(_P.wallet_id == wallet_id, _P.credit > 0)
    if before is not None:
        query = query.where(_P.credit < before)
    return _all(connection, query.order_by(_P.credit.desc()).limit(limit))


def unpaid(
    connection: Connection, *, created_before: int, after: tuple[int, int, str], limit: int
) -> list[Purchase]:
    """Purchases that may still be paid, by creation, wallet and token, after these; many have one instant."""
    order = (_P.created_at, _P.wallet_id, _P.token)
    query = select(purchases).where(
        _P.state <= State.PROCESSING.value,
        _P.created_at <= created_before,
        _P.created_at >= after[0],
        tuple_(*order) > after,
    )
    return _all(connection, query.order_by(*order).limit(limit))


def revisions(connection: Connection, keys: Collection[tuple[int, str]]) -> list[tuple[int, str, int]]:
    """How often each of these was changed."""
    query = select(_P.wallet_id, _P.token, _P.revision).where(
        or_(*((_P.wallet_id == wallet_id) & (_P.token == token) for wallet_id, token in keys))
    )
    return [(wallet_id, token, revision) for wallet_id, token, revision in connection.execute(query)]


def receipt(connection: Connection, *, wallet_id: int, token: str) -> Receipt | None:
    """A purchase that was paid, with what went back."""
    found = purchase(connection, wallet_id=wallet_id, token=token)
    if found is None or not found.credit:
        return None
    return Receipt(found, refunds_of(connection, found), disputes_of(connection, found))


def email_of(connection: Connection, *, account_id: int) -> str:
    """The e-mail address of an account."""
    query = select(accounts.c.email).where(accounts.c.account_id == account_id)
    return connection.execute(query).scalar_one_or_none() or ""


# Refunds and disputes -------------------------------------------------------------------------------


def refunds_of(connection: Connection, of: Purchase) -> list[Refund]:
    """The refunds of a purchase, in the order in which they were heard of."""
    r = refunds.c
    query = select(r.refund_id, r.amount_micros, r.state, r.first_seen_at)
    query = query.where(r.wallet_id == of.wallet_id, r.token == of.token)
    return [Refund(*row) for row in connection.execute(query.order_by(r.first_seen_at, r.refund_id))]


def disputes_of(connection: Connection, of: Purchase) -> list[Dispute]:
    """The disputes of a purchase, in the order in which they were heard of."""
    d = disputes.c
    query = select(d.dispute_id, d.amount_micros, d.state, d.withdrawn, d.reinstated, d.first_seen_at)
    query = query.where(d.wallet_id == of.wallet_id, d.token == of.token)
    return [
        Dispute(dispute_id, amount_micros, state, bool(withdrawn), bool(reinstated), first_seen_at)
        for dispute_id, amount_micros, state, withdrawn, reinstated, first_seen_at in connection.execute(
            query.order_by(d.first_seen_at, d.dispute_id)
        )
    ]


def save_refund(connection: Connection, of: Purchase, refund: Refund) -> None:
    """Write a refund, new or anew."""
    r = refunds.c
    here = (r.wallet_id == of.wallet_id) & (r.refund_id == refund.refund_id)
    values = refund._asdict()
    if not connection.execute(update(refunds).where(here).values(values)).rowcount:
        connection.execute(insert(refunds).values(values | {"wallet_id": of.wallet_id, "token": of.token}))


def save_dispute(connection: Connection, of: Purchase, dispute: Dispute) -> None:
    """Write a dispute, new or anew."""
    d = disputes.c
    here = (d.wallet_id == of.wallet_id) & (d.dispute_id == dispute.dispute_id)
    values = dispute._asdict() | {
        "withdrawn": int(dispute.withdrawn),
        "reinstated": int(dispute.reinstated),
    }
    if not connection.execute(update(disputes).where(here).values(values)).rowcount:
        connection.execute(insert(disputes).values(values | {"wallet_id": of.wallet_id, "token": of.token}))


# The inbox ------------------------------------------------------------------------------------------


def standing_of(connection: Connection, *, event_id: str) -> Standing | None:
    """What became of an event; None when it was never heard of."""
    query = select(_I.standing).where(_I.source == SOURCE, _I.event_id == event_id)
    found = connection.execute(query).scalar_one_or_none()
    return None if found is None else Standing(found)


def keep(
    connection: Connection,
    now: int,
    event: Event,
    standing: Standing,
    *,
    problem: str = "",
    purchase_id: str = "",
    waits_for: str = "",
) -> None:
    """Write down what became of an event; of one that is there already, what became of it now."""
    values: dict[str, Any] = {
        "standing": standing.value,
        "problem": problem,
        "purchase_id": purchase_id,
        "waits_for": waits_for,
    }
    here = (_I.source == SOURCE) & (_I.event_id == event.event_id)
    if connection.execute(update(inbox).where(here).values(values)).rowcount:
        return
    values |= {"source": SOURCE, "received_at": now, "resolved_by": "", "resolution": "", **event._asdict()}
    connection.execute(insert(inbox).values(values))


def parked(connection: Connection, *, waits_for: Collection[str], limit: int = 1_000) -> list[Event]:
    """The events that wait for one of these, in the order in which they came."""
    query = _events().where(_I.standing == Standing.PARKED.value, _I.waits_for.in_(waits_for))
    return [Event(*row) for row in connection.execute(query.order_by(_I.number).limit(limit))]


def parked_and_known(connection: Connection, *, limit: int = 1_000) -> list[Event]:
    """The events that are parked although what they wait for is there."""
    there = or_(_P.payment_intent == _I.waits_for, _P.charge == _I.waits_for)
    query = _events().join(purchases, there).where(_I.standing == Standing.PARKED.value, _P.credit > 0)
    return [Event(*row) for row in connection.execute(query.order_by(_I.number).limit(limit))]


def quarantined(
    connection: Connection, *, with_resolved: bool, before: int | None, limit: int
) -> list[Quarantined]:
    """Events in quarantine, newest first."""
    known = [Standing.QUARANTINED.value, Standing.DISMISSED.value]
    query = _quarantined().where(_I.standing.in_(known if with_resolved else known[:1]))
    if before is not None:
        query = query.where(_I.number < before)
    return [Quarantined(*row) for row in connection.execute(query.order_by(_I.number.desc()).limit(limit))]


def quarantined_event(connection: Connection, *, event_id: str) -> tuple[Quarantined, Event] | None:
    """One event that is, or was, in quarantine; and the event itself."""
    here: ColumnElement[bool] = (_I.source == SOURCE) & (_I.event_id == event_id)
    found = connection.execute(_quarantined().where(here)).one_or_none()
    if found is None:
        return None
    return Quarantined(*found), Event(*connection.execute(_events().where(here)).one())


def resolve(
    connection: Connection, now: int, *, event_id: str, actor: str, reason: str, dismiss: bool
) -> bool:
    """Note who looked at an event in quarantine, and why; maybe close it. False when it is not there."""
    values: dict[str, Any] = {"resolved_by": actor, "resolution": reason, "resolved_at": now}
    if dismiss:
        values["standing"] = Standing.DISMISSED.value
    here = (_I.source == SOURCE) & (_I.event_id == event_id)
    done = connection.execute(
        update(inbox).where(here, _I.standing == Standing.QUARANTINED.value).values(values)
    )
    return bool(done.rowcount)


# Refunds that were asked for ------------------------------------------------------------------------


def request_of_key(
    connection: Connection, *, wallet_id: int, caller: int, idem_key: str
) -> RefundRequest | None:
    """The refund that an attempt asked for."""
    query = select(refund_requests).where(
        _Q.wallet_id == wallet_id, _Q.caller == caller, _Q.idem_key == idem_key
    )
    found = connection.execute(query).one_or_none()
    return None if found is None else RefundRequest(*found)


def add_request(connection: Connection, request: RefundRequest) -> None:
    """Write down that a refund is asked for."""
    connection.execute(insert(refund_requests).values(request._asdict()))


def asked_for(connection: Connection, of: Purchase) -> int:
    """How much was asked for and is not among the refunds yet, in micro-USD."""
    here = (_Q.wallet_id == of.wallet_id) & (_Q.token == of.token)
    known = select(refunds.c.refund_id).where(refunds.c.wallet_id == of.wallet_id)
    query = select(func.coalesce(func.sum(_Q.amount_micros), 0)).where(here, _Q.refund_id.not_in(known))
    return int(connection.execute(query.where(_Q.state != "refused")).scalar_one())


def answered(
    connection: Connection, _now: int, *, wallet_id: int, request_id: str, refund_id: str, state: str
) -> None:
    """Keep what Stripe said to a request. A refund that was made stays made, whoever asked beside it."""
    here = (_Q.wallet_id == wallet_id) & (_Q.request_id == request_id) & (_Q.refund_id == "")
    connection.execute(update(refund_requests).where(here).values(refund_id=refund_id, state=state))


def unanswered(connection: Connection, *, before: int) -> Sequence[RefundRequest]:
    """Requests made before an instant that Stripe has not answered."""
    query = select(refund_requests).where(_Q.refund_id == "", _Q.state == "", _Q.created_at <= before)
    return [RefundRequest(*row) for row in connection.execute(query.order_by(_Q.created_at).limit(100))]


# Pieces ---------------------------------------------------------------------------------------------


def key_of_word(word: Word) -> str:
    """What a parked event waits for; a session for nothing."""
    return "" if isinstance(word, SessionWord) else word.payment_intent or word.charge


def _one(connection: Connection, query: Select[Any]) -> Purchase | None:
    found = connection.execute(query).first()
    return None if found is None else _purchase(found)


def _all(connection: Connection, query: Select[Any]) -> list[Purchase]:
    return [_purchase(row) for row in connection.execute(query)]


def _purchase(row: Sequence[Any]) -> Purchase:
    found = Purchase(*row)
    return found._replace(state=State(found.state))


def _events() -> Select[Any]:
    return select(_I.event_id, _I.type, _I.object_id, _I.payload)


def _quarantined() -> Select[Any]:
    return select(
        _I.number,
        _I.event_id,
        _I.type,
        _I.object_id,
        _I.problem,
        _I.purchase_id,
        _I.received_at,
        _I.resolved_at,
        _I.resolved_by,
        _I.resolution,
    )
