"""`polaris completion`: the script that makes a shell complete commands, options and the ids of systems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from polaris.exceptions import InvalidValueError, PolarisException

if TYPE_CHECKING:
    from polaris.runtime import Settings

SHELLS = ("bash", "zsh", "fish")


def script(shell: str) -> str:
    """The script for one of `SHELLS`."""
    from click.shell_completion import get_completion_class

    from polaris.cli._app import COMPLETION_VARIABLE, app

    made = get_completion_class(shell)
    if made is None:
        raise InvalidValueError("SHELL", f"one of {', '.join(SHELLS)}", shell)
    return made(app, {}, "polaris", COMPLETION_VARIABLE).source()


def system_ids(begun: str) -> Sequence[str]:
    """The configured systems whose id begins so; nothing when the configuration cannot be read. Asks no store."""
    from polaris.runtime import load_settings

    try:
        settings: Settings = load_settings()
    except PolarisException:
        return ()
    return sorted(system_id for system_id in settings.systems if system_id.startswith(begun))
