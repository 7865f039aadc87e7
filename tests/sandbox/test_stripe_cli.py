"""Stripe's own command line drives the sandbox: what its fixtures ask for is what Stripe answers.

Its program comes from npm, once a run, and is then run without a network in mind: it may ask for a newer
version, and must do without an answer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.sandbox.test_stripe_checkout import types

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import stripe

    from oanim_server.sandbox import StripeSandbox

PACKAGE = "@stripe/cli@1.52.0"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed: apt-get install npm")
    folder = tmp_path_factory.mktemp("stripe-cli")
    options = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run([npm, "install", *options, PACKAGE], cwd=folder, check=True, timeout=100)
    return folder / "node_modules" / ".bin" / "stripe"


@pytest.fixture
def trigger(program: Path, sandbox: StripeSandbox, tmp_path: Path) -> Callable[[str], None]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "STRIPE_CLI_TELEMETRY_OPTOUT": "1"}
    options = ["--api-base", sandbox.url, "--api-key", "sk_test_sandbox", "--color", "off"]

    def run(name: str) -> None:
        done = subprocess.run(
            [program, "trigger", name, *options],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return run


@pytest.mark.parametrize(
    "name",
    [
        "charge.captured",
        "charge.dispute.closed",
        "charge.dispute.created",
        "charge.dispute.updated",
        "charge.failed",
        "charge.refund.updated",
        "charge.refunded",
        "charge.succeeded",
        "checkout.session.async_payment_failed",
        "checkout.session.async_payment_succeeded",
        "checkout.session.completed",
        "checkout.session.expired",
        "customer.created",
        "customer.deleted",
        "customer.updated",
        "payment_intent.amount_capturable_updated",
        "payment_intent.canceled",
        "payment_intent.created",
        "payment_intent.payment_failed",
        "payment_intent.processing",
        "payment_intent.requires_action",
        "payment_intent.succeeded",
        "payment_method.attached",
        "payment_method.detached",
        "payment_method.updated",
        "price.created",
        "price.updated",
        "product.created",
        "product.deleted",
        "product.updated",
        "setup_intent.canceled",
        "setup_intent.created",
        "setup_intent.requires_action",
        "setup_intent.setup_failed",
        "setup_intent.succeeded",
    ],
)
def test_a_fixture_of_stripe_s_own_ends_in_its_event(
    trigger: Callable[[str], None], client: stripe.StripeClient, name: str
) -> None:
    trigger(name)
    while name not in types(client):
        pass
