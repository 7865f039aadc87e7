"""Every setting of the server: one frozen object, read once from variables named OANIM_*.

Nothing else reads the environment. A secret has no default, never prints, and an empty one is absence.
Each setting has a heading in docs/settings.md; a test compares the two.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PREFIX = "OANIM_"

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
LogLevel = Literal["debug", "info", "warning", "error"]
SignUp = Literal["open", "closed"]
UnlistedModels = Literal["default", "refuse"]


class BadSettingError(Exception):
    """A setting cannot be used. The message is one sentence that names the variable."""


class Secret:
    """A text that does not show itself: only `reveal` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Secret(...)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the operator decided. The defaults serve one machine: SQLite, loopback, sign-up open."""

    data: Path
    uploads_folder: Path | None = None
    renders_folder: Path | None = None
    database_url: Secret | None = None
    host: str = "127.0.0.1"
    port: int = 50051
    http_host: str = "127.0.0.1"
    http_port: int = 8081
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allow_plaintext: bool = False
    production: bool = False
    log_level: LogLevel = "info"

    sign_up: SignUp = "open"
    free_credits_daily_cap_usd: Decimal = Decimal(100)
    free_credits_expire_days: int | None = None
    trusted_proxies: tuple[IPNetwork, ...] = ()

    price_file: Path | None = None
    price_margin_percent: Decimal = Decimal(0)
    unlisted_models: UnlistedModels = "default"

    fal_key: Secret | None = None
    fal_url: str = "https://queue.fal.run"
    output_hosts: tuple[str, ...] = ("fal.media", "fal.run")

    stripe_key: Secret | None = None
    stripe_webhook_secrets: tuple[Secret, ...] = ()
    stripe_url: str = "https://api.stripe.com"
    public_url: str | None = None
    purchase_maximum_usd: int = 10_000
    bought_credits_expire_days: int | None = None
    stripe_invoices: bool = False
    stripe_automatic_tax: bool = False
    stripe_receipt_mail: bool = False

    render_seconds: int = 1_800
    videos_kept_days: int = 30

    calls_per_second: int = 200
    burst: int = 400
    open_streams: int = 20
    running_generations: int = 20
    leased_renders: int = 10
    service_operations_per_second: int = 10_000
    queue: int = 2_000
    group: int = 1_000
    calls_in_flight: int = 10_000
    streams_per_connection: int = 1_000
    drain_seconds: int = 20

    postgresql_unsafe: bool = False
    bench_echo: bool = False

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise BadSettingError("OANIM_TLS_CERT and OANIM_TLS_KEY are set together or not at all.")
        if self.tls_cert is None and not self.allow_plaintext and not is_loopback(self.host):
            raise BadSettingError(
                f"OANIM_HOST is {self.host}, which other machines reach, and there is no certificate: set "
                "OANIM_TLS_CERT and OANIM_TLS_KEY, or OANIM_ALLOW_PLAINTEXT=1 behind a proxy that has one."
            )
        if self.burst < self.calls_per_second:
            raise BadSettingError("OANIM_BURST is below OANIM_CALLS_PER_SECOND, which it may not be.")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings.

        :raises BadSettingError: for a value that cannot be used, or a variable that is no setting.
        """
        values: dict[str, Any] = {}
        for name, read in _READERS.items():
            variable = PREFIX + name.upper()
            text = environment.get(variable, "").strip()
            if text:
                values[name] = read(variable, text)
        values.setdefault("data", _default_data(environment))
        _refuse_strangers(environment)
        return cls(**values)

    @property
    def database_file(self) -> Path:
        """The embedded database, where no other is named."""
        return self.data / "oanim.db"

    @property
    def uploads(self) -> Path:
        """Where uploaded inputs wait for their work."""
        return self.uploads_folder or self.data / "uploads"

    @property
    def renders(self) -> Path:
        """Where bundles wait for a worker, and videos for their owner."""
        return self.renders_folder or self.data / "renders"

    @property
    def socket(self) -> Path:
        """The local socket: whoever can open it is the operator."""
        return self.data / "oanim.sock"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def variables() -> tuple[str, ...]:
    """The name of every setting's variable."""
    return tuple(PREFIX + name.upper() for name in _READERS)


# Readers: a variable's name and its text in, a value out ---------------------------------------------


def _text(_variable: str, text: str) -> str:
    return text


def _secret(_variable: str, text: str) -> Secret:
    return Secret(text)


def _secrets(_variable: str, text: str) -> tuple[Secret, ...]:
    return tuple(Secret(part.strip()) for part in text.split(",") if part.strip())


def _database_url(variable: str, text: str) -> Secret:
    """Never shown: a password may stand in any part of it."""
    scheme, _, rest = text.partition("://")
    if scheme not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise BadSettingError(f"{variable} is not a url that begins with postgresql://.")
    if rest.partition("?")[0].count("@") > 1:
        # A password ends at its first @: the rest would be taken for a host, and hosts are shown.
        raise BadSettingError(
            f"{variable} has more than one @ before its parameters: in a user or a password, write @ as "
            "%40, : as %3A and / as %2F."
        )
    return Secret(text)


def _path(_variable: str, text: str) -> Path:
    return Path(text).expanduser().absolute()


def _file(variable: str, text: str) -> Path:
    path = _path(variable, text)
    if not path.is_file():
        raise BadSettingError(f"{variable} names {path}, and there is no such file.")
    return path


def _switch(variable: str, text: str) -> bool:
    if text not in ("0", "1"):
        raise BadSettingError(f"{variable} is {text!r}, and must be 0 or 1.")
    return text == "1"


def _whole(least: int, most: int) -> Callable[[str, str], int]:
    def read(variable: str, text: str) -> int:
        if not (text.isascii() and text.isdigit()) or len(text) > 10 or not least <= int(text) <= most:
            raise BadSettingError(
                f"{variable} is {text!r}, and must be a whole number from {least} to {most:,}."
            )
        return int(text)

    return read


def _decimal(most: int, places: int) -> Callable[[str, str], Decimal]:
    def read(variable: str, text: str) -> Decimal:
        try:
            value = Decimal(text)
        except InvalidOperation:
            value = Decimal("NaN")
        if not value.is_finite() or not 0 <= value <= most or value != round(value, places):
            raise BadSettingError(
                f"{variable} is {text!r}, and must be a number from 0 to {most:,} with at most {places} "
                "decimals."
            )
        return value

    return read


def _one_of(*allowed: str) -> Callable[[str, str], str]:
    def read(variable: str, text: str) -> str:
        if text not in allowed:
            raise BadSettingError(f"{variable} is {text!r}, and must be one of: {', '.join(allowed)}.")
        return text

    return read


def _networks(variable: str, text: str) -> tuple[IPNetwork, ...]:
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError:
        raise BadSettingError(
            f"{variable} is {text!r}, and must be addresses or networks between commas, as 10.0.0.0/8."
        ) from None


def _hosts(variable: str, text: str) -> tuple[str, ...]:
    hosts = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    if any("/" in host or not host.isascii() for host in hosts):
        raise BadSettingError(f"{variable} is {text!r}, and must be names of hosts between commas.")
    return hosts


def _url(variable: str, text: str) -> str:
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
    except ValueError:
        parts, host = urlsplit(""), ""
    local = parts.scheme == "http" and is_loopback(host)
    if not (parts.scheme == "https" and host) and not local:
        raise BadSettingError(f"{variable} is {text!r}, and must be an https address, or http on loopback.")
    return text.rstrip("/")


_PORT = _whole(0, 65_535)

_READERS: dict[str, Callable[[str, str], Any]] = {
    "data": _path,
    "uploads_folder": _path,
    "renders_folder": _path,
    "database_url": _database_url,
    "host": _text,
    "port": _PORT,
    "http_host": _text,
    "http_port": _PORT,
    "tls_cert": _file,
    "tls_key": _file,
    "allow_plaintext": _switch,
    "production": _switch,
    "log_level": _one_of(*get_args(LogLevel)),
    "sign_up": _one_of(*get_args(SignUp)),
    "free_credits_daily_cap_usd": _decimal(1_000_000, 6),
    "free_credits_expire_days": _whole(1, 36_500),
    "trusted_proxies": _networks,
    "price_file": _file,
    "price_margin_percent": _decimal(1_000, 6),
    "unlisted_models": _one_of(*get_args(UnlistedModels)),
    "fal_key": _secret,
    "fal_url": _url,
    "output_hosts": _hosts,
    "stripe_key": _secret,
    "stripe_webhook_secrets": _secrets,
    "stripe_url": _url,
    "public_url": _url,
    "purchase_maximum_usd": _whole(5, 900_000),
    "bought_credits_expire_days": _whole(1, 36_500),
    "stripe_invoices": _switch,
    "stripe_automatic_tax": _switch,
    "stripe_receipt_mail": _switch,
    "render_seconds": _whole(1, 86_400),
    "videos_kept_days": _whole(1, 36_500),
    "calls_per_second": _whole(1, 1_000_000),
    "burst": _whole(1, 1_000_000),
    "open_streams": _whole(1, 100_000),
    "running_generations": _whole(1, 100_000),
    "leased_renders": _whole(1, 100_000),
    "service_operations_per_second": _whole(1, 10_000_000),
    "queue": _whole(1, 1_000_000),
    "group": _whole(1, 10_000),
    "calls_in_flight": _whole(1, 1_000_000),
    "streams_per_connection": _whole(1, 1_000_000),
    "drain_seconds": _whole(0, 3_600),
    "postgresql_unsafe": _switch,
    "bench_echo": _switch,
}

# Variables with our prefix that are the client's, and what those of the render worker begin with.
_OF_THE_CLIENT = frozenset({"OANIM_CA_FILE"})
_OF_THE_FARM = "OANIM_FARM_"


def _default_data(environment: Mapping[str, str]) -> Path:
    """The platform's data folder, after the XDG rules."""
    shared = environment.get("XDG_DATA_HOME", "")
    if shared.startswith("/"):
        return Path(shared) / "oanim"
    home = environment.get("HOME", "")
    return (Path(home) if home else Path.home()) / ".local" / "share" / "oanim"


def _refuse_strangers(environment: Mapping[str, str]) -> None:
    """A mistyped name must not leave its setting at the default in silence."""
    known = {*variables(), *_OF_THE_CLIENT}
    for variable in sorted(environment):
        if variable.startswith(PREFIX) and not variable.startswith(_OF_THE_FARM) and variable not in known:
            raise BadSettingError(f"{variable} is no setting of this server: see docs/settings.md.")
