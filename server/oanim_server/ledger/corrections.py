"""What the operator does to a wallet: each with a name and a reason, which are kept with the row."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from oanim_server.ledger import crediting
from oanim_server.ledger.operations import Operation, fingerprint_of
from oanim_server.ledger.values import Kind, Method, Note, Origin, Outcome

if TYPE_CHECKING:
    from oanim_server.ledger.working import Attempt, WorkingSet


class Correction(Operation, kw_only=True):
    """What every correction has: who wants it, and why."""

    note: Note


class Grant(Correction, kw_only=True):
    """Give credits away. `lifetime` in microseconds, None for ever."""

    amount_micros: int
    lifetime: int | None = None

    method: ClassVar[Method] = Method.GRANT

    def fingerprint(self) -> bytes:
        return fingerprint_of("grant", self.amount_micros, self.lifetime, self.note.reason)

    def decide(self, working: WorkingSet, attempt: Attempt) -> Outcome:
        return crediting.credit(
            working,
            working.wallet(self.wallet_id),
            Kind.GRANT,
            Origin.GRANT,
            self.amount_micros,
            lifetime=self.lifetime,
            attempt=attempt,
            note=self.note,
        )


class Adjust(Correction, kw_only=True):
    """Correct a balance, up or down."""

    amount_micros: int

    method: ClassVar[Method] = Method.ADJUST

    def fingerprint(self) -> bytes:
        return fingerprint_of("adjust", self.amount_micros, self.note.reason)

    def decide(self, working: WorkingSet, attempt: Attempt) -> Outcome:
        wallet = working.wallet(self.wallet_id)
        if self.amount_micros < 0:
            return crediting.debit(working, wallet, -self.amount_micros, attempt, self.note)
        return crediting.credit(
            working,
            wallet,
            Kind.ADJUSTMENT,
            Origin.ADJUSTMENT,
            self.amount_micros,
            attempt=attempt,
            note=self.note,
        )


class Freeze(Correction, kw_only=True):
    """Stop an account from starting work, or let it start again."""

    frozen: bool

    method: ClassVar[Method] = Method.FREEZE

    def fingerprint(self) -> bytes:
        return fingerprint_of("freeze", self.frozen, self.note.reason)

    def decide(self, working: WorkingSet, attempt: Attempt) -> Outcome:
        # A row whether or not it is so already: what keeps its key, so that it has no effect later.
        return crediting.freeze(
            working, working.wallet(self.wallet_id), attempt, self.note, frozen=self.frozen
        )
