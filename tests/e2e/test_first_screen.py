"""What a newcomer does first: `make demo`, and what the README shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from oanim import Client

if TYPE_CHECKING:
    from tests.e2e.conftest import Dev

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def _examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def _told(folder: Path, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, ROOT / "demo.py"],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) < 30
    assert done.stdout.rstrip().endswith("Everything adds up.")
    with Image.open(folder / "bg.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (1024, 768))
    return done.stdout


# The first that needs Remotion installs it, from a cold cache perhaps.
@pytest.mark.timeout(400)
def test_the_demo_tells_the_whole_story_in_under_30_lines(browser: Path, tmp_path: Path) -> None:
    told = _told(tmp_path, ANIMATE_BROWSER=str(browser))
    assert "$5.00 of free credits" in told
    assert "Charged $0.05, $4.95 is left." in told
    # 30 frames of 230,400 pixels at 30 a second: 231 kilopixel-seconds of 2 micro-USD.
    assert "Charged $0.000462, $4.949538 is left." in told
    assert "this needs $5.00 and $4.949538 is left. Top up: oanim billing buy --amount 10" in told


def test_the_demo_without_node_and_a_browser_says_what_it_skipped(tmp_path: Path) -> None:
    told = _told(tmp_path, PATH="/nowhere", ANIMATE_BROWSER="")
    assert "(a render in the cloud was skipped: there is no browser to render with." in told
    assert "this needs $5.00 and $4.95 is left. Top up: oanim billing buy --amount 10" in told


def test_the_readme_s_python_runs_and_charges_what_was_used(dev: Dev, tmp_path: Path) -> None:
    example, _ = _examples("python")
    before = _balance(dev)
    told = _run(example, {'"anim_..."': dev.keys["user"], '"http://127.0.0.1:50051"': dev.url}, tmp_path)
    assert told == ["making a red kite", "making a blue door", "making a green sea"]
    assert before - _balance(dev) == 150_000


def test_the_readme_s_service_meters_over_a_stream(dev: Dev, tmp_path: Path) -> None:
    _, example = _examples("python")
    before = _balance(dev)
    with Client(api_key=dev.keys["user"], url=dev.url) as client:
        account_id = client.who_am_i().account_id
    meant = {
        '"anim_..."': dev.keys["service"],
        '"http://127.0.0.1:50051"': dev.url,
        '"5df21yc0fs5k"': account_id,
    }
    assert _run(example, meant, tmp_path) == [f"working for {account_id}"]
    assert before - _balance(dev) == 1_200


def test_the_readme_s_commands_run(dev: Dev, tmp_path: Path) -> None:
    (commands,) = (text for text in _examples("sh") if "oanim " in text)
    done = dev.follow(commands, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "bg.png").exists()


def test_any_client_looks_around_as_the_readme_says(dev: Dev, tmp_path: Path) -> None:
    (command,) = (text for text in _examples("sh") if "buf " in text)
    done = dev.follow(command, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fal-ai/flux-2-flex" in done.stdout


def _run(example: str, meant: dict[str, str], folder: Path) -> list[str]:
    """Run an example with what its reader puts in for what it shows; the lines that it prints."""
    for found, value in meant.items():
        assert found in example
        example = example.replace(found, repr(value))
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def _balance(dev: Dev) -> int:
    with Client(api_key=dev.keys["user"], url=dev.url) as client:
        return client.get_wallet().wallet.balance_micros
