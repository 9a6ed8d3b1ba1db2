"""The commands of `polaris dlq` and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from polaris.cli._commands import Argument, Commands, Option
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

dlq_app = Commands(
    "dlq",
    about="Messages put aside as undeliverable: list, show, replay, drop.",
)

Topic = Annotated[
    str | None,
    Option("--topic", about="Of this topic or pattern.", metavar="PATTERN", show_default=False),
]
Subscriber = Annotated[
    str | None,
    Option("--subscription", about="That this subscription could not handle.", show_default=False),
]
Reason = Annotated[
    str | None,
    Option(
        "--reason",
        about="undecodable, unknown_type, refused, exhausted, abandoned or given_up.",
        show_default=False,
    ),
]
Since = Annotated[
    str | None,
    Option("--since", about="Put aside in the last 15m, 1h, 7d ..., or since an RFC 3339 time.", show_default=False),
]
Sequences = Annotated[
    list[int] | None,
    Argument(metavar="SEQUENCE", at_least=1, about="Entries by their number.", show_default=False),
]
Everything = Annotated[bool, Option("--all", about="All entries that fit the options.")]
Limit = Annotated[
    int | None,
    Option("--limit", "-n", at_least=1, about="So many of them at most, the oldest.", show_default=False),
]
Yes = Annotated[bool, Option("--yes", "-y", about="Do not ask; without a terminal nobody is asked.")]


@dlq_app.add("list", short_help="The dead letters, newest first.", epilog=LIST_EXAMPLES)
def list_command(
    topic: Topic = None,
    subscription: Subscriber = None,
    reason: Reason = None,
    since: Since = None,
    oldest_first: Annotated[bool, Option("--oldest-first", about="In the order of failing.")] = False,
    after: Annotated[
        int | None,
        Option("--after", at_least=1, about="Go on beyond this number, where a page ended.", show_default=False),
    ] = None,
    limit: Annotated[int, Option("--limit", "-n", at_least=1, at_most=100_000, about="Entries at most.")] = 50,
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


@dlq_app.add("show", short_help="One dead letter in full, with its original bytes.", epilog=SHOW_EXAMPLES)
def show_command(
    sequence: Annotated[int, Argument(metavar="SEQUENCE", at_least=1, about="Its number.", show_default=False)],
    raw: Annotated[bool, Option("--raw", about="Print the original bytes and nothing else.")] = False,
    output: Annotated[
        Path | None,
        Option("--output", "-o", about="Write the original bytes to this file.", show_default=False),
    ] = None,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """One dead letter in full: why it was put aside, its headers and its original bytes."""
    from polaris.cli._dlq import show_letter

    raise SystemExit(show_letter(settings_of(config, data_dir), sequence, raw=raw, output=output, as_json=as_json))


@dlq_app.add("replay", short_help="Publish dead letters once more.", epilog=REPLAY_EXAMPLES)
def replay_command(
    sequences: Sequences = None,
    everything: Everything = False,
    topic: Topic = None,
    subscription: Subscriber = None,
    reason: Reason = None,
    since: Since = None,
    limit: Limit = None,
    keep: Annotated[bool, Option("--keep", about="Keep the entries.")] = False,
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


@dlq_app.add("drop", short_help="Erase dead letters for good.")
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
    from polaris.cli._durations import parse_moment

    moment = None if since is None else parse_moment(since, "--since")
    return Wanted(topic=topic, subscription=subscription, reason=reason, since=moment)
