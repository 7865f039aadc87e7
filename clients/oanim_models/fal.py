"""A client of fal.ai's queue that knows, of every submit, whether it may have been paid for.

A submit is one POST on a connection of its own. On a connection kept from an earlier call, a peer that
hung up in between would look like a request that was lost on its way, and nobody could tell whether
the job was bought; so submits share no connection, and nothing here ever sends one a second time.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Self

import httpx

from oanim_models.tls import trusted

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable
    from types import TracebackType

DEFAULT_URL = "https://queue.fal.run"

# An answer is JSON about files, not the files.
MAX_ANSWER_BYTES = 8 * 1024 * 1024
# Whatever the queue asks for: a day, and as many before a job as 32 bits count.
MAX_RETRY_AFTER_S = 86_400.0
_MAX_POSITION = (1 << 31) - 1
_MAX_MESSAGE = 500
_LAST_PORT = 65_535
_NOTHING_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


class FalError(Exception):
    """What a call to fal.ai ended with. No message holds the key."""


class NotSent(FalError):
    """No connection was made: nothing was sent, and the submit may be tried again."""


class Unknown(FalError):
    """The submit left this machine and no usable answer came: the job may exist and may be paid for."""


class TooManyRequests(FalError):
    """The submit was turned away for now; `retry_after_s` is what the provider asked for, if it did."""

    def __init__(self, retry_after_s: float | None) -> None:
        super().__init__("fal.ai asks to wait before the next request")
        self.retry_after_s = retry_after_s


class Rejected(FalError):
    """The submit was refused with a 4xx status: there is no job."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"fal.ai refused the request ({status}): {message}")
        self.status = status
        self.message = message


class ModelFailed(FalError):
    """The job ended with the model's error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"the model failed ({status}): {message}")
        self.status = status
        self.message = message


class Unavailable(FalError):
    """A question about a job got no usable answer; the job is what it was, ask again."""


class ForeignAddress(FalError):
    """An address is not on a configured host: it was not called, and the key was not sent."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that exists, and where to ask about it."""

    request_id: str
    status_url: str
    response_url: str
    cancel_url: str


@dataclass(frozen=True, slots=True)
class Queued:
    """The job waits behind `position` others."""

    position: int


@dataclass(frozen=True, slots=True)
class Running:
    """The job runs; `logs` are the model's lines so far."""

    logs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Completed:
    """The job ended, well or not: ask for its result."""


@dataclass(frozen=True, slots=True)
class Result:
    """What the model answered, and the units the provider bills for it, as its header says."""

    output: dict[str, Any]
    billable_units: str | None


class FalQueue:
    """A connection to the queue for one key. Use it as an async context manager, or `aclose()` it.

    `hosts` are more https hosts that the queue's addresses may be on. `answer_timeout_s` is how long any
    one read or write may take. `transport` stands in for the network in tests.
    """

    def __init__(
        self,
        *,
        key: str,
        url: str = DEFAULT_URL,
        hosts: Iterable[str] = (),
        connect_timeout_s: float = 10.0,
        answer_timeout_s: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError("the fal.ai key is empty or has characters that a key does not have")
        self._key = key
        try:
            self._url = httpx.URL(url.rstrip("/"))
        except httpx.InvalidURL as error:
            raise ValueError("fal.ai's address is not a URL") from error
        if (self._url.port or 0) > _LAST_PORT:
            raise ValueError("fal.ai's address has a port that no address has")
        if not _is_safe(self._url):
            raise ValueError("fal.ai's address must be https, or http on loopback")
        self._origins = {_origin(self._url), *(("https", host, 443) for host in hosts)}
        timeout = httpx.Timeout(answer_timeout_s, connect=connect_timeout_s, pool=connect_timeout_s)
        # A proxy from the environment has no business between here and a local stand-in.
        trust_env = not _is_loopback(self._url.host)
        client = partial(
            httpx.AsyncClient,
            timeout=timeout,
            trust_env=trust_env,
            verify=trusted(trust_env=trust_env),
            transport=transport,
        )
        self._submits = client(limits=httpx.Limits(max_keepalive_connections=0))
        self._questions = client()

    def __repr__(self) -> str:
        return f"FalQueue(url={str(self._url)!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._submits.aclose()
        await self._questions.aclose()

    async def submit(
        self, endpoint: str, body: bytes | AsyncIterable[bytes], *, length: int | None = None
    ) -> Submitted:
        """Put a job in the queue with one POST that is never repeated.

        `body` is the input as JSON; `length` is its size in bytes where it is a stream of known size.
        Raises NotSent, TooManyRequests, Rejected or Unknown. A task that is cancelled in here has to
        take the outcome as unknown.
        """
        headers = {"Content-Type": "application/json"}
        if length is not None:
            headers["Content-Length"] = str(length)
        url = self._url.copy_with(path=f"{self._url.path.rstrip('/')}/{endpoint}")
        try:
            answer = await self._call(self._submits, "POST", url, headers=headers, content=body)
        except _NOTHING_SENT as error:
            raise NotSent(f"no connection to fal.ai ({type(error).__name__})") from error
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            raise Unknown(f"fal.ai did not answer the submit ({type(error).__name__})") from error
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            raise TooManyRequests(_retry_after_s(answer.headers))
        if 400 <= answer.status < 500:
            raise Rejected(answer.status, self._message(answer))
        request_id = answer.json.get("request_id") if answer.json else None
        if not 200 <= answer.status < 300 or not isinstance(request_id, str) or not request_id:
            raise Unknown(f"fal.ai answered the submit with {answer.status} and no request id")
        return self._submitted(endpoint, request_id, answer.json or {})

    async def status(self, status_url: str) -> Queued | Running | Completed:
        """Ask how far a job is. Raises Unavailable or ForeignAddress."""
        answer = await self._ask("GET", status_url)
        content = answer.json if answer.json and answer.status in (HTTPStatus.OK, HTTPStatus.ACCEPTED) else {}
        match content.get("status"):
            case "IN_QUEUE":
                position = content.get("queue_position")
                return Queued(min(max(0, position), _MAX_POSITION) if isinstance(position, int) else 0)
            case "IN_PROGRESS":
                return Running(_lines(content.get("logs")))
            case "COMPLETED":
                return Completed()
        raise Unavailable(f"fal.ai answered {answer.status} about a job: {self._message(answer)}")

    async def result(self, response_url: str) -> Result:
        """Fetch what a completed job made. Raises ModelFailed, Unavailable or ForeignAddress."""
        answer = await self._ask("GET", response_url)
        if answer.status == HTTPStatus.OK and answer.json is not None:
            return Result(output=answer.json, billable_units=answer.headers.get("x-fal-billable-units"))
        if answer.too_large:
            raise ModelFailed(answer.status, f"its answer is larger than {MAX_ANSWER_BYTES} bytes")
        message = self._message(answer)
        if _is_final(answer.status) and answer.json is not None and "still in progress" not in message:
            raise ModelFailed(answer.status, message)
        raise Unavailable(f"fal.ai answered {answer.status} for a result: {message}")

    async def cancel(self, cancel_url: str) -> bool:
        """Ask for a job to be cancelled; False when it has ended already.

        True promises nothing: a job that runs may run to its end. Raises Unavailable or ForeignAddress.
        """
        answer = await self._ask("PUT", cancel_url)
        if answer.status in (HTTPStatus.OK, HTTPStatus.ACCEPTED):
            return True
        if answer.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND):
            return False
        raise Unavailable(f"fal.ai answered {answer.status} to a cancellation: {self._message(answer)}")

    async def _ask(self, method: str, address: str) -> _Answer:
        try:
            url = httpx.URL(address)
        except httpx.InvalidURL as error:
            raise ForeignAddress("a job's address is not a URL") from error
        if not self._is_ours(url):
            raise ForeignAddress(f"{url.host} is not a configured host of fal.ai")
        try:
            return await self._call(self._questions, method, url)
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            raise Unavailable(f"fal.ai does not answer ({type(error).__name__})") from error

    async def _call(
        self,
        client: httpx.AsyncClient,
        method: str,
        url: httpx.URL,
        *,
        headers: dict[str, str] | None = None,
        content: bytes | AsyncIterable[bytes] | None = None,
    ) -> _Answer:
        headers = {**(headers or {}), "Authorization": f"Key {self._key}"}
        async with client.stream(method, url, headers=headers, content=content) as response:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    return _Answer(response.status_code, response.headers, None, too_large=True)
            return _Answer(response.status_code, response.headers, _json_object(bytes(body)))

    def _submitted(self, endpoint: str, request_id: str, content: dict[str, Any]) -> Submitted:
        """Take the addresses the queue gave; where one is missing or foreign, the documented one."""
        # The documented addresses leave the model's variant out: owner and application only.
        application = "/".join(endpoint.split("/")[:2])
        documented = f"{self._url}/{application}/requests/{request_id}"
        addresses = []
        for name, otherwise in (
            ("status_url", f"{documented}/status"),
            ("response_url", documented),
            ("cancel_url", f"{documented}/cancel"),
        ):
            given = content.get(name)
            addresses.append(given if isinstance(given, str) and self._is_ours_text(given) else otherwise)
        return Submitted(request_id, *addresses)

    def _is_ours_text(self, address: str) -> bool:
        try:
            return self._is_ours(httpx.URL(address))
        except httpx.InvalidURL:
            return False

    def _is_ours(self, url: httpx.URL) -> bool:
        return _is_safe(url) and _origin(url) in self._origins

    def _message(self, answer: _Answer) -> str:
        """Say what the provider said, shortened, without the key it may have echoed."""
        text = _first_text(answer.json or {}) or "no explanation"
        for secret in (self._key, self._key.partition(":")[2]):
            if secret:
                text = text.replace(secret, "***")
        return text[:_MAX_MESSAGE]


@dataclass(frozen=True, slots=True)
class _Answer:
    """A status, headers, and the body where it is a JSON object."""

    status: int
    headers: httpx.Headers
    json: dict[str, Any] | None
    too_large: bool = False


def _is_final(status: int) -> bool:
    """Whether a status of a result is the model's own; the others say that the queue is in trouble."""
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS):
        return False
    return 400 <= status <= HTTPStatus.INTERNAL_SERVER_ERROR


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _first_text(content: dict[str, Any]) -> str:
    """Find the sentence in an error of fal.ai: `detail` is a text, or a list of `{loc, msg, type}`."""
    detail = content.get("detail")
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        where = detail[0].get("loc")
        field = ".".join(str(step) for step in where if step != "body") if isinstance(where, list) else ""
        said = str(detail[0].get("msg", ""))
        return f"{field}: {said}" if field else said
    for value in (detail, content.get("error"), content.get("message")):
        if isinstance(value, str) and value:
            return value
    return ""


def _lines(logs: object) -> tuple[str, ...]:
    if not isinstance(logs, list):
        return ()
    return tuple(str(line.get("message", ""))[:_MAX_MESSAGE] for line in logs if isinstance(line, dict))


def _retry_after_s(headers: httpx.Headers) -> float | None:
    """Read Retry-After, seconds or a date; None where it says neither."""
    text = headers.get("retry-after", "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(max(0.0, seconds), MAX_RETRY_AFTER_S) if math.isfinite(seconds) else None


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return (url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _is_safe(url: httpx.URL) -> bool:
    """Whether the key may travel there: encrypted, or not leaving this machine."""
    return url.scheme == "https" or (url.scheme == "http" and _is_loopback(url.host))
