"""What an account's owner allows it, or one of its keys, to spend in a day, a week or a month."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oanim_server.ledger import crediting
from oanim_server.ledger.operations import Operation, fingerprint_of
from oanim_server.ledger.refusals import LimitedKey
from oanim_server.ledger.values import Method, Outcome

if TYPE_CHECKING:
    from oanim_server.ledger.values import Wallet
    from oanim_server.ledger.windows import Period
    from oanim_server.ledger.working import Attempt, WorkingSet


class OnLimit(Operation, kw_only=True):
    """An operation on the limit of an account (an empty `api_key_id`) or of a key.

    What is so already is a row, too: it keeps the key, which has no effect later then.
    `asking_key_id` is the caller's key, empty for the server. One that has a limit of its own changes none:
    no key gives more than it has.
    """

    api_key_id: str
    period: Period
    asking_key_id: str

    def _wallet(self, working: WorkingSet) -> Wallet:
        wallet = working.wallet(self.wallet_id)
        limits = working.limits.get(self.wallet_id, ())
        if self.asking_key_id and any(limit.api_key_id == self.asking_key_id for limit in limits):
            raise LimitedKey
        return wallet


class SetLimit(OnLimit, kw_only=True):
    """Set a limit, or give one that is there a new amount."""

    limit_micros: int

    method: ClassVar[Method] = Method.SET_LIMIT

    def fingerprint(self) -> bytes:
        return fingerprint_of("set limit", self.api_key_id, self.period, self.limit_micros)

    def decide(self, working: WorkingSet, attempt: Attempt) -> Outcome:
        return crediting.limit(
            working,
            self._wallet(working),
            api_key_id=self.api_key_id,
            period=self.period,
            limit_micros=self.limit_micros,
            attempt=attempt,
        )


class DeleteLimit(OnLimit, kw_only=True):
    """Take a limit away, if it is there."""

    method: ClassVar[Method] = Method.DELETE_LIMIT

    def fingerprint(self) -> bytes:
        return fingerprint_of("delete limit", self.api_key_id, self.period)

    def decide(self, working: WorkingSet, attempt: Attempt) -> Outcome:
        return crediting.limit(
            working,
            self._wallet(working),
            api_key_id=self.api_key_id,
            period=self.period,
            limit_micros=None,
            attempt=attempt,
        )
