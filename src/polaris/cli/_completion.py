"""`polaris completion`: the script that makes a shell complete commands, options and the ids of systems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from polaris.exceptions import PolarisException

if TYPE_CHECKING:
    from polaris.runtime import Settings

VARIABLE = "_POLARIS_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


def script(shell: str) -> str:
    """The script for one of `SHELLS`."""
    from typer._completion_shared import get_completion_script

    return get_completion_script(prog_name="polaris", complete_var=VARIABLE, shell=shell)


def make_ready() -> None:
    """Let typer answer the shells of `SHELLS`."""
    from typer._completion_classes import completion_init

    completion_init()


def system_ids(begun: str) -> Sequence[str]:
    """The configured systems whose id begins so; nothing when the configuration cannot be read. Asks no store."""
    from polaris.runtime import load_settings

    try:
        settings: Settings = load_settings()
    except PolarisException:
        return ()
    return sorted(system_id for system_id in settings.systems if system_id.startswith(begun))
