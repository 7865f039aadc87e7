"""The store of bundles and videos: whole files or none, out of nobody's way, and no room for long."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oanim_server.ledger.refusals import InvalidField
from oanim_server.rendering.refusals import ContentGone, StoreFull
from oanim_server.rendering.store import FolderStore, Incoming

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from typing import Any

CONTENT = os.urandom(3 * (1 << 20) + 17)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "a" / "files")


def files(store: FolderStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


async def pieces(content: bytes, size: int = 1 << 20) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def received(store: FolderStore, content: bytes, size: int = 1 << 20, **other: Any) -> str:
    facts = {"size_bytes": len(content), "sha256": hashlib.sha256(content).digest(), **other}
    return await store.receive(pieces(content, size), **facts)


async def read(store: FolderStore, object_id: str) -> list[bytes]:
    return [chunk async for chunk in store.read(object_id)]


def age(store: FolderStore, names: Iterable[str], seconds: float) -> None:
    then = time.time() - seconds
    for name in names:
        os.utime(store.folder / name, (then, then))


@pytest.mark.parametrize("size", [1000, 65_536, 1 << 20])
def test_what_is_received_is_read_back_in_chunks(store: FolderStore, size: int) -> None:
    async def there_and_back() -> list[bytes]:
        object_id = await received(store, CONTENT, size)
        assert files(store) == [object_id]
        return await read(store, object_id)

    chunks = asyncio.run(there_and_back())
    assert b"".join(chunks) == CONTENT
    assert max(map(len, chunks)) <= 1 << 20


def test_only_its_owner_opens_the_folder_and_its_files(store: FolderStore) -> None:
    object_id = asyncio.run(received(store, b"x"))
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((store.folder / object_id).stat().st_mode) == 0o600


def test_the_same_content_twice_is_two_files(store: FolderStore) -> None:
    one, other = asyncio.run(received(store, b"x")), asyncio.run(received(store, b"x"))
    asyncio.run(store.remove([one]))
    assert files(store) == [other]


@pytest.mark.parametrize(
    ("facts", "field"),
    [
        ({"size_bytes": len(CONTENT) + 1}, "size"),
        ({"size_bytes": len(CONTENT) - 1}, "size"),
        ({"size_bytes": 1}, "size"),
        ({"sha256": hashlib.sha256(b"other").digest()}, "SHA-256"),
    ],
)
def test_other_content_than_was_said_is_refused_and_not_kept(
    store: FolderStore, facts: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidField) as refused:
        asyncio.run(received(store, CONTENT, **facts))
    assert (refused.value.field, field in refused.value.description) == ("chunk", True)
    assert files(store) == []


def test_what_is_too_long_is_refused_before_it_has_come(store: FolderStore) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 20)

    with pytest.raises(InvalidField):
        asyncio.run(store.receive(endless(), size_bytes=5 << 20, sha256=bytes(32)))
    assert files(store) == []


def test_a_chunk_above_1_mb_is_refused(store: FolderStore) -> None:
    with pytest.raises(InvalidField):
        asyncio.run(received(store, CONTENT, (1 << 20) + 1))
    assert files(store) == []


def test_a_check_sees_the_whole_file_before_it_is_kept(store: FolderStore) -> None:
    async def check(path: Path) -> None:
        assert await asyncio.to_thread(path.read_bytes) == CONTENT
        raise InvalidField(field="chunk", description="it is no bundle")

    with pytest.raises(InvalidField) as refused:
        asyncio.run(received(store, CONTENT, check=check))
    assert (refused.value.description, files(store)) == ("it is no bundle", [])


def test_what_breaks_off_leaves_nothing(store: FolderStore) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield CONTENT[: 1 << 20]
        raise ConnectionError

    with pytest.raises(ConnectionError):
        asyncio.run(store.receive(broken(), size_bytes=len(CONTENT), sha256=bytes(32)))
    assert files(store) == []


@pytest.mark.parametrize("at", ["open", "write", "flush", "fsync", "keep"])
def test_what_is_cancelled_leaves_nothing_whatever_it_was_at(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def slowly(function: Any) -> Any:
        def held(*args: Any, **options: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                reached.set()
                assert go_on.wait(10)
            return function(*args, **options)

        return held

    of = Incoming if hasattr(Incoming, at) else os
    monkeypatch.setattr(of, at, slowly(getattr(of, at)))

    async def hang_up() -> None:
        task = asyncio.create_task(received(store, CONTENT))
        assert await asyncio.to_thread(reached.wait, 10)
        task.cancel()
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.sleep(0.05)
        go_on.set()
        with suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(hang_up())
    assert files(store) == []


def test_a_full_disk_is_told_and_leaves_nothing(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, flags: int, mode: int = 0o777) -> int:
        return os_open("/dev/full", os.O_WRONLY)

    os_open = os.open
    monkeypatch.setattr(os, "open", full)
    with pytest.raises(StoreFull):
        asyncio.run(received(store, CONTENT))
    monkeypatch.undo()
    assert files(store) == []


def test_another_fault_of_the_disk_is_a_fault(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="no"):
        asyncio.run(received(store, CONTENT))
    assert files(store) == []


def test_the_file_and_its_name_are_on_disk_before_it_is_answered(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def noted_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        done.append("sync folder" if path == store.folder else "sync file")
        real_fsync(descriptor)

    def noted_rename(old: Path, new: Path) -> Path:
        done.append("rename")
        return real_rename(old, new)

    real_fsync, real_rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    asyncio.run(received(store, CONTENT))
    assert done == ["sync file", "rename", "sync folder"]


def test_nothing_that_may_wait_for_a_disk_is_done_on_the_event_loop(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noted(name: str, function: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                on_the_loop.append(name)
            return function(*args, **options)

        return call

    async def there_and_back() -> None:
        object_id = await received(store, CONTENT)
        for of, name in [(os, "open"), (os, "write"), (os, "fsync"), (Path, "open"), (Path, "unlink")]:
            monkeypatch.setattr(of, name, noted(name, getattr(of, name)))
        await read(store, object_id)
        await store.remove([object_id])
        await received(store, CONTENT)
        with suppress(InvalidField):
            await received(store, CONTENT, size_bytes=1)

    on_the_loop: list[str] = []
    asyncio.run(there_and_back())
    monkeypatch.undo()
    assert on_the_loop == []


def test_what_is_removed_is_gone_and_removing_again_is_nothing(store: FolderStore) -> None:
    object_id = asyncio.run(received(store, b"x"))
    asyncio.run(store.remove([object_id]))
    asyncio.run(store.remove([object_id]))
    with pytest.raises(ContentGone):
        asyncio.run(read(store, object_id))
    assert files(store) == []


def test_what_is_removed_while_it_is_read_is_read_to_its_end(store: FolderStore) -> None:
    async def both() -> bytes:
        object_id = await received(store, CONTENT)
        content = b""
        async for chunk in store.read(object_id):
            await store.remove([object_id])
            content += chunk
        return content

    assert asyncio.run(both()) == CONTENT


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc/passwd", "a" * 31, "A" * 32, "0" * 32 + "\n"])
def test_what_is_no_id_of_ours_names_no_file(store: FolderStore, name: str) -> None:
    with pytest.raises(ValueError, match="no id"):
        asyncio.run(read(store, name))
    with pytest.raises(ValueError, match="no id"):
        asyncio.run(store.remove([name]))


def test_the_sweep_removes_what_is_old_and_nobody_names(store: FolderStore) -> None:
    asked: list[list[str]] = []

    async def known(object_ids: list[str]) -> set[str]:
        asked.append(sorted(object_ids))
        return {named}

    named, forgotten, fresh = (asyncio.run(received(store, b"x")) for _ in range(3))
    (store.folder / ("0" * 32 + ".part")).write_bytes(b"of a writer that died")
    (store.folder / ("1" * 32 + ".part")).write_bytes(b"of one that writes")
    (store.folder / "README").write_bytes(b"somebody else's")
    age(store, [named, forgotten, "0" * 32 + ".part", "README"], 3_601)
    asyncio.run(store.sweep(older_than_seconds=3_600, known=known))
    assert asked == [sorted([named, forgotten])]
    assert set(files(store)) == {named, fresh, "1" * 32 + ".part", "README"}


def test_a_sweep_asks_about_so_many_at_a_time(store: FolderStore) -> None:
    async def known(object_ids: list[str]) -> list[str]:
        assert len(object_ids) <= 1000
        return object_ids[::2]

    names = [f"{number:032x}" for number in range(2001)]
    for name in names:
        (store.folder / name).touch()
    age(store, names, 10)
    asyncio.run(store.sweep(older_than_seconds=5, known=known))
    assert len(files(store)) == 1001
