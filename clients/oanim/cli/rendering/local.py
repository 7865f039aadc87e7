"""Renders a project on this machine. Nothing here knows the service, or how to reach it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim.cli.placing import placed
from oanim.cli.rendering.preparing import prepared
from oanim.cli.rendering.summary import Made, summary
from oanim.cli.showing import Answer
from oanim_remotion import driver

if TYPE_CHECKING:
    from oanim.cli.progress import Progress
    from oanim.cli.rendering.asked import Asked


def render(asked: Asked, named_browser: str | None, progress: Progress) -> Answer:
    """Render a video into its file, which appears whole or not at all."""
    with (
        prepared(asked, named_browser, progress) as ready,
        placed(ready.target.path) as unfinished,
    ):
        progress.part("rendering", 0, ready.video.frames)
        driver.render(
            ready.installation,
            ready.bundle,
            ready.video,
            unfinished,
            browser=ready.browser,
            environment=ready.environment,
            props_json=asked.props_json,
            on_frames=lambda frames: progress.part("rendering", frames, ready.video.frames),
        )
    made = Made.of(ready.video, ready.target.path)
    return Answer(data=made.data(), lines=summary(made))
