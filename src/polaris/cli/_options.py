"""The options that commands share, and the settings that they lead to."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

from polaris.cli._commands import Argument, Option
from polaris.exceptions import ConfigurationError

Config = Annotated[
    Path | None,
    Option("--config", "-c", about="The configuration file; ./polaris.toml when there is one.", show_default=False),
]
DataDir = Annotated[
    Path | None,
    Option("--data-dir", "-d", about="The node's data folder.", show_default=False),
]
Json = Annotated[bool, Option("--json", about="Print JSON for programs.")]


def _systems(incomplete: str) -> list[str]:
    from polaris.cli._completion import system_ids

    return list(system_ids(incomplete))


System = Annotated[str, Argument(metavar="SYSTEM", about="The managed system.", show_default=False, complete=_systems)]


def settings_of(
    config: Path | None,
    data_dir: Path | None,
    *,
    check_connectors: bool = False,
    located: bool = True,
    **overrides: Any,
) -> Any:
    """The effective settings with the flags on top. Mistakes are told with their lines, unless `located` is False."""
    return configuration_of(config, data_dir, check_connectors=check_connectors, located=located, **overrides).settings


def configuration_of(
    config: Path | None,
    data_dir: Path | None,
    *,
    check_connectors: bool = False,
    located: bool = True,
    **overrides: Any,
) -> Any:
    """The same, with what came whence."""
    from polaris.runtime._configuration import read_configuration

    flags = {key: value for key, value in overrides.items() if value is not None}
    if data_dir is not None:
        flags["node.data_dir"] = str(data_dir)
    _find_modules_beside(config_file(config))
    dotted = {key.replace("__", "."): value for key, value in flags.items()}
    try:
        return read_configuration(config, overrides=dotted, check_connectors=check_connectors)
    except ConfigurationError as error:
        if not located:
            raise
        from polaris.cli._whereabouts import mistakes

        told = mistakes(error.problems or (error.message,), config_file(config))
        raise ConfigurationError(problems=[mistake.message for mistake in told], cause=error) from error


def config_file(config: Path | None) -> Path | None:
    """The configuration file that `settings_of` reads; None when there is none."""
    from polaris.runtime._configuration import CONFIG_FILE_DEFAULT

    named = config or (Path(os.environ["POLARIS_CONFIG"]) if os.environ.get("POLARIS_CONFIG") else None)
    return named or (Path(CONFIG_FILE_DEFAULT) if Path(CONFIG_FILE_DEFAULT).is_file() else None)


def _find_modules_beside(file: Path | None) -> None:
    """Let a connector that is a module beside the configuration file be imported; what is installed comes first."""
    if file is not None and file.is_file():
        folder = str(file.absolute().parent)
        if folder not in sys.path:
            sys.path.append(folder)
