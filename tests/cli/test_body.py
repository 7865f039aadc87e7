"""A picture travels inside the input, encoded while it is sent."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from oanim.cli.assets.body import Body, fingerprint
from oanim.cli.assets.pictures import look_at
from oanim.cli.assets.work import Asked
from oanim.cli.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

STARTS = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff", "image/webp": b"RIFF\0\0\0\0WEBP"}


def written(body: Body) -> bytes:
    async def read() -> list[bytes]:
        return [piece async for piece in body.pieces()]

    return b"".join(asyncio.run(read()))


def in_reverse(names: Sequence[str]) -> str:
    return json.dumps({"prompt": "é picture-0", "image_urls": list(reversed(names))}, ensure_ascii=False)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 200_000, 196_608, 196_609])
def test_the_body_holds_each_picture_where_it_is_named_and_is_as_long_as_it_says(
    tmp_path: Path, size: int
) -> None:
    contents = {kind: start + b"\x7f" * size for kind, start in STARTS.items()}
    pictures = []
    for number, content in enumerate(contents.values()):
        path = tmp_path / str(number)
        path.write_bytes(content)
        pictures.append(look_at(path))
    body = Body(Asked("m", in_reverse, tuple(pictures)))
    sent = written(body)
    expected: dict[str, Any] = {
        "prompt": "é picture-0",
        "image_urls": [
            f"data:{kind};base64,{base64.b64encode(content).decode()}"
            for kind, content in reversed(contents.items())
        ],
    }
    assert json.loads(sent) == expected
    assert len(sent) == body.length


def test_an_input_without_pictures_goes_as_it_was_written() -> None:
    text = '{"seed": 12345678901234567890,   "b": 1.0}'
    assert written(Body(Asked("m", lambda _: text))) == text.encode()


def test_work_is_the_same_whatever_its_spelling_and_another_with_another_picture(tmp_path: Path) -> None:
    def asked(content: bytes, text: str) -> Asked:
        path = tmp_path / content.hex()
        path.write_bytes(STARTS["image/png"] + content)
        return Asked("m", lambda names: text.replace("PICTURE", names[0]), (look_at(path),))

    one = fingerprint(asked(b"a", '{"a": 1, "image_url": "PICTURE"}'))
    assert one == fingerprint(asked(b"a", '{"image_url":"PICTURE","a":1}'))
    assert one != fingerprint(asked(b"b", '{"a": 1, "image_url": "PICTURE"}'))


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"RIFF\0\0\0\0WAVE"])
def test_what_is_no_picture_is_refused_before_it_is_sent(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(Failure, match="neither PNG, JPEG nor WebP") as raised:
        look_at(tmp_path / "x.png")
    assert raised.value.exit_code == 2


def test_a_picture_above_20_mb_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    with (tmp_path / "x.png").open("wb") as file:
        file.write(STARTS["image/png"])
        file.truncate(20 * 1024 * 1024 + 1)
    with pytest.raises(Failure, match="larger than 20 MB"):
        look_at(tmp_path / "x.png")
