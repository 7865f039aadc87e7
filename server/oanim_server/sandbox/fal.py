"""The HTTP side of the sandbox: fal.ai's queue, the files it made, and the control endpoints.

Paths of a job drop the model's variant, as fal.ai's do, so that a client that builds them from the
endpoint it called does not get by here either.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from oanim_server.sandbox.faults import Faults, parse
from oanim_server.sandbox.hanging import Patience, gone, hang_up
from oanim_server.sandbox.jobs import Jobs, Wait, about
from oanim_server.sandbox.serving import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from starlette.requests import Request

    from oanim_server.sandbox.faults import Fault
    from oanim_server.sandbox.jobs import Job

_STATUS_OF = {"IN_QUEUE": 202, "IN_PROGRESS": 202, "COMPLETED": 200}
_CONTENT_TYPES = {".png": "image/png", ".mp4": "video/mp4", ".wav": "audio/wav"}
_DROPS = {"drop_before", "drop_after", "late", "hang", "429", "500"}
_FAULTS = {
    "submit": _DROPS | {"422", "queue"},
    "status": _DROPS,
    "result": _DROPS | {"422"},
    "output": _DROPS | {"gone"},
}


class FalSandbox(Sandbox):
    """A fal.ai of your own.

    `pace_s` is how long each job queues and how long it runs at least, so that there is something to see.
    """

    def __init__(self, *, port: int = 0, pace_s: float = 0.0) -> None:
        super().__init__("fal.ai", lambda folder, _url: _Fal(folder, pace_s=pace_s), port=port)


class _Fal:
    def __init__(self, folder: Path, *, pace_s: float) -> None:
        self._jobs = Jobs(folder, pace_s)
        self._faults = Faults()
        self._patience = Patience()
        job = "/{owner}/{application}/requests/{request_id}"
        self.app = Starlette(
            routes=[
                Route("/sandbox/faults", self._add_fault, methods=["POST"]),
                Route("/sandbox/faults", self._clear_faults, methods=["DELETE"]),
                Route("/sandbox/jobs", self._list_jobs, methods=["GET"]),
                Route("/files/{request_id}/{name}", self._file, methods=["GET"]),
                Route(f"{job}/status", self._status, methods=["GET"]),
                Route(f"{job}/cancel", self._cancel, methods=["PUT"]),
                Route(job, self._result, methods=["GET"]),
                Route("/{endpoint:path}", self._submit, methods=["POST"]),
            ]
        )

    async def close(self) -> None:
        """Let go of every connection that waits, and end the jobs."""
        self._patience.end()
        await self._jobs.close()

    async def _add_fault(self, request: Request) -> Response:
        try:
            fault = parse(json.loads(await request.body()), _FAULTS)
        except ValueError as error:
            return JSONResponse({"detail": str(error)}, HTTPStatus.BAD_REQUEST)
        self._faults.add(fault)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def _clear_faults(self, _request: Request) -> Response:
        self._faults.clear()
        self._jobs.nudge()
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def _list_jobs(self, _request: Request) -> Response:
        return JSONResponse(self._jobs.listed())

    async def _submit(self, request: Request) -> Response:
        endpoint = request.path_params["endpoint"]
        body = await request.body()
        asked = _object(body)
        digest = self._jobs.count_submit(endpoint, body)
        fault = self._faults.take("submit", about(endpoint, asked or {}))
        if fault and fault.do in ("drop_before", "429", "422", "500"):
            return await self._strike(request, fault)
        if not _has_key(request):
            return _unauthorised()
        if asked is None:
            return _refused(("body",), "Input should be a valid JSON object", "json_invalid")
        if endpoint.count("/") < 1:
            return JSONResponse({"detail": "Application not found"}, HTTPStatus.NOT_FOUND)
        wait = Wait(fault.positions, fault.seconds) if fault and fault.do == "queue" else None
        url = str(request.base_url).rstrip("/")
        job = self._jobs.accept(endpoint, asked, digest=digest, url=url, wait=wait)
        if fault and fault.do in ("drop_after", "hang"):
            return await self._strike(request, fault)
        if fault and fault.do == "late":
            await self._patience.rest(fault.seconds)
        return JSONResponse({**_addresses(url, job), **_progress(job)})

    async def _status(self, request: Request) -> Response:
        job, answer = await self._job("status", request)
        if job is None:
            return answer
        content = {**_addresses(str(request.base_url).rstrip("/"), job), **_progress(job)}
        if request.query_params.get("logs") == "1":
            content["logs"] = [{"message": "this is a sandbox", "level": "INFO"}]
        return JSONResponse(content, _STATUS_OF[job.status])

    async def _result(self, request: Request) -> Response:
        job, answer = await self._job("result", request)
        if job is None:
            return answer
        if job.status != "COMPLETED":
            return JSONResponse({"detail": "Request is still in progress"}, HTTPStatus.BAD_REQUEST)
        if job.failure:
            return JSONResponse(job.failure[1], job.failure[0])
        return JSONResponse(job.result, headers={"x-fal-billable-units": str(job.quantity)})

    async def _cancel(self, request: Request) -> Response:
        if not _has_key(request):
            return _unauthorised()
        job = self._jobs.get(request.path_params["request_id"])
        if job is None:
            return JSONResponse({"status": "NOT_FOUND"}, HTTPStatus.NOT_FOUND)
        if self._jobs.cancel(job):
            return JSONResponse({"status": "CANCELLATION_REQUESTED"}, HTTPStatus.ACCEPTED)
        return JSONResponse({"status": "ALREADY_COMPLETED"}, HTTPStatus.BAD_REQUEST)

    async def _file(self, request: Request) -> Response:
        job = self._jobs.get(request.path_params["request_id"])
        path = job.files.get(request.path_params["name"]) if job else None
        if job is None or path is None:
            return JSONResponse({"detail": "Not Found"}, HTTPStatus.NOT_FOUND)
        content_type = _CONTENT_TYPES[path.suffix]
        fault = self._faults.take("output", about(job.endpoint, job.asked))
        if fault and fault.do == "drop_after":
            headers = {"content-length": str(path.stat().st_size)}
            return StreamingResponse(_half(request, path), headers=headers, media_type=content_type)
        if fault and fault.do != "late":
            return await self._strike(request, fault)
        if fault:
            await self._patience.rest(fault.seconds)
        return FileResponse(path, media_type=content_type)

    async def _job(self, at: str, request: Request) -> tuple[Job | None, Response]:
        """Find the job a question is about, or the answer to give instead."""
        if not _has_key(request):
            return None, _unauthorised()
        params = request.path_params
        job = self._jobs.get(params["request_id"])
        if job is None or job.application != f"{params['owner']}/{params['application']}":
            return None, JSONResponse({"detail": "Request not found"}, HTTPStatus.NOT_FOUND)
        # A result that is not there yet is no place for a fault to be used up.
        ready = at == "status" or job.status == "COMPLETED"
        fault = self._faults.take(at, about(job.endpoint, job.asked)) if ready else None
        if fault is None:
            return job, Response()
        if fault.do == "late":
            await self._patience.rest(fault.seconds)
            return job, Response()
        if at == "result" and fault.do in ("422", "500"):
            # The model failed: whoever asks again is told the same.
            job.failure = (int(fault.do), _error_body(fault.do))
            return job, Response()
        return None, await self._strike(request, fault)

    async def _strike(self, request: Request, fault: Fault) -> Response:
        match fault.do:
            case "422":
                return JSONResponse(_error_body("422"), HTTPStatus.UNPROCESSABLE_ENTITY)
            case "429":
                seconds = 1 if fault.seconds is None else fault.seconds
                headers = {"retry-after": f"{seconds:g}"}
                return JSONResponse({"detail": "Too Many Requests"}, HTTPStatus.TOO_MANY_REQUESTS, headers)
            case "500":
                return JSONResponse(_error_body("500"), HTTPStatus.INTERNAL_SERVER_ERROR)
            case "gone":
                return JSONResponse({"detail": "Not Found"}, HTTPStatus.NOT_FOUND)
            case "hang":
                await self._patience.until_gone(request)
            case _:
                await hang_up(request)
        return Response()


async def _half(request: Request, path: Path) -> AsyncIterator[bytes]:
    content = await asyncio.to_thread(path.read_bytes)
    yield content[: len(content) // 2]
    request.state.transport.close()
    await gone(request)


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _has_key(request: Request) -> bool:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return scheme == "Key" and bool(key.strip())


def _unauthorised() -> Response:
    return JSONResponse({"detail": "No user found for Key ID and Secret"}, HTTPStatus.UNAUTHORIZED)


def _refused(where: tuple[str, ...], message: str, kind: str) -> Response:
    detail = [{"loc": list(where), "msg": message, "type": kind}]
    return JSONResponse({"detail": detail}, HTTPStatus.UNPROCESSABLE_ENTITY)


def _error_body(status: str) -> dict[str, Any]:
    if status == "422":
        message = "The content could not be processed because it was flagged by a content checker"
        return {"detail": [{"loc": ["body", "prompt"], "msg": message, "type": "content_policy_violation"}]}
    return {"detail": "Internal Server Error"}


def _addresses(url: str, job: Job) -> dict[str, Any]:
    response_url = f"{url}/{job.application}/requests/{job.request_id}"
    return {
        "request_id": job.request_id,
        "response_url": response_url,
        "status_url": f"{response_url}/status",
        "cancel_url": f"{response_url}/cancel",
    }


def _progress(job: Job) -> dict[str, Any]:
    if job.status == "IN_QUEUE":
        return {"status": job.status, "queue_position": job.position}
    return {"status": job.status}
