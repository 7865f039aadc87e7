"""The words `oanim init` and `oanim render`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oanim.cli import progress
from oanim.cli.command import answering
from oanim.cli.rendering.asked import MAX_FPS, Asked, Project, Resolution, props_of
from oanim_remotion.browser import BROWSER_VARIABLE
from oanim_remotion.codecs import Codec

if TYPE_CHECKING:
    from oanim.cli.showing import Answer


class _Resolution(click.ParamType[Resolution]):
    name = "RES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Resolution:
        try:
            return Resolution.read(str(value))
        except ValueError as error:
            self.fail(f"it {error}, not {str(value)!r}.", param, ctx)


@click.command()
@click.argument("name", required=False)
@click.option("--no-install", is_flag=True, help="Write the project, and install nothing.")
@answering
def init(*, name: str | None, no_install: bool) -> Answer:
    """Begin an animation: a small project of Remotion's, in TypeScript.

    NAME is its folder; without one it goes into the present folder, which must be empty.
    """
    from oanim.cli.rendering.starting import start

    with progress.shown() as shown:
        return start(name, installs=not no_install, progress=shown)


@click.group(invoke_without_command=True)
@click.option("--out", help="The video's file, or a folder: videos/")
@click.option("--fps", type=click.IntRange(1, MAX_FPS), help="Frames a second; it stays as long as it is.")
@click.option("--res", type=_Resolution(), help="1080p, 720p, 4k and the like, or a size: 1280x720.")
@click.option(
    "--codec", type=click.Choice([codec.value for codec in Codec]), help="How the video is encoded."
)
@click.option("--props", help="What the composition is given: JSON, or a file of it.")
@click.option("--composition", help="Which composition, by its id.")
@click.option("--browser", help=f"The browser that draws it, before {BROWSER_VARIABLE} and the system's.")
@answering
def render(
    *,
    out: str | None,
    fps: int | None,
    res: Resolution | None,
    codec: str | None,
    props: str | None,
    composition: str | None,
    browser: str | None,
) -> Answer:
    """Make the animation's video, here, for nothing.

    What is not said is as the project's animate.json has it, and else as the composition is.
    """
    from oanim.cli.rendering.local import render as render_here

    asked = Asked(
        project=Project.found(Path.cwd()),
        composition=composition,
        out=out,
        fps=fps,
        resolution=res,
        codec=Codec(codec) if codec else None,
        props_json=props_of(props),
    )
    with progress.shown() as shown:
        return render_here(asked, browser, shown)
