"""Uploaded inputs: what is taken, what the provider is sent, and when they are gone."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from oanim_server.generation import uploads as module
from oanim_server.generation.inputs import uploads_named
from oanim_server.generation.refusals import InputTooLarge, UploadsFull
from oanim_server.generation.values import Standing
from oanim_server.ledger.refusals import InvalidField
from tests.generation.house import GRANT, House, Rest, chunks
from tests.generation.provider import Answer, provider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from oanim_server.database.engine import Database
    from tests.generation.house import Fal

KONTEXT = "fal-ai/flux-pro/kontext"
PRICE = 40_000


def picture(form: str = "PNG", side: int = 32) -> bytes:
    content = BytesIO()
    Image.new("RGB", (side, side), "red").save(content, form)
    return content.getvalue()


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "uploads").iterdir())


def until_removed(house: House, tmp_path: Path) -> None:
    """Work until no file is left: a job's end is told first, and its files go after their rows."""
    house.until(lambda _connection: files(tmp_path) == [])


@pytest.mark.parametrize(
    ("form", "content_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")]
)
@pytest.mark.parametrize("size", [5, 1 << 20])
def test_a_picture_is_known_by_its_content(
    house: House, tmp_path: Path, form: str, content_type: str, size: int
) -> None:
    content = picture(form)
    account = house.account()
    upload = house.do(house.generations.receive(account, chunks(content, size)))
    assert (upload.content_type, upload.size_bytes, upload.expires_at - upload.created_at) == (
        content_type,
        len(content),
        86_400_000_000,
    )
    assert files(tmp_path) == [upload.upload_id]
    assert (tmp_path / "uploads" / upload.upload_id).read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"GIF89a" + b"x" * 50, b"RIFF1234WAVEfmt ", b"\x89PNG", b"<svg/>"])
def test_other_content_is_refused_and_not_kept(house: House, tmp_path: Path, content: bytes) -> None:
    account = house.account()
    with pytest.raises(InvalidField) as refused:
        house.upload(account, content)
    assert (refused.value.field, files(tmp_path)) == ("chunk", [])


def test_more_than_20_mb_are_refused_and_not_kept(house: House, tmp_path: Path) -> None:
    account = house.account()
    exactly = picture() + bytes(20_000_000 - len(picture()))
    assert house.upload(account, exactly, 1 << 20) in files(tmp_path)
    with pytest.raises(InputTooLarge) as refused:
        house.upload(account, exactly + b"x", 1 << 20)
    assert (refused.value.limit_bytes, len(files(tmp_path))) == (20_000_000, 1)


def test_an_account_keeps_so_much_at_a_time(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = picture()
    monkeypatch.setattr(module, "MAX_ACCOUNT_BYTES", 2 * len(content))
    account = house.account()
    house.upload(account, content)
    house.upload(account, content)
    with pytest.raises(UploadsFull):
        house.upload(account, content)
    assert len(files(tmp_path)) == 2
    house.upload(house.account(), content)


def test_what_hangs_up_leaves_nothing(house: House, tmp_path: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield picture()
        await asyncio.Event().wait()

    async def hang_up() -> None:
        task = asyncio.create_task(house.generations.receive(house_account, endless()))
        await asyncio.sleep(0.1)
        assert [name.partition(".")[2] for name in files(tmp_path)] == ["part"]
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    house_account = house.account()
    house.do(hang_up())
    assert files(tmp_path) == []


# Sent ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 31, 600])
def test_the_provider_gets_the_data_url_and_every_other_byte_as_written(
    open_database: Callable[[], Database], tmp_path: Path, side: int
) -> None:
    content = b"\x89PNG\r\n\x1a\n" + os.urandom(side * side)
    with provider() as one:
        one.answers[f"/{KONTEXT}"] = Answer(422, {"content-type": "application/json"}, b'{"detail": "no"}')
        house = House(open_database(), tmp_path, one.url)
        account = house.account()
        first, second = house.upload(account, content), house.upload(account, picture("JPEG"))
        written = (
            f'{{ "upload:{first}" : "see upload:{first}" ,'
            f'"a":["upload:{first}",1.0,\n "\\u0075pload:{second}"],'
            f'"b": "\\"upload:{first}\\"", "é":"upload:{first}"}}'
        )
        assert house.made(account, "", model=KONTEXT, input_json=written).standing is Standing.FAILED
        one_url = f'"data:image/png;base64,{base64.b64encode(content).decode()}"'
        other_url = f'"data:image/jpeg;base64,{base64.b64encode(picture("JPEG")).decode()}"'
        expected = (
            f'{{ "upload:{first}" : "see upload:{first}" ,"a":[{one_url},1.0,\n {other_url}],'
            f'"b": "\\"upload:{first}\\"", "é":{one_url}}}'
        ).encode()
        [(headers, body)] = one.sent
        assert body == expected
        assert (headers["content-length"], headers.get("transfer-encoding")) == (str(len(expected)), None)
        assert json.loads(body)["é"].startswith("data:image/png")
        house.close()


def test_an_uploaded_picture_is_edited_and_then_deleted(
    house: House, fal: Fal, tmp_path: Path, prompt: str
) -> None:
    account = house.account()
    upload_id = house.upload(account, picture())
    generation = house.made(account, prompt, model=KONTEXT, image_url=f"upload:{upload_id}")
    assert generation.standing is Standing.SUCCEEDED
    until_removed(house, tmp_path)
    [job] = fal.jobs(prompt)
    assert job["input"]["image_url"].startswith("data:image/png;base64,")
    assert house.at_rest(account) == Rest(GRANT - PRICE, 0, [])
    refusal = house.refused(account, prompt, model=KONTEXT, image_url=f"upload:{upload_id}")
    assert isinstance(refusal, InvalidField)
    assert refusal.field == "input_json"


def test_a_picture_that_another_job_waits_for_is_kept_for_it(
    house: House, fal: Fal, tmp_path: Path, prompt: str
) -> None:
    account = house.account()
    upload_id = house.upload(account, picture())
    fal.told(f"{prompt} b", "submit", "429", seconds=1)
    later = house.generate(account, f"{prompt} b", model=KONTEXT, image_url=f"upload:{upload_id}").generation
    house.until_it_waits(later)
    house.made(account, f"{prompt} a", model=KONTEXT, image_url=f"upload:{upload_id}")
    assert files(tmp_path) == [upload_id]
    assert house.ended(later).standing is Standing.SUCCEEDED
    until_removed(house, tmp_path)


def test_only_its_account_can_use_an_upload(house: House, prompt: str) -> None:
    upload_id = house.upload(house.account(), picture())
    stranger = house.account()
    foreign = house.refused(stranger, prompt, model=KONTEXT, image_url=f"upload:{upload_id}")
    unknown = house.refused(stranger, prompt, model=KONTEXT, image_url=f"upload:{'0' * 32}")
    assert (type(foreign), type(unknown)) == (InvalidField, InvalidField)
    assert str(foreign.facts()).replace(upload_id, "") == str(unknown.facts()).replace("0" * 32, "")
    assert house.wallet(stranger).seq == 1


def test_an_input_names_so_many_uploads_at_most(house: House, prompt: str) -> None:
    account = house.account()
    upload_id = house.upload(account, picture())
    refusal = house.refused(account, prompt, image_urls=[f"upload:{upload_id}"] * 17)
    assert isinstance(refusal, InvalidField)


def test_a_picture_whose_file_is_gone_is_not_paid_for(
    house: House, fal: Fal, tmp_path: Path, prompt: str
) -> None:
    account = house.account()
    upload_id = house.upload(account, picture())
    (tmp_path / "uploads" / upload_id).unlink()
    failure = house.made(account, prompt, model=KONTEXT, image_url=f"upload:{upload_id}").failure
    assert failure is not None
    assert failure.message == "an uploaded input is gone"
    assert (house.at_rest(account), fal.jobs(prompt)) == (Rest(GRANT, 0, []), [])


def test_names_of_fields_and_parts_of_texts_name_no_upload() -> None:
    text = '{"upload:a": ["x upload:a", "upload:", "upload:a b", "upload:b" ], "c" : "UPLOAD:a"}'
    assert [named.upload_id for named in uploads_named(text)] == ["b"]


# Gone ------------------------------------------------------------------------------------------------


def test_the_sweep_removes_what_is_past_its_time_and_what_has_no_row(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = house.account()
    kept = house.upload(account, picture())
    monkeypatch.setattr(module, "LIFETIME", 0)
    house.upload(account, picture())
    folder = tmp_path / "uploads"
    old, young, part, foreign = "0" * 32, "1" * 32, f"{'2' * 32}.part", "notes.txt"
    for name in (old, young, part, foreign):
        (folder / name).write_bytes(b"x")
    long_ago = time.time() - 7_200
    for name in (kept, old, part, foreign):
        os.utime(folder / name, (long_ago, long_ago))
    house.do(house.generations.sweep_uploads())
    assert files(tmp_path) == sorted([kept, young, foreign])
