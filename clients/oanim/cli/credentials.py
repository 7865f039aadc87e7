"""Finds the API key and the server: in the environment, else in ~/.oanim/credentials.yaml (0600).

A key and the server that gave it are kept together, and used together: a key of one server is not offered to
another merely because a variable was forgotten. No message here ever holds the key.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from oanim.address import DEFAULT_URL, parse, shown
from oanim.cli import home
from oanim.cli.failures import NOT_SIGNED_IN, USAGE, Failure
from oanim.cli.showing import say

if TYPE_CHECKING:
    from pathlib import Path

KEY_VARIABLE = "ANIMATE_API_KEY"
URL_VARIABLE = "ANIMATE_API_URL"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the file holds; empty where it holds nothing."""

    api_key: str = ""
    api_url: str = ""

    def __repr__(self) -> str:
        return f"Credentials(api_url={self.api_url!r})"


def path() -> Path:
    """Name the file."""
    return home.folder() / "credentials.yaml"


@cache
def stored() -> Credentials:
    """Read the file, and warn when others can read it, too."""
    try:
        with path().open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read()
    except FileNotFoundError:
        return Credentials()
    if mode & _OTHERS:
        say(f"oanim: others can read {path()}. Close it: chmod 600 {path()}")
    import yaml

    try:
        fields = yaml.safe_load(content)
    except yaml.YAMLError:
        fields = ""
    if fields is None:
        return Credentials()
    if not isinstance(fields, dict):
        raise Failure(f"{path()} cannot be read. Write it anew: oanim login", USAGE)
    return Credentials(*(_text(fields.get(name)) for name in ("api_key", "api_url")))


def store(api_key: str) -> None:
    """Keep a key, and the server that the environment names, for the commands to come."""
    import yaml

    fields = {"api_key": api_key}
    if url := api_url():
        fields["api_url"] = url
    home.write(path(), yaml.safe_dump(fields, sort_keys=True).encode())
    stored.cache_clear()


def forget() -> bool:
    """Remove the file; False when there was none."""
    stored.cache_clear()
    try:
        path().unlink()
    except FileNotFoundError:
        return False
    return True


def api_key() -> str:
    """Answer the key, or fail for want of one that is for the server in use."""
    key, url = _of_environment(KEY_VARIABLE), _of_environment(URL_VARIABLE)
    if not (key and url):
        _refuse_a_foreign_key(key, url)
    key = key or stored().api_key
    if not key:
        raise Failure(
            "you are not signed in. Get an account: oanim signup --email you@example.com, "
            "or sign in with a key: oanim login",
            NOT_SIGNED_IN,
        )
    return key


def _refuse_a_foreign_key(key: str, url: str) -> None:
    """Half of a pair from the environment goes with the stored half only where they belong together."""
    kept = stored()
    kept_url = kept.api_url or DEFAULT_URL
    if not kept.api_key or key == kept.api_key:
        return
    if key and kept.api_url:
        raise Failure(
            f"you are not signed in to {kept_url} with the key in {KEY_VARIABLE}. "
            f"Say which server that is for: export {URL_VARIABLE}={DEFAULT_URL}",
            NOT_SIGNED_IN,
        )
    if url and not _is_same(url, kept_url):
        raise Failure(
            f"you are not signed in to {shown(url)}: the stored key is for {kept_url}. "
            f"Sign in: oanim login, or unset {URL_VARIABLE}",
            NOT_SIGNED_IN,
        )


def api_url() -> str:
    """Answer the server's URL; empty is the public service."""
    return _of_environment(URL_VARIABLE) or stored().api_url


def _of_environment(variable: str) -> str:
    return os.environ.get(variable, "").strip()


def _is_same(url: str, other: str) -> bool:
    """Whether both are one server, however they are written."""
    try:
        return parse(url, allow_insecure=True) == parse(other, allow_insecure=True)
    except ValueError:
        return url == other


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""
