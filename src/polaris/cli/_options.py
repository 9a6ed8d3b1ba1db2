"""The options that commands share, and the settings that they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

Config = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads the annotation
    typer.Option(
        "--config", "-c", help="The configuration file; ./polaris.toml when there is one.", show_default=False
    ),
]
DataDir = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--data-dir", "-d", help="The node's data folder.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def settings_of(config: Path | None, data_dir: Path | None, *, check_connectors: bool = False, **overrides: Any) -> Any:
    """The effective settings with the flags on top."""
    from polaris.runtime import load_settings

    flags = {key: value for key, value in overrides.items() if value is not None}
    if data_dir is not None:
        flags["node.data_dir"] = str(data_dir)
    dotted = {key.replace("__", "."): value for key, value in flags.items()}
    return load_settings(config, overrides=dotted, check_connectors=check_connectors)
