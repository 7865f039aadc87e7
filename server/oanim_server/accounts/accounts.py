"""Accounts and their API keys: what opens, lists and ends them.

Every write is an operation in the ledger's queue. It may be run twice when the answer of its commit was
lost, so each recognises what it wrote the first time.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from oanim_server.accounts import rows
from oanim_server.accounts.addresses import counted_address, email_address
from oanim_server.accounts.keys import Key
from oanim_server.accounts.opening import AlreadyOpenError, Opening
from oanim_server.accounts.refusals import EmailTaken, SignUpClosed, TooManyKeys
from oanim_server.accounts.rows import AccountRow
from oanim_server.accounts.values import Identity, KeyMade, Role, SignedUp
from oanim_server.ledger.ids import new_account_id
from oanim_server.ledger.operations import OpenWallet
from oanim_server.ledger.refusals import IdempotencyKeyReused, LimitedKey, NotFound
from oanim_server.ledger.values import SERVER, WalletFacts

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from oanim_server.accounts.authenticator import Authenticator
    from oanim_server.accounts.opening import SignUpLimits
    from oanim_server.accounts.rows import KeyRow
    from oanim_server.accounts.values import AccountSummary, ApiKey, Caller
    from oanim_server.database.engine import Database
    from oanim_server.ledger.ledger import Ledger

MAX_KEYS = 10
FIRST_KEY = "first key"


class Accounts:
    """Opens accounts and keeps their keys.

    :param free_credits_micros: what a sign-up gets, in micro-USD.
    :param free_credits_lifetime: how long that lasts, in microseconds; None is for ever.
    :param sign_up_limits: None closes sign-up.
    """

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        authenticator: Authenticator,
        *,
        free_credits_micros: int,
        free_credits_lifetime: int | None,
        sign_up_limits: SignUpLimits | None,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._authenticator = authenticator
        self._free_credits_micros = free_credits_micros
        self._free_credits_lifetime = free_credits_lifetime
        self._sign_up_limits = sign_up_limits

    async def sign_up(self, email: str, idempotency_key: str, peer_address: str) -> SignedUp:
        """Open an account with the free credits and a first key.

        :param peer_address: the caller's IP address.
        :raises EmailTaken: when another attempt opened the account of the address.
        :raises SignUpClosed: where accounts are not for the asking.
        :raises TooManySignUps: when the peer has had its accounts of the hour.
        :raises FreeCreditsGone: when the day has had its free credits.
        """
        wanted = AccountRow(
            account_id=new_account_id(),
            role=Role.USER,
            email=email_address(email),
            name="",
            created_at=0,
            sign_up_key=idempotency_key,
            address=counted_address(peer_address),
            free_credits_micros=self._free_credits_micros,
        )
        find = partial(rows.opened, email=wanted.email, sign_up_key=idempotency_key)
        account = await self._database.read(find)
        made = None
        if account is None:
            if self._sign_up_limits is None:
                raise SignUpClosed
            account, made = await self._open(wanted, FIRST_KEY, self._sign_up_limits)
        if made is None:
            if account.sign_up_key != idempotency_key:
                raise EmailTaken
            made = await self._first_key_again(account)
        return SignedUp(
            account.account_id, made.api_key, made.secret, _wallet_when_opened(account), made.replayed
        )

    async def create_role_account(self, role: Role, name: str, idempotency_key: str) -> KeyMade:
        """Open an account for a role, with an empty wallet and a first key of the same name.

        :raises IdempotencyKeyReused: when the key made an account of another role or name.
        """
        wanted = AccountRow(
            account_id=new_account_id(),
            role=role,
            email=None,
            name=name,
            created_at=0,
            sign_up_key=idempotency_key,
            address="",
            free_credits_micros=0,
        )
        account, made = await self._open(wanted, name, None)
        if made is None:
            if (account.role, account.name) != (role, name):
                raise IdempotencyKeyReused(idempotency_key)
            made = await self._first_key_again(account)
        return made

    async def who_am_i(self, caller: Caller) -> Identity:
        """Say who a caller is."""
        return await self._database.read(partial(_identity, key_id=caller.key_id))

    async def create_key(
        self, account_id: int, name: str, idempotency_key: str, *, asking_key_id: str
    ) -> KeyMade:
        """Make another key for an account; `asking_key_id` is the caller's own.

        :raises IdempotencyKeyReused: when the idempotency key made a key of another name.
        :raises LimitedKey: when the caller's key has a limit.
        :raises TooManyKeys: when ten work.
        """
        make = partial(
            _make_key,
            account_id=account_id,
            name=name,
            idempotency_key=idempotency_key,
            asking_key_id=asking_key_id,
            key=Key(),
        )
        return await self._ledger.write(make)

    async def own_key(self, account_id: int, key_id: str) -> str:
        """An account's key by its id; empty stays empty.

        :raises NotFound: for a key that is not the account's.
        """
        if key_id and not await self._database.read(
            partial(rows.is_key_of, account_id=account_id, key_id=key_id)
        ):
            raise NotFound("API key")
        return key_id

    async def page(self, *, email: str, offset: int, limit: int) -> list[AccountSummary]:
        """Accounts with their wallets, newest first; of one e-mail address, or all."""
        folded = email_address(email) if email else ""
        return await self._database.read(partial(rows.page, email=folded, offset=offset, limit=limit))

    async def list_keys(self, account_id: int, *, before: int | None, limit: int) -> list[ApiKey]:
        """The account's keys below a number, newest first, revoked ones too."""
        query = partial(rows.keys_of, account_id=account_id, before=before, limit=limit)
        return [row.facts for row in await self._database.read(query)]

    async def revoke_key(self, account_id: int, key_id: str) -> ApiKey:
        """End a key, if it has not ended.

        :raises NotFound: for a key that is not the account's.
        """
        row = await self._ledger.write(partial(_revoke_key, account_id=account_id, key_id=key_id))
        self._authenticator.forget(key_id)
        return row.facts

    async def _open(
        self, wanted: AccountRow, key_name: str, limits: SignUpLimits | None
    ) -> tuple[AccountRow, KeyMade | None]:
        """The account as it was opened, and its key; or the one that is there already, and None."""
        opening = Opening(wanted, key_name, limits)
        operation = OpenWallet(
            wallet_id=wanted.account_id,
            caller=SERVER,
            idempotency_key=wanted.sign_up_key,
            grant_micros=wanted.free_credits_micros,
            lifetime=self._free_credits_lifetime,
            companion=opening,
        )
        try:
            await self._ledger.submit(operation)
        except AlreadyOpenError as found:
            if found.account.account_id != wanted.account_id:
                return found.account, None
        return opening.account, opening.made

    async def _first_key_again(self, account: AccountRow) -> KeyMade:
        first = await self._database.read(partial(rows.first_key, account_id=account.account_id))
        return await self._ledger.write(partial(_again, fresh=Key(first.key_id)))


def _wallet_when_opened(account: AccountRow) -> WalletFacts:
    """The wallet right after the sign-up, which is what a replay shows too."""
    granted = account.free_credits_micros
    return WalletFacts(
        wallet_id=account.account_id,
        balance_micros=granted,
        held_micros=0,
        debt_micros=0,
        seq=1 if granted else 0,
        frozen=False,
    )


def _identity(connection: Connection, *, key_id: str) -> Identity:
    row = rows.key(connection, key_id)
    account = rows.account(connection, row.account_id)
    return Identity(row.account_id, account.email or "", row.facts)


# Changes: run on the committer's thread, in a group's database transaction ---------------------------


def _make_key(
    connection: Connection,
    now: int,
    *,
    account_id: int,
    name: str,
    idempotency_key: str,
    asking_key_id: str,
    key: Key,
) -> KeyMade:
    role = rows.lock_account(connection, account_id)
    known = rows.key_made_by(connection, account_id, idempotency_key)
    if known is not None:
        if known.name != name:
            raise IdempotencyKeyReused(idempotency_key)
        if known.key_id != key.key_id:
            if rows.has_limit(connection, account_id, asking_key_id):
                # No key gives more than it has: not by asking again for what another one made either.
                return KeyMade(account_id, known.facts, None, replayed=True)
            return _again(connection, now, fresh=Key(known.key_id, key.secret))
        return KeyMade(account_id, known.facts, key.token, replayed=False)
    if rows.has_limit(connection, account_id, asking_key_id):
        raise LimitedKey
    ever_made, working = rows.count_keys(connection, account_id)
    if working >= MAX_KEYS:
        raise TooManyKeys(MAX_KEYS)
    row = rows.KeyRow.of(key, account_id=account_id, number=ever_made + 1, name=name, now=now, role=role)
    rows.add_key(connection, row, idempotency_key=idempotency_key)
    return KeyMade(account_id, row.facts, key.token, replayed=False)


def _again(connection: Connection, now: int, *, fresh: Key) -> KeyMade:
    """The answer of an earlier attempt, with a fresh secret where there may be one."""
    shown = rows.reissue(connection, fresh, now)
    row = rows.key(connection, fresh.key_id)
    return KeyMade(row.account_id, row.facts, fresh.token if shown else None, replayed=True)


def _revoke_key(connection: Connection, now: int, *, account_id: int, key_id: str) -> KeyRow:
    row = rows.revoke(connection, account_id, key_id, now)
    if row is None:
        raise NotFound("API key")
    return row
