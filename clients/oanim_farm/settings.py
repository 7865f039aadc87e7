"""Every setting of a worker: one frozen object, read once from variables named OANIM_FARM_*.

Where the service is and with which key it is called are the SDK's own: ANIMATE_API_URL, ANIMATE_API_KEY and
OANIM_CA_FILE. Each setting has a heading in docs/farm.md; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PREFIX = "OANIM_FARM_"
# What a browser puts below a slot's folder leads to a socket, and the name of one has 107 bytes.
MAX_FOLDER_BYTES = 38


class BadSettingError(Exception):
    """A setting cannot be used. The message is one sentence that names the variable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the operator decided."""

    folder: Path
    slots: int = 1
    memory_bytes: int = 4_000_000_000
    browser: str | None = None
    drain_seconds: int = 30

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings.

        :raises BadSettingError: for a value that cannot be used, or a variable that is no setting.
        """
        for variable in sorted(environment):
            if variable.startswith(PREFIX) and variable not in variables():
                raise BadSettingError(f"{variable} is no setting of a worker: see docs/farm.md.")
        values: dict[str, Any] = {"folder": _default_folder(environment)}
        for name, read in _READERS.items():
            text = environment.get(PREFIX + name.upper(), "").strip()
            if text:
                values[name] = read(PREFIX + name.upper(), text)
        settings = cls(**values)
        if len(bytes(settings.folder)) > MAX_FOLDER_BYTES:
            raise BadSettingError(
                f"OANIM_FARM_FOLDER is {settings.folder}, and its path may have {MAX_FOLDER_BYTES} bytes: a "
                "browser keeps a socket below it, whose name has a limit."
            )
        return settings


def variables() -> tuple[str, ...]:
    """The name of every setting's variable."""
    return tuple(PREFIX + name.upper() for name in _READERS)


def _text(_variable: str, text: str) -> str:
    return text


def _path(_variable: str, text: str) -> Path:
    return Path(text).expanduser().absolute()


def _whole(least: int, most: int) -> Callable[[str, str], int]:
    def read(variable: str, text: str) -> int:
        if not (text.isascii() and text.isdigit()) or len(text) > 15 or not least <= int(text) <= most:
            raise BadSettingError(
                f"{variable} is {text!r}, and must be a whole number from {least:,} to {most:,}."
            )
        return int(text)

    return read


_READERS: dict[str, Callable[[str, str], Any]] = {
    "folder": _path,
    "slots": _whole(1, 64),
    "memory_bytes": _whole(500_000_000, 1_000_000_000_000),
    "browser": _text,
    "drain_seconds": _whole(0, 86_400),
}


def _default_folder(environment: Mapping[str, str]) -> Path:
    """A folder of the platform's for what can be made anew."""
    shared = environment.get("XDG_CACHE_HOME", "")
    if shared.startswith("/"):
        return Path(shared) / "oanim-farm"
    home = environment.get("HOME", "")
    return (Path(home) if home else Path.home()) / ".cache" / "oanim-farm"
