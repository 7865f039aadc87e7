"""Recognises keys: from memory on the path of every call, from the database the first time.

What is remembered is believed only while the poller has lately learnt which keys were revoked: a replica
that cannot ask forgets nothing, but it asks the database about every call, and fails when that fails.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING

from oanim_server.accounts import rows
from oanim_server.accounts.keys import hash_of, key_id_of
from oanim_server.accounts.refusals import KeyInvalid
from oanim_server.accounts.values import Caller, Role

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from oanim_server.database.engine import Database
    from oanim_server.ledger.ledger import Ledger

log = logging.getLogger(__name__)

# A revoked key is refused everywhere within TRUST_SECONDS; a poll every POLL_SECONDS leaves time for two.
POLL_SECONDS = 2.0
TRUST_SECONDS = 5.0
# How long a bad key is refused without asking again: it cannot become good.
REFUSED_SECONDS = 10.0
REMEMBERED_KEYS = 100_000
REMEMBERED_BAD_KEYS = 10_000
# Keys that nobody knows must not take all the brief readers: the poll needs one.
LOOK_UPS = 2
STOP_SECONDS = 1.0


class Authenticator:
    """Tells whose key a call carries. All of it runs on one event loop.

    :param clock: seconds that only go forward.
    """

    def __init__(
        self, database: Database, ledger: Ledger, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._clock = clock
        # By the hash of the key, never by the key.
        self._callers: OrderedDict[bytes, Caller] = OrderedDict()
        self._hashes: dict[str, bytes] = {}
        self._bad: OrderedDict[bytes, float] = OrderedDict()
        self._looking: dict[bytes, asyncio.Task[Caller | None]] = {}
        self._turns = asyncio.Semaphore(LOOK_UPS)
        self._seen: int | None = None
        self._trusted_until = float("-inf")
        # Grows whenever revocations were learnt: what was read before is then not remembered.
        self._learnt = 0
        self._poller: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to learn of revocations."""
        self._poller = asyncio.get_running_loop().create_task(self._keep_polling(), name="revocations")

    async def stop(self) -> None:
        """Stop learning, and let what is being looked up end."""
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
        if self._looking:
            _, hanging = await asyncio.wait(self._looking.values(), timeout=STOP_SECONDS)
            for looking in hanging:
                looking.cancel()
            await asyncio.gather(*hanging, return_exceptions=True)

    def peek(self, token: str) -> Caller | None:
        """The caller, when the key is remembered and may be believed; None says nothing about the key."""
        if self._clock() >= self._trusted_until:
            return None
        secret_hash = hash_of(token)
        caller = self._callers.get(secret_hash)
        if caller is not None:
            self._callers.move_to_end(secret_hash)
        return caller

    async def authenticate(self, token: str) -> Caller:
        """Tell whose key this is; the first use of a key is durable when this returns.

        :raises KeyInvalid: for a key that is unknown, revoked, or none.
        """
        caller = self.peek(token)
        if caller is not None:
            return caller
        key_id = key_id_of(token)
        if key_id is None:
            raise KeyInvalid
        secret_hash = hash_of(token)
        if self._clock() < self._bad.get(secret_hash, float("-inf")):
            raise KeyInvalid
        looking = self._looking.get(secret_hash)
        if looking is None:
            looking = asyncio.create_task(self._look_up(key_id, secret_hash))
            self._looking[secret_hash] = looking
            looking.add_done_callback(partial(self._looked_up, secret_hash))
        # Shielded: a caller that hangs up does not take the answer from the others.
        found = await asyncio.shield(looking)
        if found is None:
            raise KeyInvalid
        return found

    def forget(self, key_id: str) -> None:
        """Accept a key no longer, here and now: it was revoked."""
        self._learnt += 1
        secret_hash = self._hashes.pop(key_id, None)
        if secret_hash is not None:
            del self._callers[secret_hash]

    async def poll(self) -> None:
        """Learn which keys were revoked, here or by another server."""
        began = self._clock()
        self._seen, revoked = await self._database.read_briefly(partial(rows.revoked_since, seen=self._seen))
        self._learnt += 1
        for key_id in revoked:
            self.forget(key_id)
        self._trusted_until = began + TRUST_SECONDS

    async def _keep_polling(self) -> None:
        while True:
            try:
                await self.poll()
            except Exception as error:  # noqa: BLE001 - whatever it is, keys are looked up until it has passed
                log.warning("revoked keys could not be read", extra={"error": type(error).__name__})
            await asyncio.sleep(POLL_SECONDS)

    async def _look_up(self, key_id: str, secret_hash: bytes) -> Caller | None:
        learnt = self._learnt
        async with self._turns:
            row = await self._database.read_briefly(partial(rows.key_named, key_id=key_id))
        if row is None or not hmac.compare_digest(row.secret_hash, secret_hash) or row.revoked_at is not None:
            self._refuse(secret_hash)
            return None
        if row.first_used_at is None:
            use = partial(_use_first, key_id=key_id, secret_hash=secret_hash)
            if not await self._ledger.write(use):
                self._refuse(secret_hash)
                return None
        caller = Caller(row.account_id, key_id, Role(row.role))
        if learnt == self._learnt and self._clock() < self._trusted_until:
            self._remember(secret_hash, caller)
        return caller

    def _looked_up(self, secret_hash: bytes, looking: asyncio.Task[Caller | None]) -> None:
        del self._looking[secret_hash]
        if not looking.cancelled():
            looking.exception()  # nobody may be left who waits for it

    def _remember(self, secret_hash: bytes, caller: Caller) -> None:
        self._callers[secret_hash] = caller
        self._hashes[caller.key_id] = secret_hash
        if len(self._callers) > REMEMBERED_KEYS:
            _, oldest = self._callers.popitem(last=False)
            del self._hashes[oldest.key_id]

    def _refuse(self, secret_hash: bytes) -> None:
        self._bad[secret_hash] = self._clock() + REFUSED_SECONDS
        if len(self._bad) > REMEMBERED_BAD_KEYS:
            self._bad.popitem(last=False)


def _use_first(connection: Connection, now: int, *, key_id: str, secret_hash: bytes) -> bool:
    return rows.use_first(connection, key_id, secret_hash, now)
