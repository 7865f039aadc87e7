from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
import sys
import threading
from contextlib import ExitStack, contextmanager
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import pytest

from oanim_models import fal
from oanim_models.fal import FalQueue
from oanim_models.inputs import outputs
from oanim_models.tls import trusted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

KEY = "0123-id:very-secret"
T = TypeVar("T")
SMALL = {"image_size": {"width": 16, "height": 16}}
ENDPOINT = "fal-ai/flux/schnell"


def with_queue(url: str, use: Callable[[FalQueue], Awaitable[T]], **options: Any) -> T:
    async def run() -> T:
        async with FalQueue(key=KEY, url=url, **{"answer_timeout_s": 5.0, **options}) as queue:
            return await use(queue)

    return asyncio.run(run())


def body(prompt: str, **more: object) -> bytes:
    return json.dumps({"prompt": prompt, **SMALL, **more}).encode()


async def finished(queue: FalQueue, job: fal.Submitted) -> None:
    while not isinstance(await queue.status(job.status_url), fal.Completed):
        pass


def told(sandbox: httpx.Client, at: str, do: str, **more: object) -> str:
    """Give the sandbox a fault, and answer its url."""
    sandbox.post("/sandbox/faults", json={"at": at, "do": do, **more}).raise_for_status()
    return str(sandbox.base_url)


def submits(sandbox: httpx.Client, prompt: str) -> list[int]:
    """How often each accepted job about a prompt was posted."""
    jobs = sandbox.get("/sandbox/jobs").json()["jobs"]
    return [job["submits"] for job in jobs if job["input"].get("prompt") == prompt]


def posts(sandbox: httpx.Client) -> int:
    count: int = sandbox.get("/sandbox/jobs").json()["submits"]
    return count


def test_the_authorities_are_read_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    real = ssl.SSLContext.load_verify_locations

    def reading(context: ssl.SSLContext, *from_where: Any, **named: Any) -> None:
        read.append(context)
        real(context, *from_where, **named)

    async def made() -> None:
        for _ in range(3):
            async with FalQueue(key=KEY):
                pass

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", reading)
    trusted.cache_clear()
    asyncio.run(made())
    ours = trusted(trust_env=True)
    assert read == [ours]
    assert (ours.verify_mode, ours.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_request_looks_for_no_module(sandbox: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that finds nothing is made again by the next one, through all of sys.path."""
    searched: list[str] = []
    here = threading.get_ident()

    class Noted(MetaPathFinder):
        def find_spec(self, fullname: str, *_of: object) -> None:
            if threading.get_ident() == here:  # and not the sandbox, which looks for its pictures' formats
                searched.append(fullname)

    async def use(queue: FalQueue) -> None:
        await queue.submit(ENDPOINT, body("first"))
        monkeypatch.setattr(sys, "meta_path", [Noted(), *sys.meta_path])
        await queue.submit(ENDPOINT, body("second"))

    with_queue(str(sandbox.base_url), use)
    assert searched == []


@pytest.mark.parametrize("url", ["http://[::1", "http://127.0.0.1:99999"])
def test_an_address_that_is_no_url_is_refused_as_the_others_are(url: str) -> None:
    with pytest.raises(ValueError, match=r"fal\.ai's address"):
        FalQueue(key=KEY, url=url)


def test_a_job_is_submitted_watched_and_its_result_fetched(sandbox: httpx.Client) -> None:
    url = told(sandbox, "submit", "queue", positions=2)
    seen: list[object] = []

    async def use(queue: FalQueue) -> fal.Result:
        job = await queue.submit(ENDPOINT, body("a walk"))
        seen.append(await queue.status(job.status_url))
        await asyncio.to_thread(sandbox.delete, "/sandbox/faults")
        await finished(queue, job)
        return await queue.result(job.response_url)

    result = with_queue(url, use)
    assert seen == [fal.Queued(position=2)]
    assert result.billable_units == "1"
    assert [output.content_type for output in outputs(result.output)] == ["image/png"]
    assert result.output["sandbox"] is True
    assert submits(sandbox, "a walk") == [1]


def test_the_addresses_are_the_ones_the_queue_gave(sandbox: httpx.Client) -> None:
    job = with_queue(str(sandbox.base_url), lambda queue: queue.submit(ENDPOINT, body("addresses")))
    where = str(sandbox.base_url.join(f"/fal-ai/flux/requests/{job.request_id}"))
    assert job == fal.Submitted(job.request_id, f"{where}/status", where, f"{where}/cancel")


def test_an_input_may_be_streamed(sandbox: httpx.Client) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b'{"prompt": "strea'
        yield b'med"}'

    with_queue(str(sandbox.base_url), lambda queue: queue.submit(ENDPOINT, parts(), length=22))
    assert submits(sandbox, "streamed") == [1]


@contextmanager
def answering(*answers: bytes, hang_up: bool = True) -> Iterator[str]:
    """Serve raw bytes, one answer a connection, after the request has been read."""
    with ExitStack() as kept, socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for answer in answers:
                connection, _ = listening.accept()
                kept.enter_context(connection)
                connection.recv(65536)
                connection.sendall(answer)
                if hang_up:
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join(5)


def raw(status: str, content: object = None, *headers: str) -> bytes:
    text = b"" if content is None else json.dumps(content).encode()
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(text)}", "Connection: close", *headers]
    return "\r\n".join([*head, "", ""]).encode() + text


def submit_to(url: str, **options: Any) -> fal.Submitted:
    return with_queue(url, lambda queue: queue.submit(ENDPOINT, body("one")), **options)


def test_a_refused_connection_sent_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(fal.NotSent):
        submit_to(url)


def test_a_name_that_does_not_resolve_sent_nothing() -> None:
    with pytest.raises(fal.NotSent):
        submit_to("https://fal.invalid")


def test_a_connection_that_is_not_made_in_time_sent_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.settimeout(0)
            filler.connect_ex(address)
        try:
            with pytest.raises(fal.NotSent):
                submit_to(f"http://127.0.0.1:{address[1]}", connect_timeout_s=0.3)
        finally:
            for filler in fillers:
                filler.close()


def test_a_failed_handshake_sent_nothing(sandbox: httpx.Client) -> None:
    before = posts(sandbox)
    with pytest.raises(fal.NotSent):
        submit_to(str(sandbox.base_url).replace("http:", "https:"))
    assert posts(sandbox) == before


@pytest.mark.parametrize(("do", "accepted"), [("drop_before", []), ("drop_after", [1])])
def test_a_dropped_submit_is_unknown_and_posted_once(
    sandbox: httpx.Client, do: str, accepted: list[int]
) -> None:
    before = posts(sandbox)
    with pytest.raises(fal.Unknown):
        with_queue(told(sandbox, "submit", do), lambda queue: queue.submit(ENDPOINT, body(do)))
    assert submits(sandbox, do) == accepted
    assert posts(sandbox) == before + 1


def test_an_answer_that_never_comes_is_unknown(sandbox: httpx.Client) -> None:
    url = told(sandbox, "submit", "hang")
    with pytest.raises(fal.Unknown):
        with_queue(url, lambda queue: queue.submit(ENDPOINT, body("silence")), answer_timeout_s=0.3)
    assert submits(sandbox, "silence") == [1]


def test_a_late_answer_is_an_answer(sandbox: httpx.Client) -> None:
    url = told(sandbox, "submit", "late", seconds=0.3)
    with_queue(url, lambda queue: queue.submit(ENDPOINT, body("late")))
    assert submits(sandbox, "late") == [1]


def test_a_server_error_is_unknown(sandbox: httpx.Client) -> None:
    with pytest.raises(fal.Unknown):
        submit_to(told(sandbox, "submit", "500"))


@pytest.mark.parametrize(
    "answer",
    [
        raw("200 OK"),
        raw("200 OK", []),
        raw("200 OK", {"status": "IN_QUEUE"}),
        raw("200 OK", {"request_id": 3}),
        raw("200 OK", {"request_id": ""}),
        raw("302 Found", {"request_id": "a"}, "Location: http://127.0.0.1:1/"),
        raw("503 Service Unavailable", {"request_id": "a"}),
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"SSH-2.0-OpenSSH\r\n",
        b"",
    ],
)
def test_an_answer_that_cannot_be_understood_is_unknown(answer: bytes) -> None:
    with answering(answer) as url, pytest.raises(fal.Unknown):
        submit_to(url)


def test_a_body_that_breaks_off_is_unknown(sandbox: httpx.Client) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b'{"prompt": '
        raise OSError("the disk is gone")

    with pytest.raises(fal.Unknown):
        with_queue(str(sandbox.base_url), lambda queue: queue.submit(ENDPOINT, parts(), length=100))


def test_a_refusal_carries_its_status_and_its_field(sandbox: httpx.Client) -> None:
    with pytest.raises(fal.Rejected) as refused:
        submit_to(told(sandbox, "submit", "422"))
    assert (refused.value.status, refused.value.message) == (
        422,
        "prompt: The content could not be processed because it was flagged by a content checker",
    )


def test_a_wrong_key_is_a_refusal_that_does_not_repeat_it() -> None:
    said = {"detail": f"no user for {KEY} ({KEY.split(':')[1]})"}
    with answering(raw("401 Unauthorized", said)) as url, pytest.raises(fal.Rejected) as refused:
        submit_to(url)
    assert refused.value.message == "no user for *** (***)"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (["Retry-After: 7"], 7.0),
        (["Retry-After: 0.5"], 0.5),
        (["Retry-After: -3"], 0.0),
        (["Retry-After: Thu, 01 Jan 1970 00:00:00 GMT"], 0.0),
        (["Retry-After: 1e14"], 86_400.0),
        (["Retry-After: 1e300"], 86_400.0),
        (["Retry-After: Fri, 31 Dec 9999 23:59:59 GMT"], 86_400.0),
        (["Retry-After: soon"], None),
        (["Retry-After: nan"], None),
        ([], None),
    ],
)
def test_too_many_requests_says_how_long_to_wait(header: list[str], seconds: float | None) -> None:
    answer = raw("429 Too Many Requests", {"detail": "slow"}, *header)
    with answering(answer) as url, pytest.raises(fal.TooManyRequests) as refused:
        submit_to(url)
    assert refused.value.retry_after_s == seconds


def test_submits_after_too_many_requests_go_through(sandbox: httpx.Client) -> None:
    url = told(sandbox, "submit", "429", seconds=2)

    async def use(queue: FalQueue) -> None:
        with pytest.raises(fal.TooManyRequests) as refused:
            await queue.submit(ENDPOINT, body("busy"))
        assert refused.value.retry_after_s == 2.0
        await queue.submit(ENDPOINT, body("busy"))

    with_queue(url, use)
    assert submits(sandbox, "busy") == [2]


def test_each_submit_has_a_connection_of_its_own() -> None:
    answer = raw("200 OK", {"request_id": "a"}).replace(b"Connection: close\r\n", b"")

    async def use(queue: FalQueue) -> list[str]:
        return [(await queue.submit(ENDPOINT, body("one"))).request_id for _ in range(3)]

    # The server keeps each connection open and reads one request from it: on a connection that is used
    # again, a submit finds no answer.
    with answering(answer, answer, answer, hang_up=False) as url:
        assert with_queue(url, use) == ["a", "a", "a"]


def test_addresses_that_are_missing_or_foreign_are_replaced_by_the_documented_ones() -> None:
    given = {"request_id": "a-1", "status_url": "https://evil.example/s", "response_url": 3}
    with answering(raw("200 OK", given)) as url:
        job = submit_to(url)
    where = f"{url}/fal-ai/flux/requests/a-1"
    assert job == fal.Submitted("a-1", f"{where}/status", where, f"{where}/cancel")


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example/fal-ai/flux/requests/1/status",
        "https://queue.fal.run.evil.example/1",
        "https://queue.fal.run@evil.example/1",
        "http://queue.fal.run/1",
        "https://queue.fal.run:8443/1",
        "//queue.fal.run/1",
        "file:///etc/passwd",
        "http://[",
        "",
    ],
)
def test_the_key_goes_to_no_foreign_address(address: str) -> None:
    called = []

    def answer(request: httpx.Request) -> httpx.Response:
        called.append(request)
        return httpx.Response(200, json={})

    async def use(queue: FalQueue) -> None:
        for ask in (queue.status, queue.result, queue.cancel):
            with pytest.raises(fal.ForeignAddress):
                await ask(address)

    with_queue(fal.DEFAULT_URL, use, transport=httpx.MockTransport(answer))
    assert called == []


def test_more_hosts_can_be_configured() -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"status": "COMPLETED"})

    status = with_queue(
        fal.DEFAULT_URL,
        lambda queue: queue.status("https://queue.falrun.com/fal-ai/flux/requests/1/status"),
        hosts=["queue.falrun.com"],
        transport=httpx.MockTransport(answer),
    )
    assert status == fal.Completed()


@pytest.mark.parametrize(
    ("at", "do"),
    [
        *[("status", do) for do in ("500", "429", "drop_before", "drop_after", "hang")],
        *[("result", do) for do in ("429", "drop_before", "drop_after", "hang")],
    ],
)
def test_a_question_without_an_answer_can_be_asked_again(sandbox: httpx.Client, at: str, do: str) -> None:
    async def use(queue: FalQueue) -> str | None:
        job = await queue.submit(ENDPOINT, body("asking again"))
        await finished(queue, job)
        told(sandbox, at, do)
        with pytest.raises(fal.Unavailable):
            await (queue.status(job.status_url) if at == "status" else queue.result(job.response_url))
        assert await queue.status(job.status_url) == fal.Completed()
        return (await queue.result(job.response_url)).billable_units

    assert with_queue(str(sandbox.base_url), use, answer_timeout_s=0.5) == "1"


@pytest.mark.parametrize(("do", "status"), [("422", 422), ("500", 500)])
def test_a_model_s_error_is_final(sandbox: httpx.Client, do: str, status: int) -> None:
    async def use(queue: FalQueue) -> list[int]:
        job = await queue.submit(ENDPOINT, body("bad luck"))
        await finished(queue, job)
        told(sandbox, "result", do)
        found = []
        for _ in range(2):
            with pytest.raises(fal.ModelFailed) as failed:
                await queue.result(job.response_url)
            found.append(failed.value.status)
        return found

    assert with_queue(str(sandbox.base_url), use) == [status, status]


def test_an_input_that_the_model_refuses_is_the_model_s_error(sandbox: httpx.Client) -> None:
    async def use(queue: FalQueue) -> str:
        job = await queue.submit(ENDPOINT, b'{"num_images": 1}')
        await finished(queue, job)
        with pytest.raises(fal.ModelFailed) as failed:
            await queue.result(job.response_url)
        return failed.value.message

    assert with_queue(str(sandbox.base_url), use) == "prompt: Field required"


def test_a_result_that_is_not_there_yet_can_be_asked_for_again(sandbox: httpx.Client) -> None:
    async def use(queue: FalQueue) -> None:
        job = await queue.submit(ENDPOINT, body("early"))
        with pytest.raises(fal.Unavailable):
            await queue.result(job.response_url)

    with_queue(told(sandbox, "submit", "queue"), use)


@pytest.mark.parametrize(
    "answer",
    [
        raw("401 Unauthorized", {"detail": "no"}),
        raw("502 Bad Gateway", {"detail": "no"}),
        raw("500 Internal Server Error"),
        raw("200 OK"),
        raw("302 Found", {}),
    ],
)
def test_a_queue_in_trouble_is_not_the_model_s_error(answer: bytes) -> None:
    with answering(answer) as url, pytest.raises(fal.Unavailable):
        with_queue(url, lambda queue: queue.result(f"{url}/fal-ai/flux/requests/1"))


def test_a_result_too_large_to_be_about_files_is_refused() -> None:
    content = {"image": "x" * (fal.MAX_ANSWER_BYTES + 1)}
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, json=content))
    with pytest.raises(fal.ModelFailed, match="larger"):
        with_queue(
            fal.DEFAULT_URL,
            lambda queue: queue.result(f"{fal.DEFAULT_URL}/fal-ai/flux/requests/1"),
            transport=transport,
        )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"status": "IN_QUEUE", "queue_position": 7}, fal.Queued(7)),
        ({"status": "IN_QUEUE"}, fal.Queued(0)),
        ({"status": "IN_QUEUE", "queue_position": -1}, fal.Queued(0)),
        ({"status": "IN_QUEUE", "queue_position": 3_000_000_000}, fal.Queued(2**31 - 1)),
        ({"status": "IN_QUEUE", "queue_position": 2**64}, fal.Queued(2**31 - 1)),
        ({"status": "IN_PROGRESS", "logs": None}, fal.Running()),
        (
            {"status": "IN_PROGRESS", "logs": [{"message": "step 1", "level": "INFO"}, 3]},
            fal.Running(("step 1",)),
        ),
        ({"status": "COMPLETED", "metrics": {}}, fal.Completed()),
    ],
)
def test_a_status_is_read(content: object, expected: object) -> None:
    with answering(raw("202 Accepted", content)) as url:
        found = with_queue(url, lambda queue: queue.status(f"{url}/fal-ai/flux/requests/1/status"))
    assert found == expected


@pytest.mark.parametrize("content", [{"status": "SLEEPING"}, {}, [], None])
def test_a_status_that_means_nothing_can_be_asked_for_again(content: object) -> None:
    with answering(raw("200 OK", content)) as url, pytest.raises(fal.Unavailable):
        with_queue(url, lambda queue: queue.status(f"{url}/fal-ai/flux/requests/1/status"))


def test_cancelling_says_whether_there_was_something_left_to_cancel(sandbox: httpx.Client) -> None:
    async def use(queue: FalQueue) -> tuple[bool, bool, int]:
        job = await queue.submit(ENDPOINT, body("cancelled"))
        first = await queue.cancel(job.cancel_url)
        await finished(queue, job)
        with pytest.raises(fal.ModelFailed) as failed:
            await queue.result(job.response_url)
        return first, await queue.cancel(job.cancel_url), failed.value.status

    assert with_queue(told(sandbox, "submit", "queue"), use) == (True, False, 499)


def test_the_key_is_in_no_text_and_no_log(sandbox: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    told(sandbox, "submit", "drop_before")
    queue = FalQueue(key=KEY, url=str(sandbox.base_url))

    async def use() -> fal.Unknown:
        async with queue:
            with pytest.raises(fal.Unknown) as lost:
                await queue.submit(ENDPOINT, body("quiet"))
            await queue.submit(ENDPOINT, body("quiet"))
            return lost.value

    error = asyncio.run(use())
    texts = [repr(queue), str(queue), repr(error), repr(error.__cause__), caplog.text]
    assert [text for text in texts if "very-secret" in text] == []
    assert "POST" in caplog.text


@pytest.mark.parametrize("key", ["", "a b", "a\nb", "schlüssel"])
def test_a_key_that_cannot_be_one_is_refused_without_being_repeated(key: str) -> None:
    with pytest.raises(ValueError, match="key is empty or") as refused:
        FalQueue(key=key)
    assert not key or key not in str(refused.value)


@pytest.mark.parametrize("url", ["http://queue.fal.run", "ftp://127.0.0.1", "queue.fal.run"])
def test_the_key_travels_encrypted_or_not_at_all(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        FalQueue(key=KEY, url=url)
