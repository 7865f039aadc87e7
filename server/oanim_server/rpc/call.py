"""What a servicer is told about the call it answers: who makes it, from where, and whose wallet it may touch.

A servicer's methods take `(self, request, call)`: a unary one is a coroutine of a message or of its bytes, a
streaming one an async generator of messages, and one that takes a stream gets an async iterator of requests.
They raise refusals and nothing else.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from oanim_server.accounts.values import Role
from oanim_server.checkout.rows import reference_of
from oanim_server.ledger import ids
from oanim_server.ledger.refusals import NotFound
from oanim_server.ledger.values import SERVER
from oanim_server.rpc.address import address_of

if TYPE_CHECKING:
    import grpc

    from oanim_server.accounts.values import Caller
    from oanim_server.rpc.address import Networks

Metadata = tuple[tuple[str, str | bytes], ...]

# A service names the same accounts many times a second.
_account_id = lru_cache(maxsize=65_536)(ids.account_id)
# Found once: an enumeration's look-up of its member costs more than comparing it.
_USER = Role.USER


class Call:
    """One call. `caller` is set for every method that asks for a key, and for no other."""

    __slots__ = ("caller", "context", "metadata", "request_id", "trusted_proxies")

    caller: Caller
    context: grpc.aio.ServicerContext[bytes, bytes]
    request_id: str

    def __init__(self, metadata: Metadata, trusted_proxies: Networks) -> None:
        self.metadata = metadata
        self.trusted_proxies = trusted_proxies

    @property
    def actor(self) -> tuple[int, str]:
        """Who does it, for what is kept with a row: the account and the key; 0 and `local` on the socket."""
        caller: Caller | None = getattr(self, "caller", None)
        return (SERVER, "local") if caller is None else (caller.account_id, caller.key_id)

    async def paced(self, operations: int) -> None:
        """Wait until the caller's rate has room for so many operations; where requests are a stream."""
        raise NotImplementedError

    @property
    def address(self) -> str:
        """The network address of the caller, behind proxies that are configured; text without a port."""
        forwarded = [value for key, value in self.metadata if key == "x-forwarded-for"]
        header = ",".join(value for value in forwarded if isinstance(value, str))
        return address_of(self.context.peer(), header, self.trusted_proxies)

    def account(self, named: str) -> int:
        """The account that a request names; empty is the caller's own.

        :raises NotFound: for what is no account's id, or is another's where the caller is a user.
        """
        own = self.caller.account_id
        if not named:
            return own
        try:
            account = _account_id(named)
        except ValueError:
            raise NotFound(what="account") from None
        if account != own and self.caller.role is _USER:
            raise NotFound(what="account")
        return account

    def named_account(self, named: str) -> int:
        """The account that an operator's request names. Raises NotFound for what is no account's id."""
        try:
            return _account_id(named)
        except ValueError:
            raise NotFound(what="account") from None

    def checkout(self, named: str) -> tuple[int, str]:
        """The wallet and the token of the checkout that a request names.

        :raises NotFound: for what is no checkout's id, or is another's where the caller is a user.
        """
        found = reference_of(named)
        caller: Caller | None = getattr(self, "caller", None)
        foreign = caller is not None and caller.role is _USER
        if found is None or (caller is not None and foreign and found[0] != caller.account_id):
            raise NotFound(what="checkout")
        return found

    def reservation(self, named: str, what: str = "reservation") -> tuple[int, int]:
        """The wallet and the number of the reservation that a request names.

        :raises NotFound: for what is no reservation's id, or is another's where the caller is a user.
        """
        try:
            wallet_id, number = ids.reservation_id(named)
        except ValueError:
            raise NotFound(what=what) from None
        if wallet_id != self.caller.account_id and self.caller.role is _USER:
            raise NotFound(what=what)
        return wallet_id, number
