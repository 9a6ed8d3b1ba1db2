"""The commands of `polaris dlq` and their options."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from polaris.cli._options import Config, DataDir, Json, settings_of

LIST_EXAMPLES = """\b
Examples (quote the wildcards: * is one part of a topic, > all that follow):
  polaris dlq list
  polaris dlq list --topic 'polaris.telemetry.*' --reason undecodable --since 1h
  polaris dlq list --oldest-first --limit 20 --json
"""
SHOW_EXAMPLES = """\b
Examples:
  polaris dlq show 17
  polaris dlq show 17 --raw | xxd | less
"""
REPLAY_EXAMPLES = """\b
Examples:
  polaris dlq replay 17 18
  polaris dlq replay --topic 'polaris.telemetry.*' --since 2h
  polaris dlq replay --all --yes
"""

dlq_app = typer.Typer(
    help="Messages put aside as undeliverable: list, show, replay, drop.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Topic = Annotated[
    Optional[str],  # noqa: UP045 - typer reads the annotation
    typer.Option("--topic", help="Of this topic or pattern.", metavar="PATTERN", show_default=False),
]
Subscriber = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--subscription", help="That this subscription could not handle.", show_default=False),
]
Reason = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--reason",
        help="undecodable, unknown_type, refused, exhausted, abandoned or given_up.",
        show_default=False,
    ),
]
Since = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--since", help="Put aside in the last 15m, 1h, 7d ..., or since an RFC 3339 time.", show_default=False
    ),
]
Sequences = Annotated[
    Optional[list[int]],  # noqa: UP045
    typer.Argument(metavar="SEQUENCE", min=1, help="Entries by their number.", show_default=False),
]
Everything = Annotated[bool, typer.Option("--all", help="All entries that fit the options.")]
Limit = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--limit", "-n", min=1, help="So many of them at most, the oldest.", show_default=False),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; without a terminal nobody is asked.")]


@dlq_app.command("list", short_help="The dead letters, newest first.", epilog=LIST_EXAMPLES)
def list_command(
    topic: Topic = None,
    subscription: Subscriber = None,
    reason: Reason = None,
    since: Since = None,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="In the order of failing.")] = False,
    after: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--after", min=1, help="Go on beyond this number, where a page ended.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="Entries at most.")] = 50,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """The dead letters that fit the options, newest first."""
    from polaris.cli._dlq import list_letters

    wanted = _wanted(topic, subscription, reason, since)
    settings = settings_of(config, data_dir)
    raise SystemExit(
        list_letters(settings, wanted, newest_first=not oldest_first, after=after, limit=limit, as_json=as_json)
    )


@dlq_app.command("show", short_help="One dead letter in full, with its original bytes.", epilog=SHOW_EXAMPLES)
def show_command(
    sequence: Annotated[int, typer.Argument(metavar="SEQUENCE", min=1, help="Its number.", show_default=False)],
    raw: Annotated[bool, typer.Option("--raw", help="Print the original bytes and nothing else.")] = False,
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", help="Write the original bytes to this file.", show_default=False),
    ] = None,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """One dead letter in full: why it was put aside, its headers and its original bytes."""
    from polaris.cli._dlq import show_letter

    raise SystemExit(show_letter(settings_of(config, data_dir), sequence, raw=raw, output=output, as_json=as_json))


@dlq_app.command("replay", short_help="Publish dead letters once more.", epilog=REPLAY_EXAMPLES)
def replay_command(
    sequences: Sequences = None,
    everything: Everything = False,
    topic: Topic = None,
    subscription: Subscriber = None,
    reason: Reason = None,
    since: Since = None,
    limit: Limit = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the entries.")] = False,
    yes: Yes = False,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Publish dead letters once more, on their topic and with their original bytes and event ids, oldest first.

    Whoever handled an event already knows it by its id. An entry is dropped once its message is stored.
    """
    from polaris.cli._dlq import Selection, replay_letters

    wanted = _wanted(topic, subscription, reason, since)
    selection = Selection(sequences=tuple(sequences or ()), everything=everything, wanted=wanted, limit=limit)
    settings = settings_of(config, data_dir)
    raise SystemExit(replay_letters(settings, selection, keep=keep, yes=yes, as_json=as_json))


@dlq_app.command("drop", short_help="Erase dead letters for good.")
def drop_command(
    sequences: Sequences = None,
    everything: Everything = False,
    topic: Topic = None,
    subscription: Subscriber = None,
    reason: Reason = None,
    since: Since = None,
    limit: Limit = None,
    yes: Yes = False,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Erase dead letters for good, with their bytes, oldest first."""
    from polaris.cli._dlq import Selection, drop_letters

    wanted = _wanted(topic, subscription, reason, since)
    selection = Selection(sequences=tuple(sequences or ()), everything=everything, wanted=wanted, limit=limit)
    raise SystemExit(drop_letters(settings_of(config, data_dir), selection, yes=yes, as_json=as_json))


def _wanted(topic: str | None, subscription: str | None, reason: str | None, since: str | None) -> Any:
    from polaris.cli._dlq import Wanted

    moment = None if since is None else _moment(since)
    return Wanted(topic=topic, subscription=subscription, reason=reason, since=moment)


def _moment(text: str) -> datetime:
    """A duration back from now, or an RFC 3339 time."""
    from polaris.cli._durations import parse_duration, parse_instant

    if re.match(r"\s*\d{4}-", text):
        return parse_instant(text, "--since")
    return datetime.now(UTC) - parse_duration(text, "--since")
