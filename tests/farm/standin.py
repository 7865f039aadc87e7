"""Stands in for Remotion's program: really writes a video, frame by frame, and misbehaves as it is ordered.

It is found where Remotion would be, is run as Remotion is, and says what Remotion says. What it is to do is
in the bundle's orders.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

ENCODERS = {
    "h264": "libx264",
    "h265": "libx265",
    "vp8": "libvpx",
    "vp9": "libvpx-vp9",
    "prores": "prores_ks",
    "gif": "gif",
}


def main() -> None:
    """Do what the arguments and the orders say."""
    command, bundle, *rest = sys.argv[1:]
    orders = json.loads((Path(bundle) / "orders.json").read_bytes())
    if orders.get("tell"):
        told = {"environment": dict(os.environ), "arguments": sys.argv[1:], "folder": str(Path.cwd())}
        Path(orders["tell"]).write_text(json.dumps(told))
    if command == "compositions":
        size = f"{orders.get('width', 64)}x{orders.get('height', 64)}"
        _say(f"Main    30      {size}      {orders.get('length', 30)} (1.00 sec)")
        return
    options = dict(argument.removeprefix("--").split("=", 1) for argument in rest if "=" in argument)
    _render(Path(rest[1]), options, orders)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _render(out: Path, options: dict[str, str], orders: dict[str, Any]) -> None:
    scale = float(options["scale"])
    width, height = int(int(options["width"]) * scale), int(int(options["height"]) * scale)
    frames = int(options["duration"])
    with av.open(str(out), "w") as container:
        stream: Any = container.add_stream(ENCODERS[options["codec"]], Fraction(options["fps"]))
        stream.width, stream.height = width, height
        stream.pix_fmt = {"prores": "yuv422p10le", "gif": "rgb8"}.get(options["codec"], "yuv420p")
        for number in range(frames - orders.get("missing", 0)):
            if number == orders.get("at") and not _is_over(orders):
                _misbehave(orders, out)
            frame = av.VideoFrame(width, height, "rgb24")
            for plane in frame.planes:
                plane.update(bytes([number * 8 % 256]) * plane.buffer_size)
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
            _say(f"Rendered {number + 1}/{frames}, time remaining: 1s")
            time.sleep(orders.get("pace", 0.0))
        container.mux(stream.encode())
    if orders.get("then") == "garble":
        out.write_bytes(b"no video" * 100)


def _is_over(orders: dict[str, Any]) -> bool:
    """Whether it was to misbehave once, and has."""
    if "once" not in orders:
        return False
    try:
        Path(orders["once"]).touch(exist_ok=False)
    except FileExistsError:
        return True
    return False


def _misbehave(orders: dict[str, Any], out: Path) -> None:
    how = orders["then"]
    if how == "fail":
        _say("Error: the animation divides by zero")
        sys.exit(1)
    if how == "vanish":
        out.unlink(missing_ok=True)
        os._exit(0)
    if how == "hang":
        # With a child that left the group, as a browser does, and that would outlive us.
        subprocess.Popen(["sleep", orders["sleep"]], start_new_session=True)
        time.sleep(1_000)
    if how == "hog":
        hog = [os.urandom(1 << 20) for _ in range(700)]
        time.sleep(1_000)
        _say(f"{len(hog)}")


if __name__ == "__main__":
    main()
