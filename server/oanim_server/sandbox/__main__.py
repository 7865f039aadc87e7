"""`python -m oanim_server.sandbox`: serve both sandboxes until SIGTERM or Ctrl-C, and print their urls."""

from __future__ import annotations

import argparse
import logging
import signal
import sys

from oanim_server.sandbox import FalSandbox, StripeSandbox


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m oanim_server.sandbox",
        description="Stand in for fal.ai and for Stripe on loopback, and print their urls, fal.ai's first.",
    )
    free = "a port on loopback; 0, the default: a free one"
    parser.add_argument("--port", type=int, default=0, help=f"of fal.ai: {free}")
    parser.add_argument("--pace", type=float, default=0.0, help="seconds a job queues, and runs at least")
    parser.add_argument("--stripe-port", type=int, default=0, help=f"of Stripe: {free}")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    # Blocked before any thread starts, so that only the wait below gets them.
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    with (
        FalSandbox(port=options.port, pace_s=options.pace) as fal,
        StripeSandbox(port=options.stripe_port) as stripe,
    ):
        sys.stdout.write(f"{fal.url}\n{stripe.url}\n")
        sys.stdout.flush()
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
