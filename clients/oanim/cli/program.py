"""The command tree's trunk: each branch's module is imported when it, or the help, is asked for."""

from __future__ import annotations

import importlib
from typing import Any

import click

from oanim.cli.command import json_option

# Where each command lives: the module, and the command's name in it.
_COMMANDS = {
    "signup": ("oanim.cli.account", "signup"),
    "login": ("oanim.cli.account", "login"),
    "logout": ("oanim.cli.account", "logout"),
    "whoami": ("oanim.cli.account", "whoami"),
    "api-keys": ("oanim.cli.api_keys", "api_keys"),
    "limits": ("oanim.cli.limits", "limits"),
    "billing": ("oanim.cli.billing.commands", "billing"),
    "usage": ("oanim.cli.usage", "usage"),
    "pricing": ("oanim.cli.pricing", "pricing"),
    "assets": ("oanim.cli.assets.commands", "assets"),
    "init": ("oanim.cli.rendering.commands", "init"),
    "render": ("oanim.cli.rendering.commands", "render"),
}


class _Trunk(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        command: Any = getattr(importlib.import_module(module), name)
        return command if isinstance(command, click.Command) else None


_HELP = """Make animations, pictures, films and sounds with Open Animate, and see what they cost.

\b
ANIMATE_API_KEY, ANIMATE_API_URL   the key and the server, before ~/.oanim/credentials.yaml
ANIMATE_MAX_USD_PER_RUN            what this session may spend; ANIMATE_SESSION_ID names it
ANIMATE_FAL_KEY                    your own fal.ai key: straight to fal.ai, past the service
ANIMATE_BROWSER                    the browser that oanim render draws with
OANIM_CA_FILE, NO_COLOR            a private authority's certificates; no colours
"""


@click.command(cls=_Trunk, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="oanim", message="oanim %(version)s")
@json_option
def program() -> None:
    """Every command goes through here."""
