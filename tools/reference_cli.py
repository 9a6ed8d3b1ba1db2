"""Writes `docs/reference/cli.md`: every command with its options, as `--help` says it. `--check` compares only."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polaris.cli._app import app

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "cli.md"
HEAD = """\
# The command line

Generated from the commands themselves. The how-to is [Use the command line](../how-to/command-line.md).

"""


def page() -> str:
    """The whole page."""
    root = app
    context = root.make_context("polaris", [], resilient_parsing=True, help_option_names=["-h", "--help"])
    return HEAD + "\n".join(_command(context, root, "polaris", 2))


def _command(context: Any, command: Any, name: str, level: int) -> Iterator[str]:
    yield f"{'#' * level} {name}\n"
    context.terminal_width, context.max_content_width = 100, 100
    text = re.sub(r"[ \t]+$", "", command.get_help(context), flags=re.MULTILINE).strip()
    yield f"```text\n{text}\n```\n"
    for inner in getattr(command, "commands", {}):
        below = command.get_command(context, inner)
        inside = below.context_class(below, info_name=inner, parent=context)
        yield from _command(inside, below, f"{name} {inner}", level + 1)


def main() -> int:
    text = page()
    if "--check" in sys.argv:
        return 0 if PAGE.read_text(encoding="utf-8") == text else 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
