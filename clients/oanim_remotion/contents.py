"""What a bundle may hold, which names, how many, how large: the same where it is packed and read."""

from __future__ import annotations

import re

MAX_UNPACKED_BYTES = 1_000_000_000
MAX_ENTRIES = 20_000
MAX_NAME_BYTES = 1_024
# What the usual file systems allow a part of a name.
MAX_PART_BYTES = 255

_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


class BundleRefused(Exception):
    """A bundle is not what a bundle may be: `entry` names what is wrong, empty for the whole file.

    `entry` is as a stranger wrote it, cut to a length that fits a message, and without what is not printable.
    """

    def __init__(self, entry: str, why: str) -> None:
        entry = "".join(character if character.isprintable() else "?" for character in entry)
        self.entry = entry if len(entry) <= 200 else f"{entry[:200]}..."
        self.why = why
        super().__init__(f"{self.entry}: {why}" if self.entry else why)

    def __reduce__(self) -> tuple[type[BundleRefused], tuple[str, str]]:
        return type(self), (self.entry, self.why)


class Contents:
    """Counts what a bundle holds, and refuses an entry before a byte of it is read or written."""

    def __init__(self, *, max_unpacked_bytes: int, max_entries: int) -> None:
        self._max_unpacked_bytes = max_unpacked_bytes
        self._max_entries = max_entries
        self.unpacked_bytes = 0
        self._files: set[str] = set()
        # Of each folder, whether an entry named it or only what lies in it did.
        self._folders: dict[str, bool] = {}

    @property
    def entries(self) -> int:
        """How many files and folders there are."""
        return len(self._files) + len(self._folders)

    def take(self, name: str, *, size_bytes: int, is_folder: bool) -> None:
        """Add an entry, or raise BundleRefused."""
        why = _wrong_with(name)
        if why:
            raise BundleRefused(name, why)
        above = name.rpartition("/")[0]
        # What a known folder lies in is known.
        while above and above not in self._folders:
            if above in self._files:
                raise BundleRefused(name, "it lies in what came before as a file")
            self._folders[above] = False
            above = above.rpartition("/")[0]
        if name in self._files or self._folders.get(name, False) or (not is_folder and name in self._folders):
            raise BundleRefused(name, "it is there twice")
        if is_folder:
            self._folders[name] = True
        else:
            self._files.add(name)
        if self.entries > self._max_entries:
            raise BundleRefused(name, f"there are more than {self._max_entries:,} files and folders")
        self.unpacked_bytes += size_bytes
        if self.unpacked_bytes > self._max_unpacked_bytes:
            raise BundleRefused(name, f"it unpacks to more than {self._max_unpacked_bytes:,} bytes")


def _wrong_with(name: str) -> str:
    """Say why a name is refused; nothing for a good one."""
    parts = name.split("/")
    encoded = [part.encode(errors="surrogateescape") for part in parts]
    found = (
        (any("\ud800" <= character <= "\udfff" for character in name), "its name is not UTF-8"),
        (
            sum(map(len, encoded)) + len(parts) - 1 > MAX_NAME_BYTES,
            f"its name is longer than {MAX_NAME_BYTES:,} bytes",
        ),
        (
            bool(_CONTROLS.search(name)) or "\\" in name,
            "its name holds a backslash or a control character",
        ),
        (name.startswith("/"), "its name is an absolute path"),
        (".." in parts, "its name leads to a parent folder"),
        ("" in parts or "." in parts, "its name has an empty part or a dot for one"),
        (
            max(map(len, encoded)) > MAX_PART_BYTES,
            f"a part of its name is longer than {MAX_PART_BYTES} bytes",
        ),
    )
    return next((why for is_wrong, why in found if is_wrong), "")
