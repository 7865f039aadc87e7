"""Nothing that is committed names the machine or the registry it was made with."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK_FILES = {"Pipfile.lock", "pdm.lock", "poetry.lock", "pylock.toml", "uv.lock"}
ADDRESS = re.compile(
    rb"(pypi|pythonhosted|npmjs|yarnpkg)\.(org|com)"
    rb"|--(extra-)?index-url|--find-links[= ]https?:|\"resolved\":"
)
MACHINE_PATH = re.compile(rb"(?:^|[^\w.])/(?:root|home|Users)/\w", re.MULTILINE)


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def containing(pattern: re.Pattern[bytes]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in tracked() if pattern.search(path.read_bytes())]


def test_no_lock_file_that_records_addresses_is_committed() -> None:
    assert [path.name for path in tracked() if path.name in LOCK_FILES] == []


def test_no_committed_file_names_a_registry() -> None:
    assert containing(ADDRESS) == []


def test_no_committed_file_names_a_folder_of_somebody() -> None:
    assert containing(MACHINE_PATH) == []
