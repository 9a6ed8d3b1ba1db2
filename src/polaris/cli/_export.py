"""`polaris export`: what others need: the bus described, stored data, and files for the tools of operators."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import click

from polaris.cli import _exit, _export_operation
from polaris.cli._commands import Argument, Commands, Option
from polaris.cli._deliver import Output, deliver
from polaris.cli._options import Config, DataDir, Json, settings_of
from polaris.exceptions import InvalidValueError

export_app = Commands(
    "export",
    about="The bus described, stored data, and files for operators.",
)

Modules = Annotated[
    list[str],
    Option("--module", "-m", about="Import this module first: it registers event types of its own."),
]


@export_app.add(short_help="The AsyncAPI 3.0 document of the bus.")
def asyncapi(
    output: Output = None,
    module: Modules = [],  # noqa: B006 - a new list is made for each call
    config: Config = None,
) -> None:
    """The AsyncAPI 3.0 document of the bus: topics, streams and events, as JSON. Needs no running node."""
    from polaris.messaging import asyncapi_document

    servers = settings_of(config, None).nats.servers
    import_modules(module)
    names = ["nats"] if len(servers) == 1 else [f"nats-{number}" for number in range(1, len(servers) + 1)]
    deliver(asyncapi_document(servers=dict(zip(names, servers, strict=True))), output)
    raise SystemExit(_exit.OK)


@export_app.add(short_help="The JSON Schemas of the events.")
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


TELEMETRY_EXAMPLES = """\b
Examples:
  polaris export telemetry all.parquet
  polaris export telemetry web.csv --system web --last 7d
  polaris export telemetry load.jsonl --metric load --start 2026-01-31T12:00:00Z
"""
DOCUMENTS_EXAMPLES = """\b
Examples:
  polaris export documents adaptation_actions actions.jsonl
  polaris export documents adaptation_actions web.jsonl --query '{"target_system": "web"}'
"""
Target = Annotated[Path, Argument(metavar="FILE", about="The file to write.", show_default=False)]
Force = Annotated[bool, Option("--force", "-f", about="Replace a file that exists.")]
Text = str | None


@export_app.add(short_help="Telemetry as Parquet, CSV, Arrow or JSON lines.", epilog=TELEMETRY_EXAMPLES)
def telemetry(
    output: Target,
    system: Annotated[
        list[str], Option("--system", "-s", about="Of this managed system; may be repeated.", show_default=False)
    ] = [],  # noqa: B006
    metric: Annotated[
        list[str], Option("--metric", "-m", about="Only this metric; may be repeated.", show_default=False)
    ] = [],  # noqa: B006
    last: Annotated[
        Text, Option("--last", about="How far back: 90s, 15m, 7d ...; all, unless given.", show_default=False)
    ] = None,
    start: Annotated[Text, Option("--start", about="From this time on (RFC 3339).", show_default=False)] = None,
    end: Annotated[Text, Option("--end", about="Before this time (RFC 3339).", show_default=False)] = None,
    kind: Annotated[
        Text,
        Option("--format", about="parquet, csv, arrow or jsonl; else by the file's ending.", show_default=False),
    ] = None,
    collection: Annotated[str, Option("--collection", about="Another collection of points.")] = "system_states",
    force: Force = False,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Telemetry as a file, a column for each tag and metric, whether the node runs or not. Complete or not there."""
    from polaris.cli._durations import parse_duration, parse_instant
    from polaris.cli._export_data import Wanted, export_telemetry, format_of

    if last and start:
        raise click.BadParameter("cannot be given together with --last", param_hint="--start")
    since = datetime.now(UTC) - parse_duration(last, "--last") if last else None
    wanted = Wanted(
        collection=collection,
        systems=system,
        metrics=metric,
        start=parse_instant(start, "--start") if start else since,
        end=parse_instant(end, "--end") if end else None,
    )
    chosen = format_of(output, kind)
    settings = settings_of(config, data_dir)
    raise SystemExit(export_telemetry(settings, wanted, output, chosen, force=force, as_json=as_json))


@export_app.add(short_help="A collection of documents as JSON lines.", epilog=DOCUMENTS_EXAMPLES)
def documents(
    collection: Annotated[str, Argument(metavar="COLLECTION", about="As `polaris store stats` lists them.")],
    output: Target,
    query: Annotated[Text, Option("--query", "-q", about="Only what matches, as JSON.", show_default=False)] = None,
    force: Force = False,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """A collection of documents as JSON lines, whether the node runs or not. Complete or not there."""
    from polaris.cli._export_data import export_collection

    wanted = None if query is None else _parsed(query)
    settings = settings_of(config, data_dir)
    raise SystemExit(export_collection(settings, collection, output, query=wanted, force=force, as_json=as_json))


def _parsed(query: str) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(query, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise click.BadParameter(f"is no JSON object: {error}", param_hint="--query") from error


def import_modules(names: list[str]) -> None:
    """Import what registers event types. Raises `InvalidValueError` naming the module that cannot be imported."""
    from importlib import import_module

    for name in names:
        try:
            import_module(name)
        except (ImportError, ValueError, TypeError) as error:
            raise InvalidValueError("--module", f"a module that can be imported ({error})", name) from error


_export_operation.add_to(export_app)
