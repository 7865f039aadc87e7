"""Outputs are named as asked, and written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from oanim.cli.assets.files import Destination, Named, how_to_get, misnamed
from oanim.cli.failures import Failure
from oanim.cli.placing import whole

PNG = Named("image/png", "0.png")


@pytest.mark.parametrize(
    ("destination", "outputs", "names"),
    [
        (Destination(Path("a/bg.png")), [PNG], ["a/bg.png"]),
        (Destination(Path("bg.png")), [PNG, PNG], ["bg-1.png", "bg-2.png"]),
        (Destination(Path("bg.png"), numbered=True), [PNG], ["bg-1.png"]),
        (Destination(Path("bg")), [PNG, PNG], ["bg-1", "bg-2"]),
        (Destination(None), [PNG], ["7-1.png"]),
        (Destination(None), [Named("audio/wav", ""), Named("", "x.FLAC")], ["7-1-1.wav", "7-1-2.flac"]),
        (Destination(None), [Named("", "x")], ["7-1"]),
        (Destination(None), [Named("video/mp4; codecs=avc1", "../../x.sh")], ["7-1.mp4"]),
    ],
)  # fmt: skip
def test_outputs_are_named(destination: Destination, outputs: list[Named], names: list[str]) -> None:
    assert destination.paths("7-1", outputs) == [Path(name) for name in names]


def test_an_id_from_elsewhere_leads_to_no_other_folder() -> None:
    assert Destination(None).paths("../../etc/x", [PNG]) == [Path(".._.._etc_x.png")]


def test_a_folder_takes_what_is_made(tmp_path: Path) -> None:
    assert Destination(tmp_path).paths("7-1", [PNG]) == [tmp_path / "7-1.png"]


def test_parent_folders_are_made_before_anything_is_spent(tmp_path: Path) -> None:
    Destination(tmp_path / "a" / "b" / "bg.png").prepare()
    assert (tmp_path / "a" / "b").is_dir()


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "bg.png"
    with whole(path) as file:
        file.write(b"half")
        assert not path.exists()
        file.write(b" and half")
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == {"bg.png": b"half and half"}


@pytest.mark.parametrize("error", [OSError(), KeyboardInterrupt()])
def test_what_breaks_off_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "bg.png"
    path.write_bytes(b"former")

    def break_off() -> None:
        with whole(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        break_off()
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"bg.png": b"former"}


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with whole(tmp_path / "link") as file:
        file.write(b"x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"x"


def test_no_device_is_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Failure, match="is not a file"):
        Destination(tmp_path / "pipe").prepare()


def test_a_number_that_is_taken_by_a_folder_is_found_out_before_anything_is_spent(tmp_path: Path) -> None:
    (tmp_path / "b-2.png").mkdir()
    with pytest.raises(Failure, match=r"b-2\.png is not a file"):
        Destination(tmp_path / "b.png", numbered=True).prepare()


def test_a_folder_is_told_by_its_end() -> None:
    new = Destination.named("new/")
    assert new.paths("7-1", [PNG]) == [Path("new/7-1.png")]
    assert how_to_get("7-1", new) == "Get it later: oanim assets get 7-1 --out new/"


@pytest.mark.parametrize(
    ("name", "content_type", "is_misnamed"),
    [
        ("a.jpg", "image/png", True),
        ("a.JPEG", "image/jpeg", False),
        ("a.wav", "audio/wav", False),
        ("a", "image/png", False),
        ("a.png", "", False),
    ],
)
def test_a_name_that_says_something_else_is_told_of(name: str, content_type: str, is_misnamed: bool) -> None:  # noqa: FBT001
    assert bool(misnamed([Path(name)], [Named(content_type, "")])) == is_misnamed


def test_a_file_gets_the_permissions_that_files_get_here(tmp_path: Path) -> None:
    (tmp_path / "usual").write_bytes(b"")
    with whole(tmp_path / "made") as file:
        file.write(b"")
    assert (tmp_path / "made").stat().st_mode == (tmp_path / "usual").stat().st_mode
