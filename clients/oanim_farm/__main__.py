"""The program `oanim-farm`. What goes wrong is one sentence on stderr; the key is in no line of it.

Exit codes: 0 ended as it was told, 1 failed, 2 a setting, 4 the service will not have the key.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import click

from oanim import Client, KeyInvalid, WrongRole
from oanim_farm.heart import TIMES
from oanim_farm.settings import BadSettingError, Settings
from oanim_farm.slots import taken
from oanim_remotion import browser
from oanim_remotion.errors import RemotionError
from oanim_remotion.installation import installation

if TYPE_CHECKING:
    from oanim_farm.heart import Times

log = logging.getLogger(__name__)

_PR_SET_DUMPABLE = 4


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="oanim", prog_name="oanim-farm")
def main() -> None:
    """Render for the service until SIGTERM. Settings are read from OANIM_FARM_* variables."""
    code = 0
    try:
        work(Settings.from_environment(os.environ))
    except BadSettingError as error:
        code = _sentence(f"{error}", 2)
    except (KeyInvalid, WrongRole) as error:
        code = _sentence(error.message, 4)
    except ModuleNotFoundError as error:
        code = _sentence(f"this needs {error.name}, which is not installed: pip install 'oanim[farm]'", 1)
    except (RemotionError, ValueError, OSError) as error:
        code = _sentence(f"{error}", 1)
    # A thread that waits for an answer which never comes must not keep the process.
    sys.stderr.flush()
    os._exit(code)


def work(settings: Settings, times: Times = TIMES) -> None:
    """Work until a signal.

    :raises ModuleNotFoundError: without the packages of the extra `farm`.
    :raises RemotionError: without a Remotion, or a browser.
    :raises OanimError: when the service will not have the key.
    """
    from oanim_farm.job import Tools
    from oanim_farm.worker import Worker

    _log()
    _hide_memory()
    connect = partial(Client, os.environ.pop("ANIMATE_API_KEY", ""))
    with taken(settings.folder, settings.slots) as slots:
        tools = Tools(
            installation(settings.folder / "remotion"), browser.find(settings.browser), settings.memory_bytes
        )
        worker = Worker(connect, tools, drain_seconds=settings.drain_seconds, times=times)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
        log.info("ready: %d at a time, in %s", len(slots), settings.folder)
        worker.run(slots)
        log.info("ended")


def _log() -> None:
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%SZ"
    )


def _hide_memory() -> None:
    """Keep the key from what else runs as this user: our memory and environment are for root alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _sentence(sentence: str, code: int) -> int:
    click.echo(f"oanim-farm: {sentence}", err=True)
    return code


if __name__ == "__main__":
    main()
