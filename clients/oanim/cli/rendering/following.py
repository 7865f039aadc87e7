"""Follows a render that the service has taken to its end, and downloads its video."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oanim.calls import rendering as calls
from oanim.cli.billing.balance import low_balance
from oanim.cli.failures import AWAY, INTERRUPTED, Failure, stopped
from oanim.cli.messages import plain, word
from oanim.cli.money import dollars
from oanim.cli.placing import prepare_folder, refuse_what_is_no_file
from oanim.cli.rendering.summary import Made, summary
from oanim.cli.showing import Answer
from oanim.errors import OanimError, OutputGone
from oanim_remotion.codecs import Codec
from openanimate.metering.v1.render_service_pb2 import RenderCodec, RenderState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oanim.cli.progress import Progress
    from oanim.client import Client
    from openanimate.metering.v1.render_service_pb2 import Render, WatchRenderResponse

# How long the service may be away while the render goes on before we give up watching it.
_PATIENCE_S = 120.0
UNFINISHED = (RenderState.RENDER_STATE_QUEUED, RenderState.RENDER_STATE_RENDERING)


def get(client: Client, render_id: str, out: str | None, progress: Progress) -> Answer:
    """Wait for a render that was submitted before, and download its video."""
    render = client.get_render(render_id=render_id).render
    target = _target(render, out)
    prepare_folder(target.parent)
    refuse_what_is_no_file(target)
    return delivered(client, followed(client, render, target, progress), target, progress)


def followed(client: Client, render: Render, target: Path, progress: Progress) -> WatchRenderResponse:
    """Wait until a render has ended, and show how far it is."""

    def ask_again(_: OanimError, silent_s: float) -> None:
        if silent_s > _PATIENCE_S:
            raise _detached(f"the service has not answered for {silent_s:.0f} s", render, target, AWAY)
        progress.now("the service does not answer; asking again")

    # Of a stream that is taken up again even the state that was known is news: the service answers again.
    watching = calls.watch_render(render_id=render.render_id)
    call = replace(watching, is_news=lambda *_: True, on_break=ask_again)
    try:
        for message in client.connection.stream(call):
            if message.render.state not in UNFINISHED:
                return message
            _show(message.render, progress)
    except KeyboardInterrupt:
        raise _detached("interrupted", render, target, INTERRUPTED) from None
    except OanimError as error:
        error.add_note(f"The render goes on. {_how_to_get(render, target)}")
        raise
    raise Failure(f"the service ended its report before the render. {_how_to_get(render, target)}")


def delivered(
    client: Client,
    ended: WatchRenderResponse,
    target: Path,
    progress: Progress,
    *,
    more: Mapping[str, Any] | None = None,
) -> Answer:
    """Download what was rendered, or fail as the render did."""
    render, wallet = ended.render, ended.wallet
    if render.state != RenderState.RENDER_STATE_SUCCEEDED:
        raise Failure(ended_badly(render))
    try:
        progress.now(f"downloading {target}")
        client.download_render(render_id=render.render_id, path=target)
    except KeyboardInterrupt:
        raise Failure(f"interrupted. {_how_to_get(render, target)}", INTERRUPTED) from None
    except OutputGone as error:
        error.add_note(f"It was charged {dollars(render.charged_micros)} when it was made.")
        raise
    except (OanimError, OSError) as error:
        error.add_note(f"It is rendered and charged. {_how_to_get(render, target)}")
        raise
    spec = render.spec
    made = Made(
        path=str(target),
        size_bytes=target.stat().st_size,
        composition=spec.composition,
        width=spec.width,
        height=spec.height,
        fps=spec.fps,
        frames=spec.frames,
        codec=_codec(render).value,
    )
    return Answer(
        data={**made.data(), "render": plain(render), "wallet": plain(wallet), **(more or {})},
        lines=[
            *summary(made),
            f"Charged {dollars(render.charged_micros)}, {dollars(wallet.available_micros)} is left.",
            f"Render {render.render_id}",
        ],
        notes=low_balance(wallet),
        if_unread=f"Render {render.render_id} is made and charged.",
    )


def ended_badly(render: Render) -> str:
    """Say how a render ended that has no video."""
    if render.state == RenderState.RENDER_STATE_CANCELLED:
        done = f"{render.frames_done:,} of {render.spec.frames:,} frames"
        return (
            f"render {render.render_id} was cancelled. Charged {dollars(render.charged_micros)} for {done}."
        )
    why = stopped(render.failure.message.strip() or "no worker says why")
    return f"render {render.render_id} failed: {why} Nothing was charged."


def _show(render: Render, progress: Progress) -> None:
    if render.state == RenderState.RENDER_STATE_RENDERING:
        progress.part("rendering", render.frames_done, render.spec.frames)
    else:
        before = f", {render.queue_position} before it" if render.queue_position else ""
        progress.now(f"waiting for a worker{before}")


def _target(render: Render, out: str | None) -> Path:
    """Name the video after its render, unless --out names it."""
    suffix = _codec(render).suffix
    path = Path(out or "")
    if not out or out.endswith((os.sep, os.altsep or os.sep)) or path.is_dir():
        return path / f"{render.render_id}{suffix}"
    return path if path.suffix else path.with_name(f"{path.name}{suffix}")


def _codec(render: Render) -> Codec:
    return Codec(word(RenderCodec.DESCRIPTOR, render.spec.codec))


def _how_to_get(render: Render, target: Path) -> str:
    command = ["oanim", "render", "get", render.render_id, "--out", str(target)]
    return f"Get it later: {shlex.join(command)}"


def _detached(why: str, render: Render, target: Path, exit_code: int) -> Failure:
    return Failure(f"{why}; the render goes on. {_how_to_get(render, target)}", exit_code)
