"""The command line: `polaris run | check | status | systems | query | tail | publish | act`, and the groups
`dlq | graph | export | store`."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """The entry point of the console script; never returns, exits with a documented code."""
    from polaris.cli._app import run_app

    run_app()
