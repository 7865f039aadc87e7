"""The words `oanim init` and `oanim render`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oanim.cli import progress
from oanim.cli.command import answering, key_option, with_client
from oanim.cli.rendering.asked import MAX_FPS, Asked, Project, Resolution, props_of
from oanim_remotion.browser import BROWSER_VARIABLE
from oanim_remotion.codecs import Codec

if TYPE_CHECKING:
    from oanim.cli.showing import Answer
    from oanim.client import Client


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
@click.option("--cloud", is_flag=True, help="Have it rendered by the service, for its price.")
@click.option("--quote", "only_quote", is_flag=True, help="With --cloud: show the price; nothing is spent.")
@click.option("--yes", is_flag=True, help="With --cloud: do not ask, whatever it costs.")
@key_option
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
    cloud: bool,
    only_quote: bool,
    yes: bool,
    key: str | None,
) -> Answer:
    """Make the animation's video: here, for nothing, or in the cloud.

    What is not said is as the project's animate.json has it, and else as the composition is.
    """
    if not cloud and (only_quote or yes or key):
        raise click.UsageError("--quote, --yes and --key go with --cloud; rendering here costs nothing.")
    asked = Asked(
        project=Project.found(Path.cwd()),
        composition=composition,
        out=out,
        fps=fps,
        resolution=res,
        codec=Codec(codec) if codec else None,
        props_json=props_of(props),
    )
    if cloud:
        from oanim.cli.rendering.cloud import Order
        from oanim.cli.rendering.cloud import render as render_there

        return render_there(asked, browser, Order(only_quote=only_quote, asks=not yes, key=key))
    from oanim.cli.rendering.local import render as render_here

    with progress.shown() as shown:
        return render_here(asked, browser, shown)


@render.command("list")
@click.option(
    "--limit", "-l", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many."
)
@with_client
def list_(client: Client, *, limit: int) -> Answer:
    """List what was rendered in the cloud, newest first."""
    from oanim.cli.rendering.renders import listed

    return listed(client, limit=limit)


@render.command()
@click.argument("render_id", metavar="ID")
@click.option("--out", help="The video's file, or a folder: videos/")
@with_client
def get(client: Client, *, render_id: str, out: str | None) -> Answer:
    """Wait for a render that was begun before, and download its video."""
    from oanim.cli.rendering import following

    with progress.shown() as shown:
        return following.get(client, render_id, out, shown)


@render.command()
@click.argument("render_id", metavar="ID")
@with_client
def cancel(client: Client, *, render_id: str) -> Answer:
    """Stop a render; the frames that are done by then are charged."""
    from oanim.cli.rendering.renders import cancelled

    return cancelled(client, render_id)
