"""Slots: never shared, free again however their worker ended, and empty for the next."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from oanim_farm.slots import taken

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import sys, time
from pathlib import Path
from oanim_farm.slots import taken
with taken(Path(sys.argv[1]), int(sys.argv[2])) as slots:
    for slot in slots:
        slot.folder.mkdir()
        (slot.folder / "frame.png").touch()
    print("ready", flush=True)
    time.sleep(60)
"""


WRITER = """
import sys, time
from pathlib import Path
folder = Path(sys.argv[1])
for number in range(100):
    folder.mkdir(exist_ok=True)
    (folder / f"{number}.png").touch()
    print(flush=True)
    time.sleep(0.005)
"""


def holder(folder: Path, count: int) -> subprocess.Popen[str]:
    """Another worker, that holds its slots."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), str(count)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str], number: signal.Signals = signal.SIGKILL) -> None:
    process.send_signal(number)
    process.communicate()


def numbers(folder: Path, count: int) -> list[str]:
    with taken(folder, count) as slots:
        return [slot.folder.name for slot in slots]


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def test_workers_side_by_side_share_no_slot(tmp_path: Path) -> None:
    one = holder(tmp_path, 2)
    try:
        assert numbers(tmp_path, 2) == ["2", "3"]
        with taken(tmp_path, 1) as (slot,):
            assert (slot.folder.name, numbers(tmp_path, 1)) == ("2", ["3"])
    finally:
        end(one)
    assert numbers(tmp_path, 2) == ["0", "1"]


def test_what_a_killed_worker_left_is_cleared_by_the_next_whichever_slot_that_takes(tmp_path: Path) -> None:
    living = holder(tmp_path, 1)
    dead = holder(tmp_path, 2)
    end(dead)
    assert left(tmp_path) == ["0", "1", "2"]
    try:
        with taken(tmp_path, 1) as (slot,):
            assert slot.folder.name == "1"
            assert left(tmp_path) == ["0"]
    finally:
        end(living)


def test_a_folder_is_cleared_though_something_still_writes_there(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "0")], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    with taken(tmp_path, 1) as (slot,):
        writer.communicate()
        slot.clear()
        assert left(tmp_path) == []


def test_a_slot_is_empty_before_and_after_and_its_owners_alone(tmp_path: Path) -> None:
    with taken(tmp_path / "farm", 1) as (slot,):
        slot.folder.mkdir()
        (slot.folder / "of-another").touch()
        with suppress(ZeroDivisionError), slot.cleared() as folder:
            assert list(folder.iterdir()) == []
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            (folder / "sub").mkdir()
            (folder / "sub" / "file").touch()
            raise ZeroDivisionError
        assert left(tmp_path / "farm") == []
