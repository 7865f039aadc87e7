"""`python -m oanim_server.sandbox [--port N]`: print the sandbox's url and serve until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import logging
import signal
import sys

from oanim_server.sandbox import FalSandbox


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m oanim_server.sandbox", description=main.__doc__)
    parser.add_argument(
        "--port", type=int, default=0, help="the port on loopback; 0, the default: a free one"
    )
    parser.add_argument("--pace", type=float, default=0.0, help="seconds a job queues, and runs at least")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    # Blocked before any thread starts, so that only the wait below gets them.
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    with FalSandbox(port=options.port, pace_s=options.pace) as sandbox:
        sys.stdout.write(f"{sandbox.url}\n")
        sys.stdout.flush()
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
