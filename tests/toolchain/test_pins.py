"""The pins are what pyproject.toml asks for, and the generators are what the run time accepts."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def pins() -> dict[str, list[str]]:
    """The pinned versions of each package: more than one where they differ by Python's version."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line[:1].isalnum():
            name, version = line.split(";")[0].rstrip(" \\").split("==")
            found.setdefault(canonicalize_name(name), []).append(version)
    return found


def test_every_requirement_is_pinned_within_its_bounds() -> None:
    asked = [Requirement(text) for texts in (PROJECT["dependencies"], *EXTRAS.values()) for text in texts]
    pinned = pins()
    outside = {
        str(requirement): pinned.get(canonicalize_name(requirement.name), [])
        for requirement in asked
        if not any(map(requirement.specifier.contains, pinned.get(canonicalize_name(requirement.name), [])))
    }
    assert outside == {}


def test_the_run_time_asks_for_what_the_generators_wrote_for() -> None:
    at_run_time = map(Requirement, (*PROJECT["dependencies"], *EXTRAS["server"]))
    floors = {requirement.name: str(requirement.specifier) for requirement in at_run_time}
    [generator] = [text for text in EXTRAS["dev"] if text.startswith("grpcio-tools")]
    of_grpc = {name: floor for name, floor in floors.items() if name.startswith("grpcio")}
    assert of_grpc == dict.fromkeys(of_grpc, generator.removeprefix("grpcio-tools").replace("==", ">="))
    assert floors["protobuf"] == f">={pins()['protobuf'][0]}"
