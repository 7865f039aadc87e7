"""Shows an account's renders, and stops them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim.cli.messages import plain, time, word
from oanim.cli.money import dollars
from oanim.cli.paging import items
from oanim.cli.rendering.following import UNFINISHED, ended_badly
from oanim.cli.showing import Answer, table
from openanimate.metering.v1.render_service_pb2 import RenderState

if TYPE_CHECKING:
    from oanim.client import Client
    from openanimate.metering.v1.render_service_pb2 import Render

_TITLES = ("Submitted (UTC)", "State", "Frames", "Composition", "Picture", "Charged", "Held", "Render")


def listed(client: Client, *, limit: int) -> Answer:
    """List renders, newest first."""
    found = items(client.list_renders, "renders", limit=limit)
    rows = [_row(render) for render in found]
    return Answer(
        data={"renders": [plain(render) for render in found]},
        lines=table(_TITLES, rows, right=(2, 5, 6))
        if rows
        else ["Nothing was rendered in the cloud yet: oanim render --cloud"],
    )


def cancelled(client: Client, render_id: str) -> Answer:
    """Stop a render; one that has ended stays as it is."""
    answer = client.cancel_render(render_id=render_id)
    render = answer.render
    if render.state == RenderState.RENDER_STATE_SUCCEEDED:
        said = f"Render {render.render_id} had ended before. Charged {dollars(render.charged_micros)}."
    else:
        said = ended_badly(render)
    return Answer(
        data={"render": plain(render), "wallet": plain(answer.wallet)},
        lines=[
            f"{said[:1].upper()}{said[1:]}",
            f"{dollars(answer.wallet.available_micros)} is left.",
        ],
    )


def _row(render: Render) -> tuple[str, ...]:
    held = dollars(render.quoted_micros) if render.state in UNFINISHED else "-"
    spec = render.spec
    return (
        time(render.created_at),
        word(RenderState.DESCRIPTOR, render.state),
        f"{render.frames_done:,}/{spec.frames:,}",
        spec.composition,
        f"{spec.width}x{spec.height}",
        dollars(render.charged_micros) if render.charged_micros else "-",
        held,
        render.render_id,
    )
