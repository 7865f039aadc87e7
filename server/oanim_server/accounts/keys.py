"""API keys: `anim_`, 8 characters that name the key, `_`, 24 that are its secret; all base62.

Stored is the SHA-256 of the whole key, and a plain hash is enough: nobody guesses 142 random bits. The
secret part is never in a `repr`, so that no log can have it by accident.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from dataclasses import dataclass, field

_ALPHABET = string.digits + string.ascii_letters
_KEY = re.compile(r"anim_([0-9A-Za-z]{8})_([0-9A-Za-z]{24})")


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


@dataclass(frozen=True, slots=True)
class Key:
    """A key with its secret, while it is made or shown."""

    key_id: str = field(default_factory=lambda: _random(8))
    secret: str = field(default_factory=lambda: _random(24), repr=False)

    @property
    def token(self) -> str:
        """The key as its owner keeps it."""
        return f"anim_{self.key_id}_{self.secret}"

    @property
    def secret_hash(self) -> bytes:
        """What is stored of it."""
        return hash_of(self.token)


def hash_of(token: str) -> bytes:
    """What is stored, and remembered, in place of a key."""
    return hashlib.sha256(token.encode(errors="replace")).digest()


def key_id_of(token: str) -> str | None:
    """The public part of a key; None for what is not shaped like one."""
    found = _KEY.fullmatch(token)
    return found[1] if found else None
