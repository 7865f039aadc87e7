"""A Remotion that bundles and lists, and takes no time for it: neither Node.js nor a browser is needed.

It is run as Remotion is, by a program called node, and says what Remotion says.
"""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.running import Cli

_REMOTION = """
case "$1" in
bundle)
    for word in "$@"; do case "$word" in --out-dir=*) target="${word#--out-dir=}";; esac; done
    /bin/mkdir "$target" && /bin/cp -R bundled/. "$target" && echo "Bundling 100%" ;;
compositions)
    /bin/cat compositions.txt ;;
*)
    echo "Error: nothing is rendered here" >&2; exit 1 ;;
esac
"""


def project(cli: Cli, *, seconds: int = 1, width: int = 320, height: int = 180, fps: int = 30) -> None:
    """Make the user's folder a project with one composition, whose packages are installed."""
    programs = cli.home / "programs"
    programs.mkdir()
    for name, script in (("node", 'exec /bin/sh "$@"'), ("browser", "exit 1")):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(stat.S_IRWXU)
    cli.variables |= {"PATH": str(programs), "ANIMATE_BROWSER": "browser"}
    package = cli.folder / "node_modules" / "@remotion" / "cli"
    package.mkdir(parents=True)
    described = {"version": "4.0.527", "bin": {"remotion": "remotion-cli.js"}}
    (package / "package.json").write_text(json.dumps(described))
    (package / "remotion-cli.js").write_text(_REMOTION)
    (cli.folder / "bundled").mkdir()
    (cli.folder / "bundled" / "index.html").write_text("<html></html>")
    frames = seconds * fps
    (cli.folder / "compositions.txt").write_text(
        f"Main    {fps}      {width}x{height}       {frames} ({seconds}.00 sec)\n"
    )
