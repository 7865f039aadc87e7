"""Keys are kept for their owner alone."""

from __future__ import annotations

import pwd
import stat
from typing import TYPE_CHECKING, NoReturn

import pytest

from oanim.cli import credentials
from oanim.cli.credentials import Credentials
from oanim.cli.failures import Failure
from oanim.cli.running import run
from openanimate.metering.v1.account_service_pb2 import SignUpResponse
from tests.cli.running import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.running import Cli
    from tests.sdk.scripted import ScriptedServer


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ANIMATE_API_KEY", raising=False)
    monkeypatch.delenv("ANIMATE_API_URL", raising=False)
    credentials.stored.cache_clear()
    yield tmp_path
    credentials.stored.cache_clear()


def test_a_key_is_stored_for_its_owner_alone_and_nothing_else_is_left(home: Path) -> None:
    credentials.store("anim_12345678_secret")
    path = home / ".oanim" / "credentials.yaml"
    modes = [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)]
    assert (path.read_text(), modes, [each.name for each in path.parent.iterdir()]) == (
        "api_key: anim_12345678_secret\n",
        [0o600, 0o700],
        ["credentials.yaml"],
    )


def test_a_key_is_kept_with_the_server_that_gave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANIMATE_API_URL", "http://127.0.0.1:5001")
    credentials.store("anim_a")
    monkeypatch.delenv("ANIMATE_API_URL")
    assert credentials.stored() == Credentials("anim_a", "http://127.0.0.1:5001")
    assert credentials.api_url() == "http://127.0.0.1:5001"


def test_the_environment_goes_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    credentials.store("anim_stored")
    assert credentials.api_key() == "anim_stored"
    monkeypatch.setenv("ANIMATE_API_KEY", "anim_environment")
    assert credentials.api_key() == "anim_environment"


def test_a_stored_key_goes_to_its_own_server_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANIMATE_API_URL", "https://farm.example")
    credentials.store("anim_stored")
    monkeypatch.setenv("ANIMATE_API_URL", "https://FARM.example:443/")
    assert credentials.api_key() == "anim_stored"
    monkeypatch.setenv("ANIMATE_API_URL", "https://other.example")
    with pytest.raises(Failure, match=r"you are not signed in to https://other\.example") as raised:
        credentials.api_key()
    assert raised.value.exit_code == 4


def test_a_key_of_the_public_service_goes_to_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    credentials.store("anim_stored")
    monkeypatch.setenv("ANIMATE_API_URL", "http://127.0.0.1:5001")
    with pytest.raises(Failure, match=r"the stored key is for https://api\.open-animate\.com"):
        credentials.api_key()


def test_a_key_of_the_environment_goes_to_the_stored_server_only_where_it_is_that_server_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANIMATE_API_URL", "https://farm.example")
    credentials.store("anim_stored")
    monkeypatch.delenv("ANIMATE_API_URL")
    monkeypatch.setenv("ANIMATE_API_KEY", "anim_stored")
    assert credentials.api_key() == "anim_stored"
    monkeypatch.setenv("ANIMATE_API_KEY", "anim_environment")
    with pytest.raises(
        Failure, match=r"not signed in to https://farm\.example .* export ANIMATE_API_URL="
    ) as raised:
        credentials.api_key()
    assert raised.value.exit_code == 4
    monkeypatch.setenv("ANIMATE_API_URL", "https://other.example")
    assert credentials.api_key() == "anim_environment"


def test_without_a_key_one_is_told_how_to_get_one() -> None:
    with pytest.raises(Failure, match="oanim signup --email") as raised:
        credentials.api_key()
    assert raised.value.exit_code == 4


def test_a_file_that_others_can_read_is_warned_about_without_its_key(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    credentials.store("anim_stored")
    path = home / ".oanim" / "credentials.yaml"
    path.chmod(0o640)
    assert credentials.api_key() == "anim_stored"
    assert capsys.readouterr().err == f"oanim: others can read {path}. Close it: chmod 600 {path}\n"


@pytest.mark.parametrize("content", ["- a list", "key: [", "just text"])
def test_a_file_that_is_no_list_of_fields_is_refused(content: str, home: Path) -> None:
    (home / ".oanim").mkdir()
    (home / ".oanim" / "credentials.yaml").write_text(content)
    with pytest.raises(Failure, match="cannot be read"):
        credentials.stored()


def test_what_was_forgotten_is_gone() -> None:
    credentials.store("anim_stored")
    assert [credentials.forget(), credentials.forget(), credentials.stored()] == [True, False, Credentials()]


def test_a_key_never_shows_when_credentials_are_printed() -> None:
    assert "secret" not in repr(Credentials("anim_secret", "https://example.com"))


def test_no_other_server_is_called_with_a_stored_key(cli: Cli, scripted: ScriptedServer) -> None:
    (cli.home / ".oanim").mkdir()
    path = cli.home / ".oanim" / "credentials.yaml"
    path.write_text("api_key: anim_a\n")
    path.chmod(0o600)
    del cli.variables["ANIMATE_API_KEY"]
    ended = cli.run("billing")
    assert (ended.exit_code, ended.out, dict(scripted.received)) == (4, "", {})
    assert f"you are not signed in to {scripted.url}" in ended.err


def test_signing_out_says_that_the_key_stays_valid(cli: Cli) -> None:
    (cli.home / ".oanim").mkdir()
    (cli.home / ".oanim" / "credentials.yaml").write_text("api_key: anim_a\n")
    first, second = cli.run("logout"), cli.run("logout", "--json")
    assert (first.exit_code, first.out) == (0, "Signed out; the key itself stays valid.\n")
    assert (second.exit_code, second.out) == (0, '{"signed_out": false}\n')


def test_a_key_that_no_home_folder_can_keep_is_shown(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(user_id: int) -> NoReturn:
        raise KeyError(user_id)

    # A container's user, as a rule.
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setenv("ANIMATE_API_URL", scripted.url)
    scripted.script("AccountService/SignUp", SignUpResponse(account_id="7", secret="anim_a_b"))
    exit_code = run(["signup", "--email", "a@example.com", "--yes"])
    assert (exit_code, *capsys.readouterr()) == (
        1,
        "",
        (
            "oanim: the key could not be stored; keep it yourself: anim_a_b\n"
            "oanim: there is no home folder to keep ~/.oanim in. Set HOME.\n"
        ),
    )


def test_signing_up_does_not_replace_a_stored_key_unasked(cli: Cli) -> None:
    (cli.home / ".oanim").mkdir()
    path = cli.home / ".oanim" / "credentials.yaml"
    path.write_text("api_key: anim_a\n")
    path.chmod(0o600)
    cli.variables["ANIMATE_API_URL"] = "http://127.0.0.1:1"
    ended = cli.run("signup", "--email", "a@example.com")
    assert (ended.exit_code, ended.out, ended.err) == (
        2,
        "",
        f"oanim: {path} holds a key already. Replace it: add --yes\n",
    )
    code, shown = cli.on_terminal(
        [PROGRAM, "signup", "--email", "a@example.com"], typed="n\n", after="Replace it?"
    )
    assert code == 1
    assert "nothing was done, the stored key is kept." in shown
