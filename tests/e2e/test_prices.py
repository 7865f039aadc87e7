"""Every price of the published table is what a default operation is charged, to the micro-dollar."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from oanim import Client
from oanim_models.catalogue import load
from openanimate.metering.v1.generate_service_pb2 import GenerateResponse

if TYPE_CHECKING:
    from tests.e2e.conftest import Dev

pytestmark = pytest.mark.e2e

# The table as it is published, in micro-USD.
PUBLISHED = {
    "fal-ai/flux/schnell": 3_000,
    "fal-ai/flux-2-flex": 50_000,
    "fal-ai/recraft/v4/text-to-image": 40_000,
    "fal-ai/recraft/v4/pro/text-to-image": 60_000,
    "fal-ai/ideogram/v3": 60_000,
    "fal-ai/nano-banana-2": 80_000,
    "fal-ai/flux-pro/kontext": 40_000,
    "fal-ai/nano-banana-2/edit": 80_000,
    "fal-ai/reve/edit": 40_000,
    "fal-ai/birefnet": 5_000,
    "fal-ai/bria/background/remove": 18_000,
    "fal-ai/bria/upscale/creative": 30_000,
    "fal-ai/topaz/upscale/image": 80_000,
    "fal-ai/minimax/hailuo-02/standard/text-to-video": 270_000,
    "fal-ai/kling-video/v2.5-turbo/pro/text-to-video": 350_000,
    "fal-ai/kling-video/v3/pro/text-to-video": 1_120_000,
    "fal-ai/veo3.1": 1_000_000,
    "fal-ai/sora-2/text-to-video/pro": 1_500_000,
    "beatoven/music-generation": 50_000,
    "beatoven/sound-effect-generation": 50_000,
    "minimax/speech-02-hd": 50_000,
    "fal-ai/flux/dev/controlnet": 30_000,
    "fal-ai/flux/dev/ip-adapter": 30_000,
    "fal-ai/lora": 20_000,
    "somebody/made-this-yesterday": 50_000,
}
PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    "rkJggg=="
)
INPUT = {"prompt": "a red kite", "text": "a red kite", "image_url": PICTURE, "image_urls": [PICTURE]}


def test_the_table_names_every_model_that_is_priced() -> None:
    listed = {price.model for price in load().prices if price.provider == "fal"}
    assert listed == set(PUBLISHED) - {"somebody/made-this-yesterday"}


@pytest.mark.parametrize("model", PUBLISHED)
def test_a_default_operation_is_charged_what_is_published(dev: Dev, model: str) -> None:
    with Client(api_key="", url=dev.url) as nobody:
        key = nobody.sign_up(email=f"{model.replace('/', '.')}@example.com").secret
    with Client(api_key=key, url=dev.url) as client:
        *_, last = client.generate(model=model, input_json=json.dumps(INPUT))
        wallet = client.get_wallet().wallet
    assert isinstance(last, GenerateResponse)
    assert last.WhichOneof("event") == "succeeded", last
    assert last.succeeded.generation.charged_micros == PUBLISHED[model]
    assert (wallet.balance_micros, wallet.held_micros) == (5_000_000 - PUBLISHED[model], 0)
