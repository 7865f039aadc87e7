from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from oanim_server.sandbox import FalSandbox
from tests import loopback

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SMALL = {"width": 16, "height": 16}


def submit(fal: httpx.Client, prompt: str, endpoint: str = "fal-ai/flux/schnell") -> dict[str, Any]:
    answer = fal.post(f"/{endpoint}", json={"prompt": prompt, "image_size": SMALL}).raise_for_status()
    content: dict[str, Any] = answer.json()
    return content


def until_completed(fal: httpx.Client, job: dict[str, Any]) -> None:
    while fal.get(job["status_url"]).json()["status"] != "COMPLETED":
        pass


def listed(fal: httpx.Client, prompt: str) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = fal.get("/sandbox/jobs").json()["jobs"]
    return [job for job in jobs if job["input"].get("prompt") == prompt]


def test_a_job_s_addresses_leave_the_variant_out(fal: httpx.Client) -> None:
    job = submit(fal, "addresses")
    where = str(fal.base_url.join(f"/fal-ai/flux/requests/{job['request_id']}"))
    assert job == {
        "request_id": job["request_id"],
        "status": "IN_QUEUE",
        "queue_position": 0,
        "response_url": where,
        "status_url": f"{where}/status",
        "cancel_url": f"{where}/cancel",
    }
    assert fal.get(job["status_url"].replace("fal-ai/flux", "fal-ai/flux/schnell")).status_code == 405
    assert fal.get(job["status_url"].replace("flux", "veo3.1")).status_code == 404


@pytest.mark.parametrize("method", ["submit", "status", "result", "cancel"])
def test_nothing_works_without_a_key(fal: httpx.Client, method: str) -> None:
    job = submit(fal, "keys")
    requests = {
        "submit": ("POST", f"{fal.base_url}/fal-ai/flux/schnell"),
        "status": ("GET", job["status_url"]),
        "result": ("GET", job["response_url"]),
        "cancel": ("PUT", job["cancel_url"]),
    }
    verb, url = requests[method]
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Key"}):
        assert loopback.request(verb, url, headers=headers, json={}).status_code == 401


def test_a_job_queues_runs_and_is_billed_once_it_is_done(fal: httpx.Client) -> None:
    fault = {"at": "submit", "do": "queue", "positions": 2, "match": "patience"}
    fal.post("/sandbox/faults", json=fault).raise_for_status()
    job = submit(fal, "patience")
    status = fal.get(job["status_url"])
    assert (status.status_code, status.json()["status"], status.json()["queue_position"]) == (
        202,
        "IN_QUEUE",
        2,
    )
    early = fal.get(job["response_url"])
    assert (early.status_code, early.json()) == (400, {"detail": "Request is still in progress"})
    assert [known["billed"] for known in listed(fal, "patience")] == [False]
    fal.delete("/sandbox/faults").raise_for_status()
    until_completed(fal, job)
    result = fal.get(job["response_url"])
    assert (result.status_code, result.headers["x-fal-billable-units"]) == (200, "1")
    assert listed(fal, "patience") == [
        {
            "request_id": job["request_id"],
            "endpoint": "fal-ai/flux/schnell",
            "input": {"prompt": "patience", "image_size": SMALL},
            "status": "COMPLETED",
            "cancelled": False,
            "billed": True,
            "submits": 1,
        }
    ]


def test_the_position_falls_while_a_job_queues(fal: httpx.Client) -> None:
    fault = {"at": "submit", "do": "queue", "positions": 3, "seconds": 0.3}
    fal.post("/sandbox/faults", json=fault).raise_for_status()
    job = submit(fal, "falling")
    seen = []
    while (status := fal.get(job["status_url"]).json())["status"] == "IN_QUEUE":
        seen.append(status["queue_position"])
    assert list(dict.fromkeys(seen)) == [3, 2, 1]
    assert seen == sorted(seen, reverse=True)


def test_a_queued_job_is_cancelled_and_never_billed(fal: httpx.Client) -> None:
    fal.post("/sandbox/faults", json={"at": "submit", "do": "queue"}).raise_for_status()
    job = submit(fal, "never mind")
    assert fal.put(job["cancel_url"]).status_code == 202
    until_completed(fal, job)
    assert fal.get(job["response_url"]).status_code == 499
    assert fal.put(job["cancel_url"]).status_code == 400
    assert [(known["cancelled"], known["billed"]) for known in listed(fal, "never mind")] == [(True, False)]


def test_a_job_that_ended_cannot_be_cancelled(fal: httpx.Client) -> None:
    job = submit(fal, "too late")
    until_completed(fal, job)
    assert fal.put(job["cancel_url"]).json() == {"status": "ALREADY_COMPLETED"}
    assert fal.put(job["cancel_url"].replace(job["request_id"], "other")).json() == {"status": "NOT_FOUND"}


def test_words_of_a_prompt_make_nothing_fail(fal: httpx.Client) -> None:
    job = submit(fal, "fail 500 422 drop hang timeout error")
    until_completed(fal, job)
    assert fal.get(job["response_url"]).status_code == 200


def test_the_same_submit_twice_is_counted_twice(fal: httpx.Client) -> None:
    submit(fal, "again")
    submit(fal, "again")
    assert [known["submits"] for known in listed(fal, "again")] == [2, 2]


def test_data_urls_are_shortened_in_the_list_of_jobs(fal: httpx.Client) -> None:
    asked = {"prompt": "long", "image_url": "data:image/png;base64," + "A" * 1000}
    fal.post("/fal-ai/flux-pro/kontext", json=asked).raise_for_status()
    [job] = listed(fal, "long")
    assert job["input"]["image_url"] == asked["image_url"][:80] + "... (1022 characters)"


def made(fal: httpx.Client, prompt: str) -> str:
    """Make a picture and answer where it is."""
    job = submit(fal, prompt)
    until_completed(fal, job)
    url: str = fal.get(job["response_url"]).json()["images"][0]["url"]
    return url


def test_a_file_can_be_gone(fal: httpx.Client) -> None:
    url = made(fal, "fleeting")
    fal.post("/sandbox/faults", json={"at": "output", "do": "gone", "times": None}).raise_for_status()
    assert [fal.get(url).status_code for _ in range(3)] == [404, 404, 404]
    fal.delete("/sandbox/faults").raise_for_status()
    assert fal.get(url).status_code == 200


def test_a_download_can_break_off_half_way(fal: httpx.Client) -> None:
    url = made(fal, "torn")
    whole = fal.get(url).content
    fal.post("/sandbox/faults", json={"at": "output", "do": "drop_after"}).raise_for_status()
    with fal.stream("GET", url) as answer:
        assert int(answer.headers["content-length"]) == len(whole)
        chunks = answer.iter_raw()
        assert next(chunks) == whole[: len(whole) // 2]
        with pytest.raises(httpx.RemoteProtocolError):
            next(chunks)
    assert fal.get(url).content == whole


def test_a_fault_strikes_only_what_it_names_and_as_often_as_it_says(fal: httpx.Client) -> None:
    fault = {"at": "submit", "do": "500", "match": "unlucky", "times": 2}
    fal.post("/sandbox/faults", json=fault).raise_for_status()
    prompts = ["a fox", "unlucky", "fine", "an unlucky fox", "unlucky"]
    answers = [fal.post("/fal-ai/lora", json={"prompt": prompt}).status_code for prompt in prompts]
    assert answers == [200, 500, 200, 500, 200]


@pytest.mark.parametrize(
    "fault",
    [
        [],
        {"at": "submit"},
        {"at": "submit", "do": "gone"},
        {"at": "elsewhere", "do": "500"},
        {"at": "submit", "do": "500", "times": 0},
        {"at": "submit", "do": "late", "seconds": -1},
        {"at": "submit", "do": "500", "surprise": 1},
        {"at": "submit", "do": "queue", "positions": 0},
        {"at": "submit", "do": "500", "match": 1},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(fal: httpx.Client, fault: object) -> None:
    answer = fal.post("/sandbox/faults", json=fault)
    assert (answer.status_code, list(answer.json())) == (400, ["detail"])


def test_a_body_that_is_not_an_object_is_refused_at_once(fal: httpx.Client) -> None:
    for body in (b"", b"[]", b"{"):
        answer = fal.post("/fal-ai/flux/schnell", content=body)
        assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, "json_invalid")


def test_stopping_hangs_up_and_removes_the_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sandbox = FalSandbox()
    with sandbox, loopback.client(base_url=sandbox.url, headers={"Authorization": "Key k"}) as fal:
        until_completed(fal, submit(fal, "short life"))
        assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".png"]
        url = sandbox.url
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(httpx.ConnectError):
        loopback.get(f"{url}/sandbox/jobs")


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "oanim_server.sandbox"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as running:
        yield running
        running.kill()


def test_as_a_process_it_prints_the_urls_and_ends_on_sigterm(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    url, stripe_url = (process.stdout.readline().strip() for _ in range(2))
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
    assert loopback.get(f"{url}/sandbox/jobs").json() == {"jobs": [], "submits": 0}
    assert loopback.get(f"{stripe_url}/sandbox/state").json()["events"] == []
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    said = process.stderr.read()
    assert f"sandbox of fal.ai at {url}" in said
    assert f"sandbox of Stripe at {stripe_url}" in said
