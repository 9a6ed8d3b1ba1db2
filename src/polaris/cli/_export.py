"""`polaris export`: what others need to take part: the AsyncAPI document of the bus, the JSON Schemas of the events."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from polaris.cli import _exit
from polaris.cli._options import Config, settings_of
from polaris.exceptions import InvalidValueError

export_app = typer.Typer(
    help="Documents for those who take part in any language.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Output = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads the annotation
    typer.Option("--output", "-o", help="Write to this file instead of standard output.", show_default=False),
]
Modules = Annotated[
    list[str],
    typer.Option(
        "--module", "-m", help="Import this module first: it registers event types of its own.", show_default=False
    ),
]


@export_app.command(short_help="The AsyncAPI 3.0 document of the bus.")
def asyncapi(
    output: Output = None,
    module: Modules = [],  # noqa: B006 - typer reads the default and makes a new list a call
    config: Config = None,
) -> None:
    """The AsyncAPI 3.0 document of the bus: topics, streams and events, as JSON. Needs no running node."""
    from polaris.messaging import asyncapi_document

    servers = settings_of(config, None).nats.servers
    import_modules(module)
    names = ["nats"] if len(servers) == 1 else [f"nats-{number}" for number in range(1, len(servers) + 1)]
    deliver(asyncapi_document(servers=dict(zip(names, servers, strict=True))), output)
    raise SystemExit(_exit.OK)


@export_app.command(short_help="The JSON Schemas of the events.")
def schemas(
    output: Output = None,
    module: Modules = [],  # noqa: B006
) -> None:
    """The JSON Schemas (2020-12) of all events, as one JSON object by `$id`. Needs no running node."""
    # The bus has event types of its own.
    import polaris.messaging  # noqa: F401
    from polaris.domain import event_schemas

    import_modules(module)
    deliver(event_schemas(), output)
    raise SystemExit(_exit.OK)


def import_modules(names: list[str]) -> None:
    """Import what registers event types. Raises `InvalidValueError` naming the module that cannot be imported."""
    from importlib import import_module

    for name in names:
        try:
            import_module(name)
        except (ImportError, ValueError, TypeError) as error:
            raise InvalidValueError("--module", f"a module that can be imported ({error})", name) from error


def deliver(document: dict[str, Any], output: Path | None) -> None:
    """Print the document, or write it to the file. Raises `InvalidValueError` when the file cannot be written."""
    import msgspec

    from polaris.cli._output import print_json

    if output is None:
        print_json(document)
        return
    text = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
    try:
        output.write_bytes(text)
    except OSError as error:
        raise InvalidValueError("--output", f"a file that can be written ({error.strerror})", str(output)) from error
