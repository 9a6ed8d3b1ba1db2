"""`polaris export grafana | alerts | openapi | systemd | compose | settings`: a node among its operators' tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from polaris.cli import _exit
from polaris.cli._commands import Commands, Option
from polaris.cli._deliver import Output, deliver, deliver_text
from polaris.cli._options import Config, DataDir, config_file, settings_of


def add_to(export_app: Commands) -> None:
    """Put the commands into the group."""
    export_app.add(short_help="The Grafana dashboard.")(grafana)
    export_app.add(short_help="The alert rules for Prometheus.")(alerts)
    export_app.add(short_help="The OpenAPI 3.1 document of the HTTP API.")(openapi)
    export_app.add(short_help="A systemd unit for this node.")(systemd)
    export_app.add(short_help="A compose file: node, Prometheus, Grafana.")(compose)
    export_app.add(name="settings", short_help="The JSON Schema of polaris.toml, for editors.")(settings_schema)


def grafana(output: Output = None) -> None:
    """The Grafana dashboard of a node, as JSON to import. Needs no running node."""
    from polaris.cli._grafana import dashboard

    deliver(dashboard(), output)
    _next(output, "import it in Grafana under Dashboards, New, Import")
    raise SystemExit(_exit.OK)


def alerts(output: Output = None) -> None:
    """The alert rules for Prometheus, as YAML for its `rule_files`. Needs no running node."""
    from polaris.cli._templates import template

    deliver_text(template("alerts.yaml"), output)
    _next(output, f"promtool check rules {output}")
    raise SystemExit(_exit.OK)


def openapi(output: Output = None) -> None:
    """The OpenAPI 3.1 document of the HTTP API, as JSON. Needs no running node."""
    from polaris.cli import _operating

    deliver(_operating.openapi(), output)
    raise SystemExit(_exit.OK)


def systemd(
    user: Annotated[
        str | None,
        Option("--user", "-u", about="Who the node runs as; you, unless given.", show_default=False),
    ] = None,
    output: Output = None,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """A systemd unit that runs this installation with this configuration and data folder."""
    from getpass import getuser

    from polaris.cli._operating import systemd_unit

    settings = settings_of(config, data_dir)
    deliver_text(systemd_unit(settings, config=config_file(config), user=user or getuser()), output)
    _next(output, f"systemd-analyze verify {output}")
    raise SystemExit(_exit.OK)


def compose(output: Output = None, config: Config = None) -> None:
    """A compose file with the node, Prometheus with the alert rules, and Grafana with the dashboard."""
    from polaris.cli._operating import compose_file

    deliver_text(compose_file(settings_of(config, None)), output)
    _next(output, f"docker compose -f {output} up -d")
    raise SystemExit(_exit.OK)


def settings_schema(output: Output = None) -> None:
    """The JSON Schema of `polaris.toml`, with every setting described; editors complete and check by it."""
    from polaris.cli._settings_text import described_schema

    deliver(described_schema(), output)
    raise SystemExit(_exit.OK)


def _next(output: Path | None, text: str) -> None:
    """The next step, for people who wrote to a file; what goes to standard output is nobody's to talk into."""
    if output is not None:
        from polaris.cli._output import say_next

        say_next(text)
