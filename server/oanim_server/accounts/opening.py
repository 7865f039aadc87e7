"""Opening an account: its row and its first key, in the database transaction of its wallet.

Read under a lock that every opening takes: an e-mail address gets one account, and the limits hold, over
all replicas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oanim_server.accounts import rows
from oanim_server.accounts.keys import Key
from oanim_server.accounts.refusals import FreeCreditsGone, TooManySignUps
from oanim_server.accounts.rows import AccountRow, KeyRow
from oanim_server.accounts.values import KeyMade
from oanim_server.ledger.refusals import Refusal
from oanim_server.ledger.values import DAY, SECOND

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from oanim_server.ledger.values import Outcome

HOUR = 3_600 * SECOND


@dataclass(frozen=True, slots=True)
class SignUpLimits:
    """What signing up is limited to: accounts an hour from one address, free micro-USD a UTC day."""

    an_hour: int
    free_micros_a_day: int


@dataclass(eq=False)
class AlreadyOpenError(Refusal):
    """The e-mail address, or the attempt, has its account. Never leaves accounts."""

    account: AccountRow


class Opening:
    """The rows of a new account: a companion of the operation that opens its wallet.

    `account` and `made` are what was written, once the operation is answered.

    :param limits: None for an account that is not signed up for.
    """

    def __init__(self, account: AccountRow, key_name: str, limits: SignUpLimits | None) -> None:
        self.account = account
        self._key = Key()
        self._key_name = key_name
        self._limits = limits

    @property
    def made(self) -> KeyMade:
        """The first key."""
        return KeyMade(self.account.account_id, self._first_key().facts, self._key.token, replayed=False)

    def load(self, connection: Connection, now: int) -> None:
        """See that it is not there and may be."""
        rows.lock_opening(connection)
        found = rows.opened(connection, self.account.email, self.account.sign_up_key)
        if found is not None:
            raise AlreadyOpenError(found)
        if self._limits is not None:
            self._check(connection, now, self._limits)
        self.account = self.account._replace(created_at=now)

    def write(self, connection: Connection, outcome: Outcome) -> None:  # noqa: ARG002 - a companion is told
        """Write the account and its first key."""
        rows.add_account(connection, self.account)
        rows.add_key(connection, self._first_key(), idempotency_key=None)

    def _first_key(self) -> KeyRow:
        account = self.account
        return KeyRow.of(
            self._key,
            account_id=account.account_id,
            number=1,
            name=self._key_name,
            now=account.created_at,
            role=account.role,
        )

    def _check(self, connection: Connection, now: int, limits: SignUpLimits) -> None:
        if self.account.address:
            recent = rows.sign_ups_from(connection, self.account.address, now - HOUR, limits.an_hour)
            if len(recent) >= limits.an_hour:
                raise TooManySignUps(limits.an_hour, (recent[-1] + HOUR - now) / SECOND)
        grant = self.account.free_credits_micros
        day = now - now % DAY
        if grant and rows.given_away(connection, day) + grant > limits.free_micros_a_day:
            raise FreeCreditsGone(limits.free_micros_a_day, (day + DAY - now) / SECOND)
