"""Bundles a project and finds out what its composition comes to: a render here or in the cloud begins so."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from oanim.cli.failures import Failure, stopped
from oanim.cli.placing import prepare_folder, refuse_what_is_no_file
from oanim_remotion import browser as browsers
from oanim_remotion import driver
from oanim_remotion.errors import RemotionError, RenderFailed
from oanim_remotion.installation import Installation, of_project, without_ours
from oanim_remotion.running import scratch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oanim.cli.progress import Progress
    from oanim.cli.rendering.asked import Asked, Target
    from oanim_remotion.driver import Video

_LINES_SHOWN = 12
# What Remotion says besides: how far it is, where it is in its own code, and what it thinks of this machine.
_NOISE = (
    "Bundling ",
    "Rendered ",
    "Encoded ",
    "at ",
    "Detected differing",
    "Memory reported",
    "You might have",
)


class Prepared(NamedTuple):
    """A project's bundle, what is to be rendered of it and where to, and what it is rendered with."""

    bundle: Path
    video: Video
    target: Target
    installation: Installation
    browser: Path
    environment: dict[str, str]


@contextmanager
def prepared(asked: Asked, named_browser: str | None, progress: Progress) -> Iterator[Prepared]:
    """Prepare a render; what is made for it lasts as long as the block."""
    target = asked.target()
    prepare_folder(target.path.parent)
    refuse_what_is_no_file(target.path)
    environment = without_ours(dict(os.environ))
    with explained(), scratch(environment) as folder:
        installation = of_project(asked.project.folder)
        browser = browsers.find(named_browser)
        bundle = folder / "bundle"
        driver.bundle(
            installation,
            asked.project.entry,
            bundle,
            environment=environment,
            on_percent=lambda percent: progress.part("bundling", percent, 100),
        )
        progress.now("looking at the compositions")
        found = driver.compositions(
            installation, bundle, browser=browser, environment=environment, props_json=asked.props_json
        )
        yield Prepared(bundle, asked.video(found), target, installation, browser, environment)


@contextmanager
def explained() -> Iterator[None]:
    """Say in a sentence why Remotion could not be driven, with what it said itself."""
    try:
        yield
    except RenderFailed as error:
        failure = Failure(f"Remotion failed: {stopped(str(error))}")
        lines = [line for line in error.lines if not line.startswith(_NOISE)]
        for line in lines[-_LINES_SHOWN:]:
            failure.add_note(f"  {line}")
        raise failure from error
    except RemotionError as error:
        raise Failure(stopped(str(error))) from error
