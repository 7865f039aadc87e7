"""What a paid command asks for, whoever does it, and what both ways of having it done can do.

The input is written once it is known how a picture is named in it: as an upload, or as its own bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from oanim.cli.assets.files import Destination
    from oanim.cli.assets.pictures import Picture
    from oanim.cli.progress import Progress
    from oanim.cli.session import Session
    from oanim.cli.showing import Answer


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command's own options come to. `write_input` makes the JSON, given a name for each picture."""

    model: str
    write_input: Callable[[Sequence[str]], str]
    pictures: tuple[Picture, ...] = ()
    count: int = 1

    def quotable_input(self) -> str:
        """Write the input for a price: pictures have no part in it, and none is sent."""
        return self.write_input([f"picture-{number}" for number in range(len(self.pictures))])


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be made, where it goes, and the key that names this attempt, the caller's own or not."""

    asked: Asked
    destination: Destination
    key: str
    key_is_given: bool


@dataclass(frozen=True, slots=True)
class Quote:
    """What the work would cost, the whole answer for --json, and what else is to be known of it."""

    amount_micros: int
    data: dict[str, Any]
    notes: Sequence[str] = ()


class Studio(Protocol):
    """Whoever has work done: the service, or fal.ai itself."""

    def quote(self, asked: Asked) -> Quote:
        """Price the work; nothing is sent to a model, and nothing is held."""

    def make(self, work: Work, session: Session, progress: Progress) -> Answer:
        """Have the work done, and download what it made."""

    def get(self, generation_id: str, destination: Destination, progress: Progress) -> Answer:
        """Wait for work that was started before, and download what it made."""
