"""Finds a browser to render with: the one that is named, else one of Chromium's kind on this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from oanim_remotion.errors import NoBrowser

BROWSER_VARIABLE = "ANIMATE_BROWSER"

_PROGRAMS = (
    "chromium",
    "chromium-browser",
    "chrome-headless-shell",
    "google-chrome-stable",
    "google-chrome",
    "chrome",
    "microsoft-edge-stable",
    "microsoft-edge",
)
_APPLICATIONS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)


def find(named: str | None = None) -> Path:
    """Find a browser: what is `named`, else what ANIMATE_BROWSER names, else the system's.

    Raises NoBrowser, also when what is named is no program: another one would not be what was asked for.
    """
    for name, source in ((named, "--browser"), (os.environ.get(BROWSER_VARIABLE), BROWSER_VARIABLE)):
        if name and name.strip():
            return _named(name.strip(), source)
    for name in (*_PROGRAMS, *_APPLICATIONS):
        found = shutil.which(name)
        if found:
            return Path(found).absolute()
    raise NoBrowser(
        "there is no browser to render with. Install one (apt install chromium), or name one "
        f"with --browser or {BROWSER_VARIABLE}"
    )


def flags(browser: Path) -> list[str]:
    """Say to Remotion which browser it is to use, and how that one is started."""
    # A whole browser has one way to run without a window; the old one is left to the headless shell.
    mode = "headless-shell" if "headless" in browser.name else "chrome-for-testing"
    return [f"--browser-executable={browser}", f"--chrome-mode={mode}"]


def _named(name: str, source: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise NoBrowser(f"{source} names {name}, which is no program here")
    return Path(found).absolute()
