"""The commands that open an account and remember its key."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from oanim.cli import credentials
from oanim.cli.command import answering, key_option, opened, with_client, with_public_client
from oanim.cli.failures import USAGE, Failure
from oanim.cli.money import dollars
from oanim.cli.showing import Answer, say

if TYPE_CHECKING:
    from oanim.client import Client


@click.command()
@click.option("--email", required=True, help="The e-mail address of the account.")
@click.option("--yes", is_flag=True, help="Replace the key that is stored, without asking.")
@key_option
@with_public_client
def signup(client: Client, *, email: str, yes: bool, key: str | None) -> Answer:
    """Open an account with free credits, and keep its key in ~/.oanim/credentials.yaml."""
    from oanim.cli.messages import plain
    from oanim.cli.repeating import note_key
    from oanim.keys import new_key

    _ask_before_replacing(yes=yes)
    key = key or new_key()
    with note_key(key):
        opened_account = client.sign_up(email=email, idempotency_key=key)
        if not opened_account.secret:
            raise Failure("this account was opened before, and its key is shown once. Sign in: oanim login")
        try:
            credentials.store(opened_account.secret)
        except (OSError, Failure) as error:
            # It is shown once: losing it here would lose the account.
            say(f"oanim: the key could not be stored; keep it yourself: {opened_account.secret}")
            if isinstance(error, Failure):
                raise
            raise Failure(f"{credentials.path()}: {error.strerror}") from error
    wallet = opened_account.wallet
    return Answer(
        data=plain(opened_account),
        lines=[
            f"Account {opened_account.account_id} has {dollars(wallet.available_micros)} of free credits.",
            f"Its key {opened_account.api_key.key_id} is kept in {credentials.path()}.",
            'Make something: oanim assets gen-image --prompt "gradient" --out bg.png',
        ],
        notes=_environment_notes(),
    )


@click.command()
@click.option("--token", help="The API key; without it, it is asked for.")
@answering
def login(*, token: str | None) -> Answer:
    """Check an API key, and keep it in ~/.oanim/credentials.yaml."""
    from oanim.cli.messages import plain

    key = (token if token is not None else _asked_for()).strip()
    if not key:
        raise Failure("an API key is needed: oanim login --token anim_...", USAGE)
    with opened(key) as client:
        caller = client.who_am_i()
    credentials.store(key)
    return Answer(
        data=plain(caller),
        lines=[f"Signed in as {caller.email or caller.account_id} with the key {caller.api_key.key_id}."],
        notes=_environment_notes(),
    )


@click.command()
@answering
def logout() -> Answer:
    """Forget the stored API key; it stays valid until it is revoked."""
    forgotten = credentials.forget()
    return Answer(
        data={"signed_out": forgotten},
        lines=["Signed out; the key itself stays valid." if forgotten else "No key was stored."],
        notes=_environment_notes(),
    )


@click.command()
@with_client
def whoami(client: Client) -> Answer:
    """Show whose API key is in use, and what the service allows it."""
    from oanim.cli.messages import plain, word
    from openanimate.metering.v1.role_pb2 import Role

    caller = client.who_am_i()
    limits = caller.rate_limits
    role = word(Role.DESCRIPTOR, caller.api_key.role)
    server = credentials.api_url() or "the public service"
    sandbox = ", a sandbox" if caller.sandbox else ""
    return Answer(
        data=plain(caller),
        lines=[
            f"Account  {caller.account_id}",
            f"E-mail   {caller.email or '-'}",
            f"Key      {caller.api_key.key_id} ({caller.api_key.name}, {role})",
            f"Limits   {limits.calls_per_second} calls/s, {limits.burst} at once",
            f"         {limits.open_streams} open streams, {limits.running_generations} running generations",
            f"         {limits.leased_renders} renders at work, the others wait",
            f"Server   {server}, version {caller.server_version}{sandbox}",
        ],
    )


def _ask_before_replacing(*, yes: bool) -> None:
    if yes or not credentials.stored().api_key:
        return
    if not sys.stdin.isatty():
        raise Failure(f"{credentials.path()} holds a key already. Replace it: add --yes", USAGE)
    if not click.confirm(f"{credentials.path()} holds a key already. Replace it?", err=True):
        raise Failure("nothing was done, the stored key is kept.")


def _asked_for() -> str:
    if sys.stdin.isatty():
        answer: str = click.prompt("API key", hide_input=True, err=True)
        return answer
    return sys.stdin.readline()


def _environment_notes() -> list[str]:
    if os.environ.get(credentials.KEY_VARIABLE, "").strip():
        return [f"{credentials.KEY_VARIABLE} is set and goes before the stored key."]
    return []
