"""The commands and their options; the work of each is in a module of its own, imported when it is called."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import click

from polaris.cli import _exit, version_text
from polaris.cli._commands import Argument, Commands, Option
from polaris.cli._dlq_commands import dlq_app
from polaris.cli._export import export_app
from polaris.cli._graph_commands import graph_app
from polaris.cli._options import Config, DataDir, Json, System, config_file, configuration_of, settings_of
from polaris.cli._store_commands import store_app
from polaris.exceptions import ConfigurationError, PolarisException


def _tell_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        print(version_text())
        context.exit()


app = Commands(
    "polaris",
    about="Infrastructure for self-adaptive systems: telemetry in, actions out, everything kept and shown.",
    epilog=(
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 4 nothing found, 69 node, bus or store unreachable, "
        "75 no answer in time, 78 configuration refused, 130 interrupted."
    ),
    options=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_tell_version,
            help="Print the version.",
        )
    ],
)

COMPLETION_VARIABLE = "_POLARIS_COMPLETE"
QUERY_EXAMPLES = """\b
Examples:
  polaris query this-machine
  polaris query this-machine system.cpu.utilization --last 10m
  polaris query this-machine system.cpu.utilization --agg p95 --bucket 5m --last 1d
"""
TAIL_EXAMPLES = """\b
Examples (quote the wildcards: * is one part of a topic, > all that follow):
  polaris tail
  polaris tail 'polaris.telemetry.*' -n 10
  polaris tail 'polaris.executions.>' --json
"""
REPLAY_EXAMPLES = """\b
Examples (quote the wildcards):
  polaris replay 'polaris.adaptations.*'
  polaris replay polaris.telemetry.web --since 15m --json
"""
PUBLISH_EXAMPLES = """\b
Examples:
  polaris publish polaris.telemetry.web '{"system_state": {"system_id": "web",
    "timestamp": "2026-01-31T12:00:00Z", "metrics": {"rps": {"name": "rps", "value": 41.5}}}}'
  polaris publish polaris.telemetry.web < cloudevent.json
"""
ACT_EXAMPLES = """\b
Examples:
  polaris act web add_worker
  polaris act web set_workers --param workers=4 --id scale-2026-01-31
"""


@app.add(short_help="Begin: settings, a connector of one's own and its test.")
def init(
    folder: Annotated[
        Path, Argument(metavar="DIR", about="Where to; made when it is not there.", show_default=False)
    ] = Path(),
    name: Annotated[str, Option("--name", "-n", about="The id of your managed system.")] = "my-system",
    as_json: Json = False,
) -> None:
    """Write a commented polaris.toml, a connector to make your own, and its test. Nothing is ever overwritten."""
    from polaris.cli._init import begin

    raise SystemExit(begin(folder, name, as_json=as_json))


@app.add()
def run(
    config: Config = None,
    data_dir: DataDir = None,
    port: Annotated[
        int | None,
        Option("--port", "-p", about="Port of page and API; 0 takes any free one.", show_default=False),
    ] = None,
) -> None:
    """Start a node: bus, store, connectors, page. Ctrl-C stops it, a second one at once."""
    from polaris.cli._run import run_node

    raise SystemExit(run_node(configuration_of(config, data_dir, check_connectors=True, http__port=port)))


@app.add()
def check(
    config: Config = None,
    data_dir: DataDir = None,
    offline: Annotated[bool, Option("--offline", about="Do not try to reach what is configured.")] = False,
    everything: Annotated[
        bool, Option("--all", "-a", about="Show the settings that have their defaults, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check the configuration as a whole and show what is in effect."""
    from polaris.cli._check import check_configuration, refuse
    from polaris.cli._whereabouts import mistakes, unread_variables

    try:
        settings = settings_of(config, data_dir, check_connectors=True, located=False)
    except ConfigurationError as error:
        found = [*mistakes(error.problems or (error.message,), config_file(config)), *unread_variables(os.environ)]
        raise SystemExit(refuse(found, as_json=as_json)) from None
    file = config_file(config)
    raise SystemExit(check_configuration(settings, file, offline=offline, everything=everything, as_json=as_json))


@app.add(short_help="What this machine can do, measured in seconds.")
def bench(
    seconds: Annotated[float, Option("--seconds", "-s", about="How long to measure, about (1 to 300).")] = 5.0,
    folder: Annotated[
        Path, Option("--folder", about="On the disk that is asked about; what is written there is removed.")
    ] = Path(),
    as_json: Json = False,
) -> None:
    """Measure bus and store on this machine for a few seconds, with a server and a file of their own."""
    from polaris.cli._bench import bench as measure

    raise SystemExit(measure(folder, seconds, as_json=as_json))


@app.add(short_help="The script that completes commands in your shell.")
def completion(
    shell: Annotated[str, Argument(metavar="SHELL", about="bash, zsh or fish.", show_default=False)],
) -> None:
    """Print the script that makes a shell complete commands, options and systems.

    \b
    bash:  eval "$(polaris completion bash)"      in ~/.bashrc
    zsh:   eval "$(polaris completion zsh)"       in ~/.zshrc, after compinit
    fish:  polaris completion fish > ~/.config/fish/completions/polaris.fish
    """
    from polaris.cli._completion import SHELLS, script

    if shell not in SHELLS:
        from polaris.cli._near import hint

        message = f"no script for {shell!r}{hint(shell, SHELLS, 'one of')}"
        raise click.BadParameter(message, param_hint="SHELL")
    print(script(shell))


@app.add(short_help="What is wrong with node or machine, and what to do.")
def doctor(config: Config = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Look at node, bus, store and machine; name what is wrong, why, and what to do. Changes nothing."""
    from polaris.cli._doctor import examine

    raise SystemExit(examine(lambda: settings_of(config, data_dir, check_connectors=True), as_json=as_json))


@app.add()
def status(
    history: Annotated[
        bool, Option("--history", about="What was not well, from when to when, whether the node runs or not.")
    ] = False,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """How the running node and its components do."""
    settings = settings_of(config, data_dir)
    if history:
        from polaris.cli._health_history import show_history

        raise SystemExit(show_history(settings, as_json=as_json))
    from polaris.cli._status import show_status

    raise SystemExit(show_status(settings, as_json=as_json))


@app.add(short_help="The managed systems with their latest state.")
def systems(config: Config = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """The managed systems with their latest state, whether the node runs or not."""
    from polaris.cli._query import show_systems

    raise SystemExit(show_systems(settings_of(config, data_dir), as_json=as_json))


@app.add(short_help="A system's latest state, or values of one metric.", epilog=QUERY_EXAMPLES)
def query(
    system_id: System,
    metric: Annotated[
        str | None,
        Argument(metavar="METRIC", about="The metric; without it, the latest state is shown.", show_default=False),
    ] = None,
    last: Annotated[str, Option("--last", about="How far back: 90s, 15m, 1h, 7d ...")] = "1h",
    start: Annotated[
        str | None,
        Option("--start", about="From this time on (RFC 3339), instead of --last.", show_default=False),
    ] = None,
    end: Annotated[
        str | None,
        Option("--end", about="Before this time (RFC 3339), instead of now.", show_default=False),
    ] = None,
    aggregation: Annotated[
        str | None,
        Option("--agg", "-a", about="avg, sum, min, max, count, p95 ... per bucket.", show_default=False),
    ] = None,
    bucket: Annotated[
        str | None,
        Option("--bucket", "-b", about="Length of a bucket: 10s, 5m, 1h ...", show_default=False),
    ] = None,
    limit: Annotated[
        int, Option("--limit", "-n", at_least=1, at_most=1_000_000, about="Points at most, the newest.")
    ] = 1000,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """The latest state of a system, or the points or aggregates of one metric, whether the node runs or not."""
    from polaris.cli._durations import parse_duration, parse_instant
    from polaris.cli._query import Question, show_series

    question = Question(
        system_id=system_id,
        metric=metric,
        last=parse_duration(last, "--last"),
        start=parse_instant(start, "--start") if start else None,
        end=parse_instant(end, "--end") if end else None,
        aggregation=aggregation,
        bucket=parse_duration(bucket, "--bucket") if bucket else None,
        limit=limit,
    )
    raise SystemExit(show_series(settings_of(config, data_dir), question, as_json=as_json))


@app.add(epilog=TAIL_EXAMPLES)
def tail(
    pattern: Annotated[
        str, Argument(metavar="PATTERN", about="Topics to follow; * and > are wildcards.")
    ] = "polaris.>",
    count: Annotated[
        int | None,
        Option("--count", "-n", at_least=1, about="Stop after so many events.", show_default=False),
    ] = None,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Follow the events on the bus live."""
    from polaris.cli._tail import follow

    raise SystemExit(follow(settings_of(config, data_dir), pattern, count_max=count, as_json=as_json))


@app.add(short_help="What passed on the bus, as far as it is still stored.", epilog=REPLAY_EXAMPLES)
def replay(
    pattern: Annotated[str, Argument(metavar="PATTERN", about="Topics; * and > are wildcards.", show_default=False)],
    since: Annotated[
        str | None, Option("--since", about="Stored in the last 15m, 1h ..., or since a time.", show_default=False)
    ] = None,
    until: Annotated[str | None, Option("--until", about="Before this time (RFC 3339).", show_default=False)] = None,
    count: Annotated[
        int | None, Option("--count", "-n", at_least=1, about="The first so many.", show_default=False)
    ] = None,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """What passed on the bus, in order, as far as its stream still has it. Nothing is published anew."""
    from polaris.cli._durations import parse_instant, parse_moment
    from polaris.cli._replay import replay as replay_events

    first = None if since is None else parse_moment(since, "--since")
    last = None if until is None else parse_instant(until, "--until")
    settings = settings_of(config, data_dir)
    raise SystemExit(replay_events(settings, pattern, since=first, until=last, count_max=count, as_json=as_json))


@app.add(epilog=PUBLISH_EXAMPLES)
def publish(
    topic: Annotated[
        str, Argument(metavar="TOPIC", about="Where to, such as polaris.telemetry.web.", show_default=False)
    ],
    event: Annotated[
        str,
        Argument(metavar="EVENT", about="The event's fields as JSON, or a whole CloudEvent; - reads standard input."),
    ] = "-",
    type_name: Annotated[
        str | None,
        Option("--type", "-t", about="The event type; by default the one of the topic.", show_default=False),
    ] = None,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Publish one event and say which guarantee it got."""
    from polaris.cli._publish import publish_event

    raise SystemExit(publish_event(settings_of(config, data_dir), topic, event, type_name=type_name, as_json=as_json))


@app.add(epilog=ACT_EXAMPLES)
def act(
    system_id: System,
    action_type: Annotated[
        str, Argument(metavar="ACTION", about="What to do, such as add_worker.", show_default=False)
    ],
    parameter: Annotated[
        list[str],
        Option("--param", "-p", about="A parameter as key=value; the value may be JSON.", show_default=False),
    ] = [],  # noqa: B006 - a new list is made for each call
    action_id: Annotated[
        str | None,
        Option("--id", about="The action's id; the same id is never executed twice.", show_default=False),
    ] = None,
    timeout: Annotated[str, Option("--timeout", about="How long the execution may take.")] = "30s",
    wait: Annotated[bool, Option("--wait/--no-wait", about="Wait for the outcome.")] = True,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Ask a managed system to change, and wait for what comes of it."""
    from polaris.cli._act import Request, act_on
    from polaris.cli._durations import parse_duration

    request = Request(
        system_id=system_id,
        action_type=action_type,
        parameters=parameter,
        action_id=action_id,
        timeout_s=parse_duration(timeout, "--timeout").total_seconds(),
        wait=wait,
    )
    raise SystemExit(act_on(settings_of(config, data_dir), request, as_json=as_json))


for group in (graph_app, dlq_app, export_app, store_app):
    app.add_command(group)


def run_app() -> NoReturn:
    """Run the command line; errors become one clear line each and a documented exit code."""
    try:
        try:
            _call_app()
        finally:
            # What is still buffered must meet a reader that went away here, not in the interpreter's last moments.
            sys.stdout.flush()
    except BrokenPipeError:
        _leave_to_nobody()
    raise SystemExit(_exit.OK)


def _call_app() -> None:
    try:
        if COMPLETION_VARIABLE in os.environ:  # a shell asks what may come next
            app.main(prog_name="polaris", complete_var=COMPLETION_VARIABLE)
        # Not `app.main`, which has its own mind about readers that went away and about Ctrl-C.
        with app.make_context("polaris", sys.argv[1:]) as context:
            app.invoke(context)
    except click.exceptions.Exit as ending:
        raise SystemExit(ending.exit_code) from None
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except click.Abort:  # Ctrl-C or Ctrl-D where a question was asked
        raise SystemExit(_exit.INTERRUPTED) from None
    except PolarisException as error:
        _exit.leave(error)
    except ExceptionGroup as group:  # boundary: taken apart; what is foreign in it is raised again
        known, foreign = group.split(PolarisException)
        if known is None or foreign is not None:
            raise
        _exit.leave_all(known)
    except KeyboardInterrupt:
        raise SystemExit(_exit.INTERRUPTED) from None


def _leave_to_nobody() -> NoReturn:
    """End well although nobody reads the output any more: what is left of it goes nowhere, at the exit too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    raise SystemExit(_exit.OK)
