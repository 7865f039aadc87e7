"""What is wrong with a command is said at once, in a sentence, without the service."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.running import Cli, Ended


def test_without_a_key_a_command_says_how_to_get_one(cli: Cli) -> None:
    assert cli.run("billing") == Ended(
        4,
        "",
        "oanim: you are not signed in. Get an account: oanim signup --email you@example.com, "
        "or sign in with a key: oanim login\n",
    )


def test_a_service_that_is_not_there_is_away(cli: Cli) -> None:
    cli.variables |= {"ANIMATE_API_KEY": "anim_x", "ANIMATE_API_URL": "http://127.0.0.1:1"}
    assert cli.run("billing") == Ended(
        5,
        "",
        "oanim: http://127.0.0.1:1 does not answer. Try again in a moment, or check ANIMATE_API_URL.\n",
    )


def test_work_of_unknown_outcome_names_the_key_that_repeats_it(cli: Cli) -> None:
    cli.variables |= {"ANIMATE_API_KEY": "anim_x", "ANIMATE_API_URL": "http://127.0.0.1:1"}
    ended = cli.run("assets", "gen-image", "--prompt", "two words", "--key=mine", "--out", "bg.png")
    assert (ended.exit_code, ended.out) == (5, "")
    assert ended.err.splitlines()[1] == (
        "Whether it was done is not known; the same key repeats it without doing it twice: "
        "oanim assets gen-image --prompt 'two words' --out bg.png --key mine"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["frobnicate"], "No such command 'frobnicate'. See: oanim --help"),
        (["assets", "gen-image"], "Missing option '--prompt'. See: oanim assets gen-image --help"),
        (["assets", "gen-image", "--prompt", " "], "--prompt: must not be empty."),
        (["assets", "gen-image", "--prompt", "x", "--model", "../x"],
         "MODEL: must be a model's name such as fal-ai/flux/schnell. The models there are: oanim pricing"),
        (["assets", "gen-image", "--prompt", "x", "--key", ""],
         "Invalid value for '--key': a key is 1 to 255 bytes. See: oanim assets gen-image --help"),
        (["assets", "gen-image", "--prompt", "x", "--key", "k" * 256],
         "Invalid value for '--key': a key is 1 to 255 bytes. See: oanim assets gen-image --help"),
        (["assets", "remove-bg", "--in", "nope.png"], "nope.png cannot be read: No such file or directory."),
        (["assets", "run", "fal-ai/x", "--input", '{"prompt":'], "--input: must be a JSON object."),
        (["assets", "run", "fal-ai/x", "--input", "[]"], "--input: must be a JSON object."),
        (["assets", "run", "fal-ai/x", "--input", "@nope.json"],
         "--input: nope.json cannot be read: No such file or directory."),
        (["assets", "run", "fal-ai/x", "--input", " " * 65_537],
         "--input: it is longer than the 64 KB that an input may have."),
        (["assets", "run", "fal-ai/x", "--input", "NaN"], "--input: NaN is not JSON."),
        (["assets", "run", "fal-ai/x", "--input", "@"], "--input: a file's name goes after @."),
        (["assets", "gen-image", "--prompt", "x" * 65_536],
         "--prompt: it is longer than the 64 KB that an input may have."),
        (["assets", "gen-audio", "--prompt", " ", "--model", "minimax/speech-02-hd"],
         "--prompt: must not be empty."),
        (["assets", "gen-image", "--prompt", "x", "--count", "99999999999"],
         ("Invalid value for '--count': 99999999999 is not in the range 1<=x<=1000000000. "
          "See: oanim assets gen-image --help")),
        (["assets", "gen-video", "--prompt", "x", "--model", "fal-ai/flux/schnell"],
         "--model: fal-ai/flux/schnell is for gen-image."),
        (["usage", "-d", "5", "history"], "--days goes after: oanim usage history. See: oanim usage --help"),
        (["usage", "-d", "0"],
         "Invalid value for '--days' / '-d': 0 is not in the range 1<=x<=3650. See: oanim usage --help"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_and_nothing_is_sent(cli: Cli, arguments: list[str], sentence: str) -> None:
    assert cli.run(*arguments) == Ended(2, "", f"oanim: {sentence}\n")


def test_an_argument_that_is_not_utf_8_is_a_mistake(cli: Cli) -> None:
    cli.variables |= {"ANIMATE_FAL_KEY": "id:secret", "ANIMATE_FAL_URL": "http://127.0.0.1:1"}
    ended = cli.run("assets", "gen-image", "--prompt", "\udcff")
    assert ended == Ended(2, "", "oanim: an argument is not UTF-8.\n")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://x", "not a server's URL: ftp://x"),
        ("http://example.com", "would send the API key in clear"),
        ("http://localhost:99999", "not a server's URL: http://localhost:99999"),
        ("http://localhost:port", "not a server's URL: http://localhost:port"),
        ("http://[::1", "not a server's URL: http://[::1"),
    ],
)
def test_an_address_that_cannot_be_the_services_is_a_mistake(cli: Cli, url: str, said: str) -> None:
    cli.variables |= {"ANIMATE_API_KEY": "anim_x", "ANIMATE_API_URL": url}
    ended = cli.run("billing")
    assert (ended.exit_code, ended.out) == (2, "")
    assert said in ended.err
    assert ended.err.endswith("See ANIMATE_API_KEY and ANIMATE_API_URL.\n")


def test_a_file_of_certificates_that_is_not_there_is_named_by_its_variable(cli: Cli) -> None:
    cli.variables |= {"ANIMATE_API_KEY": "anim_x", "OANIM_CA_FILE": "nope.pem"}
    assert cli.run("billing") == Ended(
        2, "", "oanim: OANIM_CA_FILE: nope.pem cannot be read: No such file or directory.\n"
    )


def test_several_pictures_for_a_model_that_takes_one_are_refused_by_the_option_s_name(cli: Cli) -> None:
    (cli.folder / "in.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert cli.run("assets", "edit-image", "--prompt", "x", "--in", "in.png", "--in", "in.png") == Ended(
        2, "", "oanim: --in: fal-ai/flux-pro/kontext takes one picture.\n"
    )


def test_json_may_be_asked_for_before_the_command_too(cli: Cli) -> None:
    assert cli.run("--json", "logout").out == '{"signed_out": false}\n'


def test_a_limit_that_is_no_amount_is_a_mistake(cli: Cli) -> None:
    cli.variables |= {"ANIMATE_API_KEY": "anim_x", "ANIMATE_MAX_USD_PER_RUN": "inf"}
    assert cli.run("assets", "gen-image", "--prompt", "x") == Ended(
        2,
        "",
        "oanim: ANIMATE_MAX_USD_PER_RUN must be a plain number of USD such as 5.00, not 'inf'. "
        "Set it right, or unset it.\n",
    )


def test_a_reader_that_has_seen_enough_is_no_error_to_show(cli: Cli) -> None:
    ended = subprocess.run(
        ["sh", "-c", "oanim --help | true; oanim assets --help | head -n 1"],
        capture_output=True,
        text=True,
        env={**cli.environment(), "PATH": f"{sys.prefix}/bin:/usr/bin:/bin"},
        check=True,
    )
    assert (ended.stdout, ended.stderr) == ("Usage: oanim assets [OPTIONS] COMMAND [ARGS]...\n", "")


@pytest.mark.parametrize(
    ("arguments", "never"),
    [
        (["--help"], ("grpc", "google.protobuf", "httpx", "rich", "yaml")),
        (["billing"], ("grpc.aio", "httpx", "rich", "oanim_models")),
    ],
)
def test_a_command_imports_what_it_needs_and_no_more(
    cli: Cli, arguments: list[str], never: tuple[str, ...]
) -> None:
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "from oanim.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        env=cli.environment(),
        check=False,
    )
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if "|" in line}
    assert [name for name in never if name in imported] == []
