"""The server of Open Animate: prepaid credits, held before work starts and charged by what it used."""

from __future__ import annotations
