"""Where documents go that a command makes: to standard output, or into a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import click

from polaris.cli._commands import Option
from polaris.exceptions import InvalidValueError

Output = Annotated[
    Path | None,
    Option("--output", "-o", about="Write to this file instead of standard output.", show_default=False),
]


def deliver(document: dict[str, Any], output: Path | None) -> None:
    """Print the document, or write it to the file. Raises `InvalidValueError` when the file cannot be written."""
    import msgspec

    deliver_text(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n", output)


def deliver_text(text: str, output: Path | None) -> None:
    """As `deliver`, for text that ends with a line break."""
    if output is None:
        print(text, end="")
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidValueError("--output", f"a file that can be written ({error.strerror})", str(output)) from error


def refuse_existing(output: Path, *, force: bool) -> None:
    """Before any work is done. Raises `click.UsageError`."""
    if not force and os.path.lexists(output):
        raise click.UsageError(f"{output} exists already; --force replaces it")
