from __future__ import annotations

import gzip
import os
import tarfile
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oanim_remotion import bundle
from oanim_remotion.bundle import BundleRefused, Checked, check, pack, unpack
from tests.remotion.archives import bundle_of, header_block, of_blocks, special

if TYPE_CHECKING:
    from pathlib import Path

END = bytes(1024)
LONG_NAME = f"{'x' * 200}/{'ä' * 120}.png"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """What Remotion's bundler leaves: pages, scripts, and a project's own files."""
    site = tmp_path / "site"
    (site / "public" / "empty").mkdir(parents=True)
    (site / "index.html").write_text("<html></html>")
    (site / "bundle.js").write_bytes(os.urandom(200_000))
    (site / "public" / "none").write_bytes(b"")
    (site / LONG_NAME).parent.mkdir()
    (site / LONG_NAME).write_bytes(b"picture")
    return site


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A folder that is not there yet, two levels down in one that nothing else may appear in."""
    (tmp_path / "around").mkdir()
    return tmp_path / "around" / "target"


def _contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refusal(path: Path, target: Path, **limits: int) -> tuple[str, str]:
    """What `check` and `unpack` say, which is the same, and that nothing came of it anywhere."""
    before = set(target.parents[1].rglob("*"))
    with pytest.raises(BundleRefused) as checked:
        check(path, **limits)
    with pytest.raises(BundleRefused) as unpacked:
        unpack(path, target, **limits)
    assert set(target.parents[1].rglob("*")) == before
    assert str(checked.value) == str(unpacked.value)
    return checked.value.entry, checked.value.why


def test_a_folder_comes_back_as_it_was_packed(site: Path, tmp_path: Path, target: Path) -> None:
    packed = pack(site, tmp_path / "bundle.gz")

    assert unpack(tmp_path / "bundle.gz", target) == check(tmp_path / "bundle.gz")
    assert check(tmp_path / "bundle.gz") == Checked(entries=7, unpacked_bytes=200_020)
    assert packed.size_bytes == (tmp_path / "bundle.gz").stat().st_size
    assert _contents(target) == _contents(site)


def test_the_same_folder_is_packed_to_the_same_bytes(site: Path, tmp_path: Path) -> None:
    first = pack(site, tmp_path / "first.gz")
    for path in site.rglob("*"):
        path.chmod(0o700)
        os.utime(path, (1, 1))

    assert pack(site, tmp_path / "second.gz") == first


def test_what_links_lead_to_is_packed(site: Path, tmp_path: Path, target: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "logo.png").write_bytes(b"logo")
    (site / "public" / "logo.png").symlink_to(elsewhere / "logo.png")
    (site / "public" / "all").symlink_to(elsewhere)
    pack(site, tmp_path / "bundle.gz")
    unpack(tmp_path / "bundle.gz", target)

    assert (target / "public/logo.png").read_bytes() == (target / "public/all/logo.png").read_bytes()
    assert [path for path in target.rglob("*") if path.is_symlink()] == []


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.symlink_to(".."), "it is a link to a folder that it is in"),
        (lambda path: path.symlink_to("nowhere"), "it cannot be read: No such file or directory"),
        (os.mkfifo, "it is neither a file nor a folder"),
    ],
    ids=["a loop", "a dangling link", "a pipe"],
)
def test_what_no_bundle_can_hold_is_not_packed(site: Path, tmp_path: Path, make: object, why: str) -> None:
    assert callable(make)
    make(site / "public" / "wrong")
    with pytest.raises(BundleRefused) as refused:
        pack(site, tmp_path / "bundle.gz")

    assert (refused.value.entry, refused.value.why) == ("public/wrong", why)
    assert not (tmp_path / "bundle.gz").exists()


def test_what_would_be_refused_later_is_not_packed(site: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleRefused, match="more than 100 bytes"):
        pack(site, tmp_path / "bundle.gz", max_unpacked_bytes=100)
    with pytest.raises(BundleRefused, match="more than 3 files and folders"):
        pack(site, tmp_path / "bundle.gz", max_entries=3)
    (site / "back\\slash").touch()
    with pytest.raises(BundleRefused, match="backslash"):
        pack(site, tmp_path / "bundle.gz")


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (special("public/x", tarfile.SYMTYPE, link="/etc/passwd"), "it is a symbolic link"),
        (special("public/x", tarfile.SYMTYPE, link="y"), "it is a symbolic link"),
        (special("public/x", tarfile.LNKTYPE, link="index.html"), "it is a hard link"),
        (special("public/x", tarfile.CHRTYPE), "it is a device"),
        (special("public/x", tarfile.BLKTYPE), "it is a device"),
        (special("public/x", tarfile.FIFOTYPE), "it is a pipe"),
        (special("public/x", tarfile.CONTTYPE), "it is of a kind that no bundle has"),
        (special("public/x", tarfile.XHDTYPE), "it is of a kind that no bundle has"),
        (special("public/x", tarfile.GNUTYPE_SPARSE), "it is of a kind that no bundle has"),
        (special("public/x", tarfile.GNUTYPE_LONGLINK), "it is of a kind that no bundle has"),
        (special("public/x", b"Z"), "it is of a kind that no bundle has"),
    ],
    ids=lambda value: value.type.decode() if isinstance(value, tarfile.TarInfo) else "",
)
def test_only_files_and_folders_are_unpacked(
    tmp_path: Path, target: Path, entry: tarfile.TarInfo, why: str
) -> None:
    path = bundle_of(tmp_path / "bundle.gz", ("index.html", b"<html>"), entry)

    assert refusal(path, target) == ("public/x", why)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../escaped", "its name leads to a parent folder"),
        ("public/../../escaped", "its name leads to a parent folder"),
        ("..", "its name leads to a parent folder"),
        ("/etc/escaped", "its name is an absolute path"),
        ("//etc/escaped", "its name is an absolute path"),
        ("./index.html", "its name has an empty part or a dot for one"),
        ("public//x", "its name has an empty part or a dot for one"),
        ("public/./x", "its name has an empty part or a dot for one"),
        ("", "its name has an empty part or a dot for one"),
        ("..\\escaped", "its name holds a backslash or a control character"),
        ("C:\\escaped", "its name holds a backslash or a control character"),
        ("new\nline", "its name holds a backslash or a control character"),
        ("x" * 256, "a part of its name is longer than 255 bytes"),
        ("ä" * 128, "a part of its name is longer than 255 bytes"),
        ("/".join(["x" * 100] * 11), "a name is longer than 1,024 bytes, or empty"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, target: Path, name: str, why: str) -> None:
    path = bundle_of(tmp_path / "bundle.gz", ("index.html", b"<html>"), (name, b"pwned"))
    entry, said = refusal(path, target)

    assert said == why
    assert entry in ("", name.replace("\n", "?"), f"{name[:200]}...")


def test_a_folder_elsewhere_is_refused(tmp_path: Path, target: Path) -> None:
    path = bundle_of(tmp_path / "bundle.gz", special("../escaped", tarfile.DIRTYPE))

    assert refusal(path, target) == ("../escaped", "its name leads to a parent folder")


def test_a_name_with_a_zero_byte_is_refused(tmp_path: Path, target: Path) -> None:
    path = of_blocks(tmp_path / "short.gz", header_block(b"index.html\0/../x"), END)
    long_name = b"index.html\0/../x\0"
    long = of_blocks(
        tmp_path / "long.gz",
        header_block("L", size=len(long_name), kind=tarfile.GNUTYPE_LONGNAME),
        long_name.ljust(512, b"\0"),
        header_block("index.html"),
        END,
    )

    assert refusal(path, target) == ("index.html", "its header holds something after a zero byte")
    assert refusal(long, target)[1] == "its name holds a backslash or a control character"


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path, target: Path) -> None:
    path = of_blocks(tmp_path / "bundle.gz", header_block(b"caf\xe9.png"), END)

    assert refusal(path, target)[1] == "its name is not UTF-8"


@pytest.mark.parametrize(
    ("entries", "refused", "why"),
    [
        (["a", "a"], "a", "it is there twice"),
        (["a/b", "a/b"], "a/b", "it is there twice"),
        (["a/b", "a"], "a", "it is there twice"),
        (["a", "a/b/c"], "a/b/c", "it lies in what came before as a file"),
    ],
)
def test_no_entry_is_written_over_another(
    tmp_path: Path, target: Path, entries: list[str], refused: str, why: str
) -> None:
    path = bundle_of(tmp_path / "bundle.gz", *[(name, b"") for name in entries])

    assert refusal(path, target) == (refused, why)


def test_a_folder_may_be_named_before_or_after_what_is_in_it_once(tmp_path: Path, target: Path) -> None:
    folder = special("a", tarfile.DIRTYPE)
    good = bundle_of(tmp_path / "good.gz", ("a/b", b""), folder)
    twice = bundle_of(tmp_path / "twice.gz", folder, ("a/b", b""), folder)

    assert refusal(twice, target) == ("a", "it is there twice")
    assert unpack(good, target) == Checked(entries=2, unpacked_bytes=0)


def test_a_bomb_is_refused_before_it_is_inflated(tmp_path: Path, target: Path) -> None:
    path = of_blocks(tmp_path / "bomb.gz", header_block("bomb", size=1 << 32), bytes(1 << 26))

    assert refusal(path, target) == ("bomb", "it unpacks to more than 1,000,000,000 bytes")


def test_many_small_bombs_are_one(tmp_path: Path, target: Path) -> None:
    path = bundle_of(tmp_path / "bombs.gz", *[(f"{number}", bytes(40)) for number in range(10)])

    assert refusal(path, target, max_unpacked_bytes=200) == ("5", "it unpacks to more than 200 bytes")
    assert check(path, max_unpacked_bytes=400) == Checked(entries=10, unpacked_bytes=400)


@pytest.mark.parametrize(
    "blocks",
    [
        pytest.param((bytes(1 << 26),), id="after the end"),
        pytest.param(
            (header_block("L", size=1 << 30, kind=tarfile.GNUTYPE_LONGNAME), bytes(1 << 26)), id="a name"
        ),
        pytest.param(
            (header_block("x", size=1 << 26, kind=tarfile.XHDTYPE), bytes(1 << 26)), id="another header"
        ),
        pytest.param((header_block("file", size=1 << 27), bytes(1 << 26)), id="a torn file"),
    ],
)
def test_nothing_in_a_bundle_makes_the_memory_grow(tmp_path: Path, blocks: tuple[bytes, ...]) -> None:
    path = of_blocks(tmp_path / "bundle.gz", *blocks)
    tracemalloc.start()
    try:
        with pytest.raises(BundleRefused):
            check(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_too_many_entries_are_refused_and_folders_count(tmp_path: Path, target: Path) -> None:
    path = bundle_of(tmp_path / "many.gz", *[(f"{number}/x", b"") for number in range(10)])

    assert refusal(path, target, max_entries=11) == ("5/x", "there are more than 11 files and folders")
    assert check(path, max_entries=20).entries == 20


def test_a_torn_bundle_is_refused_wherever_it_is_torn(site: Path, tmp_path: Path, target: Path) -> None:
    pack(site, tmp_path / "whole.gz")
    content = (tmp_path / "whole.gz").read_bytes()
    for length in (0, 1, 9, 20, 1_000, 100_000, len(content) - 9, len(content) - 8, len(content) - 1):
        (tmp_path / "torn.gz").write_bytes(content[:length])
        assert "torn" in refusal(tmp_path / "torn.gz", target)[1]


def test_an_archive_without_its_end_is_torn(tmp_path: Path, target: Path) -> None:
    path = of_blocks(tmp_path / "bundle.gz", header_block("file", size=512), bytes(range(256)) * 2)
    half = of_blocks(tmp_path / "half.gz", header_block("file", size=1024), bytes(range(256)) * 2)

    assert refusal(path, target) == ("", "the archive is torn off here")
    assert refusal(half, target) == ("file", "the archive is torn off here")


def test_a_damaged_bundle_is_refused(site: Path, tmp_path: Path, target: Path) -> None:
    pack(site, tmp_path / "whole.gz")
    content = bytearray((tmp_path / "whole.gz").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "damaged.gz").write_bytes(content)

    assert refusal(tmp_path / "damaged.gz", target)[1] == "it is no gzip file, or a damaged one"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"PK\x03\x04 a zip", "it is no gzip file, or a damaged one"),
        (b"", "the archive is torn off here"),
        (gzip.compress(b"no tar".ljust(512, b"!")), "a header of the archive is damaged"),
        (gzip.compress(END) + b"more", "something follows the archive"),
        (gzip.compress(END) + gzip.compress(END), "something follows the archive"),
        (gzip.compress(END + b"more"), "the archive goes on after its end"),
        (gzip.compress(END[:512] + b"more".ljust(512)), "the archive goes on after its end"),
    ],
    ids=["zip", "nothing", "no tar", "bytes after", "a second one", "text after its end", "a block after"],
)
def test_what_is_no_bundle_is_refused(tmp_path: Path, target: Path, content: bytes, why: str) -> None:
    path = tmp_path / "bundle.gz"
    path.write_bytes(content)

    assert refusal(path, target) == ("", why)


def test_a_size_below_nothing_is_refused(tmp_path: Path, target: Path) -> None:
    path = of_blocks(tmp_path / "bundle.gz", header_block("file", size=-512), END)

    assert refusal(path, target) == ("file", "its size cannot be")


def test_two_names_that_this_file_system_takes_for_one_are_refused(tmp_path: Path, target: Path) -> None:
    path = bundle_of(tmp_path / "bundle.gz", ("a/x", b"1"), ("A/X", b"2"))
    if (tmp_path / "BUNDLE.GZ").exists():
        assert refusal(path, target)[0] == "A/X"
    else:
        assert unpack(path, target).entries == 4


def test_a_bundle_is_unpacked_into_no_folder_that_is_there(tmp_path: Path) -> None:
    path = bundle_of(tmp_path / "bundle.gz", ("a", b""))
    (tmp_path / "target").symlink_to(tmp_path)
    with pytest.raises(FileExistsError):
        unpack(path, tmp_path / "target")

    assert not (tmp_path / "a").exists()


def test_what_is_unpacked_is_nobodys_program(tmp_path: Path, target: Path) -> None:
    header = special("run.sh", tarfile.REGTYPE)
    header.mode, header.uid = 0o6777, 0
    unpack(bundle_of(tmp_path / "bundle.gz", header), target)

    assert (target / "run.sh").stat().st_mode & 0o7111 == 0


@given(st.binary(max_size=2_000))
def test_whatever_a_tar_holds_is_a_bundle_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.gz"
    path.write_bytes(gzip.compress(content))
    try:
        check(path)
    except BundleRefused:
        return
    assert content.strip(b"\0") == b""


def test_a_refusal_is_fit_to_be_shown() -> None:
    refused = bundle.BundleRefused("\x1b[31m" + "x" * 400, "it is wrong")

    assert str(refused) == f"?[31m{'x' * 195}...: it is wrong"
