"""The command line: `polaris`, with a command for each thing that people do with a node."""

from __future__ import annotations

import sys

__all__ = ["main", "version_text"]


def version_text() -> str:
    """What `polaris --version` says."""
    from polaris import __version__

    return f"polaris {__version__}"


def main() -> None:
    """The entry point of the console script; never returns, exits with a documented code."""
    # Before anything is imported that an older one cannot read.
    if sys.version_info < (3, 11):  # noqa: UP036 - an old one gets here by a checkout on its path
        raise SystemExit("polaris: Python 3.11 or newer is needed; install it and POLARIS into it")
    if sys.argv[1:] == ["--version"]:  # asked by scripts, often: nothing needs loading for it
        print(version_text())
        raise SystemExit
    from polaris.cli._app import run_app

    run_app()
