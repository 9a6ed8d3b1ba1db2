"""The commands of `polaris graph` and their options."""

from __future__ import annotations

from typing import Annotated

from polaris.cli._commands import Argument, Commands, Option
from polaris.cli._options import Config, DataDir, Json, settings_of

DEPENDENCIES_EXAMPLES = """\b
Examples:
  polaris graph dependencies
  polaris graph dependencies db --direction in
  polaris graph dependencies web --depth 2 --format graphml > web.graphml
"""

graph_app = Commands("graph", about="What a node is made of and what its systems need, drawn.")


@graph_app.add(short_help="The services of a node and what each needs, as a mermaid flowchart.")
def services(config: Config = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """The services of a node as configured and what each needs, as a mermaid flowchart. Nothing is started."""
    from polaris.cli._graph import show_services

    raise SystemExit(show_services(settings_of(config, data_dir, check_connectors=True), as_json=as_json))


@graph_app.add(short_help="Which system needs which, as mermaid, JSON or GraphML.", epilog=DEPENDENCIES_EXAMPLES)
def dependencies(
    system_id: Annotated[
        str | None,
        Argument(metavar="SYSTEM", about="Only what is around this system.", show_default=False),
    ] = None,
    depth: Annotated[int, Option("--depth", "-n", at_least=0, at_most=64, about="How many dependencies far.")] = 5,
    direction: Annotated[str, Option("--direction", about="out: what SYSTEM needs; in: what needs it; both.")] = "both",
    dependency_type: Annotated[
        list[str], Option("--type", "-t", about="Only dependencies of this type.", show_default=False)
    ] = [],  # noqa: B006 - a new list is made for each call
    form: Annotated[str, Option("--format", "-f", about="mermaid, json (node-link) or graphml.")] = "mermaid",
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Which managed system needs which, as the store knows it, whether the node runs or not."""
    from polaris.cli._graph_dependencies import Picture, show_dependencies

    picture = Picture(system_id, depth, direction, dependency_type, "json" if as_json else form)
    raise SystemExit(show_dependencies(settings_of(config, data_dir), picture))
