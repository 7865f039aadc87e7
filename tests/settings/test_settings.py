"""The settings: what they default to, what they refuse and in which words, and that the docs know each."""

from __future__ import annotations

import re
from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path

import pytest

from oanim_server.settings import BadSettingError, Secret, Settings, variables

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"


def read(**given: str) -> Settings:
    return Settings.from_environment({"HOME": "/people/ada", **given})


def refusal(**given: str) -> str:
    with pytest.raises(BadSettingError) as caught:
        read(**given)
    return str(caught.value)


def test_without_a_variable_one_machine_is_served() -> None:
    assert read() == Settings(data=Path("/people/ada/.local/share/oanim"))


def test_the_data_folder_follows_the_platform() -> None:
    assert read(XDG_DATA_HOME="/data/ada").data == Path("/data/ada/oanim")
    assert read(XDG_DATA_HOME="relative").data == Path("/people/ada/.local/share/oanim")
    assert read(OANIM_DATA="/srv/oanim").data == Path("/srv/oanim")


def test_every_kind_of_value_is_read(tmp_path: Path) -> None:
    cert = tmp_path / "cert.pem"
    cert.write_text("")
    assert read(
        OANIM_DATA=str(tmp_path),
        OANIM_DATABASE_URL="postgresql://ada:secret@db/oanim",
        OANIM_HOST="0.0.0.0",  # noqa: S104 - a value, not a listener
        OANIM_PORT="0",
        OANIM_TLS_CERT=str(cert),
        OANIM_TLS_KEY=str(cert),
        OANIM_PRODUCTION="1",
        OANIM_SIGN_UP="closed",
        OANIM_FREE_CREDITS_DAILY_CAP_USD="12.50",
        OANIM_FREE_CREDITS_EXPIRE_DAYS="365",
        OANIM_TRUSTED_PROXIES="10.0.0.0/8, ::1",
        OANIM_UNLISTED_MODELS="refuse",
        OANIM_FAL_KEY="key",
        OANIM_FAL_URL="http://127.0.0.1:4000/",
        OANIM_OUTPUT_HOSTS="Fal.media, localhost",
    ) == Settings(
        data=tmp_path,
        database_url=Secret("postgresql://ada:secret@db/oanim"),
        host="0.0.0.0",  # noqa: S104 - as above
        port=0,
        tls_cert=cert,
        tls_key=cert,
        production=True,
        sign_up="closed",
        free_credits_daily_cap_usd=Decimal("12.50"),
        free_credits_expire_days=365,
        trusted_proxies=(ip_network("10.0.0.0/8"), ip_network("::1/128")),
        unlisted_models="refuse",
        fal_key=Secret("key"),
        fal_url="http://127.0.0.1:4000",
        output_hosts=("fal.media", "localhost"),
    )


def test_an_empty_secret_is_absence() -> None:
    assert read(OANIM_FAL_KEY="").fal_key is None
    assert read(OANIM_FAL_KEY="  ").fal_key is None


def test_a_secret_does_not_print() -> None:
    settings = read(OANIM_FAL_KEY="fal-secret", OANIM_DATABASE_URL="postgresql://ada:hunter2@db/oanim")
    assert "fal-secret" not in f"{settings} {settings!r} {settings.fal_key}"
    assert "hunter2" not in f"{settings} {settings!r} {settings.database_url}"
    assert settings.fal_key == Secret("fal-secret")


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("OANIM_PORT", "70000", "is '70000', and must be a whole number from 0 to 65,535."),
        ("OANIM_PORT", "-1", "is '-1', and must be a whole number from 0 to 65,535."),
        ("OANIM_BURST", "²", "is '²', and must be a whole number from 1 to 1,000,000."),
        ("OANIM_PRODUCTION", "yes", "is 'yes', and must be 0 or 1."),
        ("OANIM_SIGN_UP", "maybe", "is 'maybe', and must be one of: open, closed."),
        (
            "OANIM_PRICE_MARGIN_PERCENT",
            "nan",
            "is 'nan', and must be a number from 0 to 1,000 with at most 6 decimals.",
        ),
        (
            "OANIM_FREE_CREDITS_DAILY_CAP_USD",
            "0.0000001",
            "is '0.0000001', and must be a number from 0 to 1,000,000 with at most 6 decimals.",
        ),
        (
            "OANIM_TRUSTED_PROXIES",
            "10.0.0.1/8",
            "is '10.0.0.1/8', and must be addresses or networks between commas, as 10.0.0.0/8.",
        ),
        (
            "OANIM_FAL_URL",
            "http://queue.fal.run",
            "is 'http://queue.fal.run', and must be an https address, or http on loopback.",
        ),
        (
            "OANIM_FAL_URL",
            "https://[::1",
            "is 'https://[::1', and must be an https address, or http on loopback.",
        ),
        ("OANIM_TLS_CERT", "/nowhere/cert.pem", "names /nowhere/cert.pem, and there is no such file."),
        ("OANIM_PROT", "50051", "is no setting of this server: see docs/settings.md."),
    ],
)
def test_a_bad_value_is_refused_in_one_sentence_that_names_it(
    variable: str, value: str, sentence: str
) -> None:
    assert refusal(**{variable: value}) == f"{variable} {sentence}"


def test_a_database_url_is_never_quoted() -> None:
    for url in ("mysql://ada:hunter2@db/oanim", "mysql://[::1", "hunter2"):
        sentence = refusal(OANIM_DATABASE_URL=url)
        assert sentence == "OANIM_DATABASE_URL is not a url that begins with postgresql://."


@pytest.mark.parametrize(
    "url",
    ["postgresql://ada:hunter@2@db:1/oanim", "postgresql://ada:h@nter:2@db/oanim", "postgres://a@b@[::1"],
)
def test_a_password_that_would_be_taken_for_a_host_is_refused_unseen(url: str) -> None:
    assert refusal(OANIM_DATABASE_URL=url) == (
        "OANIM_DATABASE_URL has more than one @ before its parameters: in a user or a password, write @ as "
        "%40, : as %3A and / as %2F."
    )


def test_plaintext_beyond_loopback_is_asked_for_by_name() -> None:
    assert refusal(OANIM_HOST="0.0.0.0") == (  # noqa: S104 - a value, not a listener
        "OANIM_HOST is 0.0.0.0, which other machines reach, and there is no certificate: set "
        "OANIM_TLS_CERT and OANIM_TLS_KEY, or OANIM_ALLOW_PLAINTEXT=1 behind a proxy that has one."
    )
    assert read(OANIM_HOST="10.0.0.7", OANIM_ALLOW_PLAINTEXT="1").host == "10.0.0.7"
    assert read(OANIM_HOST="::1").host == "::1"
    assert read(OANIM_HOST="localhost").host == "localhost"


def test_a_certificate_goes_with_its_key(tmp_path: Path) -> None:
    cert = tmp_path / "cert.pem"
    cert.write_text("")
    assert (
        refusal(OANIM_TLS_CERT=str(cert))
        == "OANIM_TLS_CERT and OANIM_TLS_KEY are set together or not at all."
    )


def test_a_burst_is_not_below_the_rate() -> None:
    assert refusal(OANIM_BURST="100") == ("OANIM_BURST is below OANIM_CALLS_PER_SECOND, which it may not be.")


def test_a_variable_of_the_client_is_none_of_ours() -> None:
    assert read(OANIM_CA_FILE="/etc/ssl/ca.pem") == read()


def test_every_setting_has_a_heading_and_a_row_in_the_docs() -> None:
    text = DOCS.read_text()
    assert sorted(re.findall(r"^### (\w+)$", text, re.MULTILINE)) == sorted(variables())
    assert sorted(re.findall(r"^\| \[(\w+)\]\(#\w+\) \|", text, re.MULTILINE)) == sorted(variables())
