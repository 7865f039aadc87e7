"""The commands about an account's API keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from oanim.cli.command import key_option, with_client
from oanim.cli.failures import Failure
from oanim.cli.showing import Answer, table

if TYPE_CHECKING:
    from oanim.client import Client


@click.group("api-keys")
def api_keys() -> None:
    """Make, list and revoke API keys."""


@api_keys.command()
@click.option("--name", required=True, help="What to call the key.")
@key_option
@with_client
def create(client: Client, *, name: str, key: str | None) -> Answer:
    """Make an API key; it is shown once."""
    from oanim.cli.messages import plain
    from oanim.cli.repeating import note_key, with_key
    from oanim.keys import new_key

    key = key or new_key()
    with note_key(key):
        made = client.create_api_key(name=name, idempotency_key=key)
    if not made.secret:
        raise Failure(f"the key {made.api_key.key_id} was made before, and its secret is shown once.")
    return Answer(
        data=plain(made),
        lines=[made.secret],
        notes=["this key is shown once: keep it now."],
        if_unread=f"The key is made; within 10 minutes this shows it: {with_key(key)}",
    )


@api_keys.command("list")
@with_client
def list_keys(client: Client) -> Answer:
    """List the account's API keys, newest first, without their secrets."""
    from oanim.cli.messages import plain, time, word
    from oanim.cli.paging import items
    from openanimate.metering.v1.role_pb2 import Role

    keys = items(client.list_api_keys, "api_keys")
    rows = [
        (
            key.key_id,
            key.name,
            word(Role.DESCRIPTOR, key.role),
            time(key.created_at),
            f"revoked {time(key.revoked_at)}"
            if key.HasField("revoked_at")
            else "yes"
            if key.used
            else "never",
        )
        for key in keys
    ]
    return Answer(
        data={"api_keys": [plain(key) for key in keys]},
        lines=table(("Key", "Name", "Role", "Made (UTC)", "Used"), rows),
    )


@api_keys.command()
@click.argument("key_id")
@with_client
def revoke(client: Client, *, key_id: str) -> Answer:
    """Revoke an API key by its id, the 8 characters after anim_."""
    from oanim.cli.messages import plain

    revoked = client.revoke_api_key(key_id=key_id)
    return Answer(
        data=plain(revoked), lines=[f"The key {revoked.api_key.key_id} ({revoked.api_key.name}) is revoked."]
    )
