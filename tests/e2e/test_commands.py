"""The CLI against a real server: words, exit codes, and money."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from oanim import Client

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Dev

pytestmark = pytest.mark.e2e


@pytest.fixture
def me(dev: Dev, request: pytest.FixtureRequest, tmp_path: Path) -> Dev:
    """A new account in a shell of its own."""
    with Client(api_key="", url=dev.url) as nobody:
        made = nobody.sign_up(email=f"{abs(hash(request.node.name))}@example.com")
    environment = {
        **dev.environment,
        "HOME": str(tmp_path),
        "ANIMATE_API_KEY": made.secret,
        "ANIMATE_SESSION_ID": request.node.name[:40],
    }
    return dev._replace(environment=environment, keys={"user": made.secret})


def balance(me: Dev) -> tuple[int, int]:
    with Client(api_key=me.keys["user"], url=me.url) as client:
        wallet = client.get_wallet().wallet
    return wallet.balance_micros, wallet.held_micros


def test_an_uploaded_picture_is_edited_cut_out_and_upscaled(me: Dev, tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), "white").save(tmp_path / "in.png")
    for words in (
        ("edit-image", "--prompt", "warmer", "--in", "in.png", "--out", "edited.png"),
        ("remove-bg", "--in", "in.png", "--out", "new/cut.png"),
        ("upscale", "--in", "in.png", "--out", "large.png"),
    ):
        done = me.run("oanim", "assets", *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "new" / "cut.png") as cut, Image.open(tmp_path / "large.png") as large:
        assert (cut.mode, cut.size) == ("RGBA", (64, 48))
        assert large.size == (128, 96)
    assert balance(me) == (5_000_000 - 40_000 - 5_000 - 30_000, 0)


def test_several_pictures_have_numbers_and_cost_each(me: Dev, tmp_path: Path) -> None:
    done = me.run(
        "oanim", "assets", "gen-image", "--prompt", "x", "--count", "2", "--out", "out.png", "--json",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["out-1.png", "out-2.png"]
    assert balance(me) == (4_900_000, 0)


def test_a_quote_spends_nothing(me: Dev, tmp_path: Path) -> None:
    done = me.run("oanim", "assets", "gen-video", "--prompt", "x", "--out", "x.mp4", "--quote", cwd=tmp_path)
    assert (done.returncode, "$0.35" in done.stdout) == (0, True)
    assert balance(me) == (5_000_000, 0)


def test_the_same_key_repeats_the_same_action(me: Dev, tmp_path: Path) -> None:
    words = ("oanim", "assets", "gen-image", "--prompt", "x", "--out", "x.png", "--key", "once")
    assert [me.run(*words, cwd=tmp_path).returncode for _ in range(2)] == [0, 0]
    assert balance(me) == (4_950_000, 0)


def test_a_key_repeats_its_action_from_another_session_that_may_spend_nothing(
    me: Dev, tmp_path: Path
) -> None:
    words = ("oanim", "assets", "gen-image", "--prompt", "x", "--out", "x.png", "--key", "once")
    assert me.run(*words, cwd=tmp_path).returncode == 0
    me.environment.update(ANIMATE_SESSION_ID="elsewhere", ANIMATE_MAX_USD_PER_RUN="0")
    again = me.run(*words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert balance(me) == (4_950_000, 0)


def test_parallel_commands_cannot_pass_the_session_s_limit_together(me: Dev, tmp_path: Path) -> None:
    me.environment["ANIMATE_MAX_USD_PER_RUN"] = "0.10"

    def make(number: int) -> int:
        words = ("oanim", "assets", "gen-image", "--prompt", "x", "--out", f"{number}.png")
        return me.run(*words, cwd=tmp_path).returncode

    with ThreadPoolExecutor(4) as threads:
        codes = sorted(threads.map(make, range(4)))
    assert codes == [0, 0, 3, 3]
    assert balance(me) == (4_900_000, 0)


def test_a_generation_can_be_got_again(me: Dev, tmp_path: Path) -> None:
    made = me.run("oanim", "assets", "gen-image", "--prompt", "x", "--out", "x.png", "--json", cwd=tmp_path)
    with Client(api_key=me.keys["user"], url=me.url) as client:
        (generation,) = client.list_generations().generations
    assert generation.generation_id in made.stdout
    done = me.run("oanim", "assets", "get", generation.generation_id, "--out", "again.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "x.png").read_bytes()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("assets", "run", "fal-ai/flux/schnell", "--input", "{nonsense"), 2, "JSON"),
        (
            ("assets", "edit-image", "--prompt", "x", "--in", "missing.png", "--out", "x.png"),
            2,
            "missing.png",
        ),
        (("assets", "get", "000000000000-7", "--out", "x.png"), 1, "generation"),
        (("assets", "gen-image", "--prompt", "x", "--count", "0", "--out", "x.png"), 2, "count"),
        (("usage", "history", "-l", "nonsense"), 2, "-l"),
    ],
)
def test_bad_input_is_one_sentence_that_names_it(
    me: Dev, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    done = me.run("oanim", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert balance(me) == (5_000_000, 0)


def test_a_wrong_a_revoked_and_no_key_are_not_signed_in(me: Dev) -> None:
    made = json.loads(me.run("oanim", "api-keys", "create", "--name", "second", "--json").stdout)
    listed = me.run("oanim", "api-keys", "list")
    key_id = next(word for word in listed.stdout.split() if len(word) == 8 and word in str(made))
    assert me.run("oanim", "api-keys", "revoke", key_id).returncode == 0
    secret = next(value for value in _texts(made) if value.startswith("anim_"))
    for key in ("anim_nobody00_nobody00nobody00nobody00", "nonsense", secret, ""):
        done = me._replace(environment={**me.environment, "ANIMATE_API_KEY": key}).run("oanim", "billing")
        assert (done.returncode, done.stdout) == (4, ""), (key, done.stderr)
        assert len(done.stderr.splitlines()) == 1


def test_a_server_that_is_away_is_exit_5(me: Dev, free_port: int) -> None:
    me.environment["ANIMATE_API_URL"] = f"http://127.0.0.1:{free_port}"
    done = me.run("oanim", "billing")
    assert (done.returncode, done.stdout) == (5, "")
    assert "Traceback" not in done.stderr


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    return [str(value)]
