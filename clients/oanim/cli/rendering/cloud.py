"""Has a project rendered by the service's workers: the price first, then the bundle, then the video.

Once the service has taken a render, nothing that happens here loses it: every way out names its id.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from oanim.cli import attempts, credentials, progress, session
from oanim.cli.attempts import Attempt
from oanim.cli.command import opened
from oanim.cli.failures import USAGE, Failure
from oanim.cli.messages import plain
from oanim.cli.money import MICROS_PER_USD, dollars
from oanim.cli.refusals import insufficient_credits
from oanim.cli.rendering.following import delivered, followed
from oanim.cli.rendering.preparing import prepared
from oanim.cli.rendering.summary import in_units
from oanim.cli.repeating import note_key
from oanim.cli.showing import Answer
from oanim.keys import new_key
from oanim_remotion import bundle
from openanimate.metering.v1.render_service_pb2 import RenderCodec, RenderSpec
from openanimate.metering.v1.reservation_pb2 import SpendScope

if TYPE_CHECKING:
    from pathlib import Path

    from oanim.cli.progress import Progress
    from oanim.cli.rendering.asked import Asked
    from oanim.cli.rendering.preparing import Prepared
    from oanim.client import Client
    from oanim_remotion.driver import Video
    from openanimate.metering.v1.pricing_service_pb2 import QuoteResponse
    from openanimate.metering.v1.render_service_pb2 import SubmitRenderResponse

# The name under which the price is published.
_MODEL = "oanim/cloud-render"
# What the contract allows a bundle and a composition's props.
_MAX_BUNDLE_BYTES = 200_000_000
_MAX_PROPS_BYTES = 65_536
_ASKED_ABOVE_MICROS = MICROS_PER_USD


@dataclass(frozen=True, slots=True)
class Order:
    """How the command is to be paid: `key` None is a key of its own."""

    only_quote: bool
    asks: bool
    key: str | None


def render(asked: Asked, named_browser: str | None, order: Order) -> Answer:
    """Quote, ask above $1, submit, wait and download."""
    present = session.current()
    with opened(credentials.api_key()) as client, ExitStack() as kept:
        with progress.shown() as shown:
            ready = kept.enter_context(prepared(asked, named_browser, shown))
        spec = _spec(ready.video, asked.props_json)
        quote = client.quote(model=_MODEL, quantity=_kilopixel_seconds(spec))
        if order.only_quote:
            return _shown(quote, ready.video)
        if order.asks and sys.stdin.isatty():
            _ask(quote, ready.video)
        with progress.shown() as shown:
            submitted = _Submission(client, order, present).submit(spec, quote, ready, shown)
            target = ready.target.path
            ended = followed(client, submitted.render, target, shown)
            return delivered(client, ended, target, shown, more={"replayed": submitted.replayed})


class _Submission:
    """One attempt at having a render taken."""

    def __init__(self, client: Client, order: Order, present: session.Session) -> None:
        self._client = client
        self._key = order.key or new_key()
        self._key_is_given = order.key is not None
        name = attempts.name_of(self._key, api_key=credentials.api_key(), api_url=credentials.api_url())
        known = attempts.known(name)
        self._is_new = known is None
        self._attempt = known or Attempt(name, present)

    def submit(
        self, spec: RenderSpec, quote: QuoteResponse, ready: Prepared, shown: Progress
    ) -> SubmitRenderResponse:
        """Send the bundle, unless what it costs is known not to be there."""
        # What was done under a key of the caller's own may be held already: the service knows.
        if self._is_new and not self._key_is_given:
            available_micros = self._client.get_wallet().wallet.available_micros
            if quote.amount_micros > available_micros:
                raise insufficient_credits(
                    required_micros=quote.amount_micros, available_micros=available_micros
                )
        shown.now("packing the bundle")
        packed = ready.bundle.with_suffix(".tar.gz")
        _pack(ready, packed)
        if self._is_new:
            # Not before: what is never sent must not bind its key to this session and its limit.
            attempts.remember(self._attempt)
        shown.now(f"uploading the bundle, {in_units(packed.stat().st_size)}")
        scope = SpendScope(scope=self._attempt.session.scope, limit_micros=self._attempt.session.limit_micros)
        ended = attempts.ended(self._attempt, is_new=self._is_new, key_is_given=self._key_is_given)
        with ended, attempts.refused_again(key_is_given=self._key_is_given), note_key(self._key):
            submitted = self._client.submit_render(
                bundle=packed, spec=spec, idempotency_key=self._key, spend_scopes=[scope]
            )
        held = f"{dollars(submitted.render.quoted_micros)} held"
        shown.note(f"accepted as {submitted.render.render_id}, {held}")
        return submitted


def _pack(ready: Prepared, packed: Path) -> None:
    try:
        size_bytes = bundle.pack(ready.bundle, packed).size_bytes
    except bundle.BundleRefused as refused:
        raise Failure(f"the project cannot be sent: {refused}.") from refused
    if size_bytes > _MAX_BUNDLE_BYTES:
        raise Failure(
            f"the project's bundle has {in_units(size_bytes)}, and {in_units(_MAX_BUNDLE_BYTES)} is the most "
            "that can be sent. What is in public/ is most of it, as a rule."
        )


def _spec(video: Video, props_json: str) -> RenderSpec:
    if not isinstance(video.fps, int):
        raise Failure(f"the cloud takes whole frames a second, not {video.fps:g}. Say how many: --fps", USAGE)
    if len(props_json.encode()) > _MAX_PROPS_BYTES:
        raise Failure("--props: they are longer than the 64 KB that can be sent.", USAGE)
    return RenderSpec(
        composition=video.composition.id,
        width=video.size.width,
        height=video.size.height,
        fps=video.fps,
        frames=video.frames,
        codec=RenderCodec.Value(f"RENDER_CODEC_{video.codec.upper()}"),
        props_json=props_json,
    )


def _kilopixel_seconds(spec: RenderSpec) -> int:
    """Say how much of the published unit a render is, rounded up once."""
    return -(-spec.frames * spec.width * spec.height // (spec.fps * 1_000))


def _shown(quote: QuoteResponse, video: Video) -> Answer:
    return Answer(
        data={
            **plain(quote),
            "composition": video.composition.id,
            "width": video.size.width,
            "height": video.size.height,
            "fps": video.fps,
            "frames": video.frames,
        },
        lines=[f"{dollars(quote.amount_micros)} for {_described(video)}"],
    )


def _ask(quote: QuoteResponse, video: Video) -> None:
    """Ask whoever sits at the terminal before more than a dollar is spent."""
    if quote.amount_micros <= _ASKED_ABOVE_MICROS:
        return
    question = f"This costs {dollars(quote.amount_micros)} for {_described(video)}. Go on?"
    if not click.confirm(question, err=True):
        raise Failure("nothing was rendered, and nothing was spent.")


def _described(video: Video) -> str:
    return f"{video.frames / video.fps:g} s of {video.composition.id} at {video.size}"
