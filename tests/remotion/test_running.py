from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from oanim_remotion.driver import bare_environment
from oanim_remotion.errors import OutOfMemory, RenderFailed, Stopped, TimedOut
from oanim_remotion.family import descendants, memory_bytes
from oanim_remotion.running import Limits, run, scratch

ENVIRONMENT = {"PATH": os.environ["PATH"]}

# Starts what leaves its group and its parent, as browsers do, writes down who it is, and goes on.
RUNAWAY = """
import os, subprocess, sys, time
code = "import os, time; open(os.environ['SEEN'], 'w').write(str(os.getpid())); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
while not os.path.exists(os.environ["SEEN"]) or not open(os.environ["SEEN"]).read():
    time.sleep(0.01)
print("away", flush=True)
time.sleep({})
"""


def python(code: str, **options: object) -> list[str]:
    """Run a program of Python's; what it said."""
    said: list[str] = []
    environment = {**ENVIRONMENT, **{name: str(value) for name, value in options.items() if name.isupper()}}
    limits = options.get("limits", Limits())
    assert isinstance(limits, Limits)
    run(
        [sys.executable, "-c", code],
        folder=Path.cwd(),
        environment=environment,
        limits=limits,
        on_line=said.append,
    )
    return said


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be asked does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def gone(pid: int) -> bool:
    until = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not is_alive(pid)


def test_what_a_program_says_arrives_line_by_line() -> None:
    said = python("import sys; print('one\\n\\n\\x1b[31mtwo\\x1b[0m', flush=True); sys.stderr.write('a\\rb')")

    assert said == ["one", "two", "a", "b"]


def test_a_program_that_fails_says_why() -> None:
    with pytest.raises(RenderFailed) as failed:
        python("print('fine so far', flush=True); raise SystemExit('Error: Error: it went wrong')")

    assert (str(failed.value), failed.value.exit_code) == ("it went wrong", 1)
    assert failed.value.lines == ("fine so far", "Error: Error: it went wrong")


def test_a_program_that_is_killed_has_failed() -> None:
    with pytest.raises(RenderFailed, match="said nothing") as failed:
        python("import os; os.kill(os.getpid(), 9)")

    assert failed.value.exit_code == 128 + 9


def test_a_program_that_is_not_there_has_failed() -> None:
    with pytest.raises(RenderFailed, match="nowhere: No such file or directory"):
        run(["/nowhere"], folder=Path.cwd(), environment=ENVIRONMENT)


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    said = python("import sys\nfor _ in range(400): sys.stdout.write('x' * 100_000)\nprint('\\nand on')")

    assert [len(line) for line in said] == [2_000, 6]


def test_a_program_that_takes_too_long_is_ended() -> None:
    started = time.monotonic()
    with pytest.raises(TimedOut):
        python("import time; time.sleep(600)", limits=Limits(time_seconds=0.5))

    assert time.monotonic() - started < 20


def test_what_a_program_leaves_running_is_ended_when_it_ends(tmp_path: Path) -> None:
    assert python(RUNAWAY.format(0), SEEN=tmp_path / "pid") == ["away"]
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_program_is_stopped_at_a_word(tmp_path: Path) -> None:
    stop = threading.Event()
    with pytest.raises(Stopped):
        run(
            [sys.executable, "-c", RUNAWAY.format(600)],
            folder=tmp_path,
            environment={**ENVIRONMENT, "SEEN": str(tmp_path / "pid")},
            limits=Limits(stop=stop),
            on_line=lambda _line: stop.set(),
        )

    assert gone(int((tmp_path / "pid").read_text()))


def test_whatever_a_reader_raises_ends_the_program(tmp_path: Path) -> None:
    def refuse(line: str) -> None:
        raise LookupError(line)

    with pytest.raises(LookupError, match="away"):
        run(
            [sys.executable, "-c", RUNAWAY.format(600)],
            folder=tmp_path,
            environment={**ENVIRONMENT, "SEEN": str(tmp_path / "pid")},
            on_line=refuse,
        )

    assert gone(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is weighed on Linux alone")
def test_a_program_that_needs_too_much_memory_is_ended() -> None:
    hog = "import time; hoard = bytearray(300_000_000); print(len(hoard), flush=True); time.sleep(600)"
    with pytest.raises(OutOfMemory):
        python(hog, limits=Limits(memory_bytes=200_000_000))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is weighed on Linux alone")
def test_memory_that_processes_share_is_counted_once() -> None:
    fork = (
        "import os, time; hoard = b'x' * 100_000_000; [os.fork() for _ in range(2)]; "
        "print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", fork], stdout=subprocess.PIPE) as process:
        assert process.stdout
        for _ in range(4):
            process.stdout.readline()
        family = [process.pid, *descendants(process.pid)]
        try:
            assert len(family) == 4
            assert 100_000_000 < memory_bytes(family) < 200_000_000
        finally:
            for pid in family:
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "kill"])
def test_nothing_survives_whoever_started_it(tmp_path: Path, number: signal.Signals) -> None:
    starter = f"""
import os, sys
from pathlib import Path
from oanim_remotion.running import run
command = [sys.executable, "-c", {RUNAWAY.format(600)!r}]
run(command, folder=Path.cwd(), environment=dict(os.environ), on_line=print)
"""
    environment = {**ENVIRONMENT, "SEEN": str(tmp_path / "pid"), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", starter], env=environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"away\n"
        family = descendants(process.pid)
        process.send_signal(number)

    assert len(family) == 3
    assert all(gone(pid) for pid in family)


def test_even_when_the_supervisor_is_killed_its_command_ends(tmp_path: Path) -> None:
    def kill(line: str) -> None:
        (tmp_path / "pid").write_text(line)
        supervisor = next(pid for pid in descendants(os.getpid()) if _is_supervisor(pid))
        os.kill(supervisor, signal.SIGKILL)

    with pytest.raises(RenderFailed):
        run(
            [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"],
            folder=tmp_path,
            environment=ENVIRONMENT,
            on_line=kill,
        )

    assert gone(int((tmp_path / "pid").read_text()))


def _is_supervisor(pid: int) -> bool:
    with suppress(OSError):
        return b"oanim_remotion.supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def test_what_strangers_wrote_is_run_without_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"ANIMATE_API_KEY": "anim_secret", "OANIM_WORKER_KEY": "anim_secret", "AWS_SECRET": "secret"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    said: list[str] = []
    run(["env"], folder=tmp_path, environment=bare_environment(tmp_path), on_line=said.append)

    assert f"HOME={tmp_path}" in said
    assert "secret" not in " ".join(said)


def test_a_scratch_folder_is_gone_whatever_happens(tmp_path: Path) -> None:
    with suppress(LookupError), scratch({}) as folder:
        (folder / "below").mkdir()
        raise LookupError

    assert not folder.exists()


def test_a_scratch_folder_is_where_its_caller_says_unless_a_browser_could_not_be_there() -> None:
    with tempfile.TemporaryDirectory(prefix="oanim-", dir="/tmp") as base:
        with scratch({"TMPDIR": base}) as folder:
            assert folder.parent == Path(base)
        too_long = Path(base) / ("x" * 40)
        too_long.mkdir()
        with scratch({"TMPDIR": str(too_long)}) as folder:
            assert len(str(folder)) < 60
