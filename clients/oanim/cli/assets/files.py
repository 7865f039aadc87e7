"""Names the files that outputs become."""

from __future__ import annotations

import mimetypes
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from oanim.cli.placing import prepare_folder, refuse_what_is_no_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]")
# The standard library's own choice for these differs from one system to the next.
_SUFFIXES = {"audio/wav": ".wav", "audio/x-wav": ".wav", "audio/mpeg": ".mp3", "image/jpeg": ".jpg"}


class Named(NamedTuple):
    """What is known of an output: its media type, and the name its maker gave it; may be empty."""

    content_type: str
    file_name: str


@dataclass(frozen=True, slots=True)
class Destination:
    """Where outputs go: `out` is a file, a folder, or None for the present folder.

    `numbered` gives even a single output a number, because several were asked for. `makes_folder` takes `out`
    for a folder that may not be there yet.
    """

    out: Path | None
    numbered: bool = False
    makes_folder: bool = False

    @classmethod
    def named(cls, out: str | None, *, numbered: bool = False) -> Self:
        """Read --out: what ends as a folder does is one, whether it is there or not."""
        if out is None:
            return cls(None)
        return cls(Path(out), numbered, makes_folder=out.endswith((os.sep, os.altsep or os.sep)))

    def prepare(self) -> None:
        """Make the folders, and find out what could not be written, before anything is spent."""
        if self.out is None:
            return
        folder = self.out if self._is_folder() else self.out.parent
        prepare_folder(folder)
        if self._is_folder():
            return
        numbered = re.compile(rf"{re.escape(self.out.stem)}-[0-9]+{re.escape(self.out.suffix)}")
        for path in folder.iterdir() if self.numbered else [self.out]:
            if path == self.out or numbered.fullmatch(path.name):
                refuse_what_is_no_file(path)

    def paths(self, generation_id: str, outputs: Sequence[Named]) -> list[Path]:
        """Name a file for each output: out.png, or out-1.png and so on for several."""
        several = self.numbered or len(outputs) > 1
        return [
            self._path(generation_id, output, f"-{number}" if several else "")
            for number, output in enumerate(outputs, start=1)
        ]

    def _path(self, generation_id: str, output: Named, number: str) -> Path:
        if self.out is not None and not self._is_folder():
            return self.out.with_name(f"{self.out.stem}{number}{self.out.suffix}")
        name = _NOT_IN_A_NAME.sub("_", generation_id)
        return (self.out or Path()) / f"{name}{number}{_suffix(output)}"

    def _is_folder(self) -> bool:
        return self.out is not None and (self.makes_folder or self.out.is_dir() or not self.out.name)


def how_to_get(generation_id: str, destination: Destination) -> str:
    """Say how to get what was, or will be, made."""
    end = os.sep if destination.makes_folder else ""
    out = [] if destination.out is None else ["--out", f"{destination.out}{end}"]
    return f"Get it later: {shlex.join(['oanim', 'assets', 'get', generation_id, *out])}"


def misnamed(files: Sequence[Path], outputs: Sequence[Named]) -> list[str]:
    """Say which files hold something else than their names say."""
    notes = []
    for path, output in zip(files, outputs, strict=True):
        usual = _suffix(output)
        others = mimetypes.guess_all_extensions(_media_type(output))
        if usual and path.suffix and path.suffix.lower() not in (usual, *others):
            notes.append(f"{path} holds {_media_type(output) or usual}, whatever its name says.")
    return notes


def _media_type(output: Named) -> str:
    return output.content_type.partition(";")[0].strip().lower()


def _suffix(output: Named) -> str:
    content_type = _media_type(output)
    given = Path(output.file_name).suffix
    fallback = given.lower() if _SUFFIX.fullmatch(given) else ""
    return _SUFFIXES.get(content_type) or mimetypes.guess_extension(content_type) or fallback
