"""The SDK against the contract: every call, every field, every reason."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import oanim
from oanim import channels, errors
from oanim.aio import AsyncClient
from oanim.aio_streams import AsyncMeterStream, AsyncUsageStream
from oanim.client import Client
from oanim.details import class_of
from oanim.streams import MeterStream, UsageStream
from openanimate.metering.v1 import wallet_service_pb2 as pb
from openanimate.metering.v1.error_reason_pb2 import ErrorReason
from tests.sdk.scripted import METHODS, SERVICES

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor

PROTOS = Path(__file__).parents[2] / "protos" / "openanimate" / "metering" / "v1"
# What an error of every class has an attribute of its own for, whatever its reason.
ON_EVERY_ERROR = {"field", "idempotency_key"}


# What a method takes or does beside the fields: a file goes by its path, and what is said of it is found out.
FILES = {
    "UploadInput": {"content"},
    "SubmitRender": {"bundle"},
    "CompleteRender": {"video"},
    "DownloadRender": {"path"},
    "DownloadBundle": {"path", "bundle_sha256"},
}


def fields(method: MethodDescriptor) -> set[str]:
    """The fields of a request; of a client stream those of its first message."""
    if method.client_streaming and method.server_streaming:
        # A stream both ways is opened; what it carries are methods of its own.
        return set()
    described = [*method.input_type.fields]
    if method.client_streaming:
        described = [
            field for first in described if first.message_type for field in first.message_type.fields
        ]
    names = {field.name for field in described}
    return names - {
        name for name in names if re.sub(r"_(bytes|sha256)$", "", name) in FILES.get(method.name, ())
    }


def snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize("method", METHODS)
def test_every_call_is_a_method_whose_arguments_are_the_fields_of_its_request(
    client: type[object], method: str
) -> None:
    descriptor = METHODS[method]
    call = getattr(client, snake_case(descriptor.name))
    self, *arguments = inspect.signature(call).parameters.values()

    assert self.name == "self"
    assert sorted(a.name for a in arguments) == sorted(
        fields(descriptor) | FILES.get(descriptor.name, set()) | {"timeout_s"}
    )
    assert {a.kind for a in arguments} == {inspect.Parameter.KEYWORD_ONLY}
    assert call.__name__ == snake_case(descriptor.name)
    assert re.fullmatch(r"[A-Z][^\n.]*\.", call.__doc__)


# What a Reserve of a worker's names; these streams are for services.
WORKERS = {"render_id", "epoch"}
# What names the reservation of a Commit or a Release, beside the request's own field.
NAMED_BY_KEY = ["reserve_key", "account_id"]


@pytest.mark.parametrize(
    ("stream", "operations"),
    [
        (
            (MeterStream, AsyncMeterStream),
            {
                "reserve": (pb.ReserveRequest, []),
                "commit": (pb.CommitRequest, NAMED_BY_KEY),
                "release": (pb.ReleaseRequest, NAMED_BY_KEY),
            },
        ),
        (
            (UsageStream, AsyncUsageStream),
            {"report": (pb.ReservationUsage, []), "event": (pb.EventUsage, ["model", "quantity"])},
        ),
    ],
)
def test_every_operation_of_a_stream_is_a_method_whose_arguments_are_its_fields(
    stream: tuple[type[object], type[object]], operations: dict[str, tuple[Any, list[str]]]
) -> None:
    for one in stream:
        public = {name for name, value in vars(one).items() if callable(value) and name[0] != "_"}
        assert public == set(operations)
        for name, (request, more) in operations.items():
            self, *arguments = inspect.signature(getattr(one, name)).parameters.values()
            left_out = WORKERS if name == "reserve" else {"line"}
            fields = [f.name for f in request.DESCRIPTOR.fields if f.name not in left_out]
            assert self.name == "self"
            assert sorted(a.name for a in arguments) == sorted([*fields, *more, "timeout_s"])
            assert {a.kind for a in arguments} == {inspect.Parameter.KEYWORD_ONLY}
            assert re.fullmatch(r"[A-Z][^\n.]*\.", getattr(one, name).__doc__)


def test_the_streams_have_a_method_for_every_operation_of_the_contract() -> None:
    operations = pb.MeterOperation.DESCRIPTOR.oneofs_by_name["operation"].fields
    assert {field.name for field in operations} == {"reserve", "commit", "release"}
    usage = pb.UsageItem.DESCRIPTOR.oneofs_by_name["usage"].fields
    assert {field.name for field in usage} == {"reservation", "event"}


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_a_client_has_no_call_that_the_contract_has_not(client: type[object]) -> None:
    public = {name for name, value in vars(client).items() if callable(value) and not name.startswith("_")}

    assert public - {"close", "metered"} == {snake_case(method.name) for method in METHODS.values()}


def test_both_clients_are_made_and_metered_with_the_same_arguments() -> None:
    for name in ("__init__", "metered"):
        one, other = inspect.signature(getattr(Client, name)), inspect.signature(getattr(AsyncClient, name))
        assert list(one.parameters) == list(other.parameters)


def test_a_call_that_moves_something_makes_its_own_key_unless_it_is_given_one() -> None:
    for method in METHODS.values():
        if "idempotency_key" in fields(method):
            parameters = inspect.signature(getattr(Client, snake_case(method.name))).parameters
            assert parameters["idempotency_key"].default is None


def test_grpc_repeats_the_calls_of_every_service_but_no_stream() -> None:
    options = dict(channels._OPTIONS)  # noqa: SLF001  (what is sent to grpc cannot be asked back)
    repeated, never = json.loads(str(options["grpc.service_config"]))["methodConfig"]

    assert repeated["name"] == [{"service": name} for name in sorted(s.full_name for s in SERVICES)]
    assert repeated["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE", "ABORTED"]
    assert repeated["retryPolicy"]["maxAttempts"] == 4
    assert never == {
        "name": [
            {"service": method.containing_service.full_name, "method": method.name}
            for method in METHODS.values()
            if method.client_streaming or method.server_streaming
        ]
    }


def test_every_reason_has_a_class_of_its_own() -> None:
    reasons = {value.name.removeprefix("ERROR_REASON_") for value in ErrorReason.DESCRIPTOR.values} - {
        "UNSPECIFIED"
    }

    assert len({class_of(reason) for reason in reasons} - {errors.OanimError}) == len(reasons)
    assert {reason: class_of(reason).__name__ for reason in reasons} == {
        reason: reason.title().replace("_", "") for reason in reasons
    }


def test_a_class_has_an_attribute_for_each_thing_that_the_contract_documents() -> None:
    text = (PROTOS / "error_reason.proto").read_text()
    for comment, reason in re.findall(r"((?:  //[^\n]*\n)+)  ERROR_REASON_(\w+) = [1-9]", text):
        prose = re.sub(r"\s*//\s*", " ", comment)
        documented = re.search(r"Metadata[^:]*: (.*)\.", prose)
        # What stands in parentheses says more about a name; it names nothing.
        listed = re.split(r"[,;]| and ", re.sub(r" \([^)]*\)", "", documented[1])) if documented else []
        names = {word.strip() for word in listed if re.fullmatch(r"\w+", word.strip())}
        attributes = {name for name in dir(class_of(reason)) if not name.startswith("_")}
        attributes -= set(dir(errors.OanimError))
        assert attributes == (names - ON_EVERY_ERROR), reason


def test_what_is_exported_exists_and_every_error_is_exported() -> None:
    classes = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__ and not name.startswith("_")
    }

    assert classes <= set(oanim.__all__)
    assert all(getattr(oanim, name) is not None for name in oanim.__all__)
    assert set(oanim.__all__) <= set(dir(oanim))
