"""`polaris status`: how the running node does, asked of the node itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polaris.cli import _exit
from polaris.cli._node_http import ask_json
from polaris.cli._output import ago, print_json, print_table, status_text
from polaris.cli._waiting import Doing
from polaris.runtime import DataFolder, NodeFile

if TYPE_CHECKING:
    from polaris.runtime import Settings


def show_status(settings: Settings, *, as_json: bool) -> int:
    """Node, readiness and components; exit code 69 when no node runs, 1 when it is not ready."""
    running = DataFolder(settings.data_dir).running_node()
    if running is None:
        if as_json:
            print_json({"running": False, "data_dir": str(settings.data_dir)})
        else:
            _exit.complain(f"no node runs on {settings.data_dir}; start one with: polaris run")
        return _exit.UNAVAILABLE
    if running.http_url is None:
        return _show_file(running, as_json=as_json)
    with Doing("asking the node").during():
        node = ask_json(running, "api/v1/node")
        ready = ask_json(running, "readyz")
        components = ask_json(running, "api/v1/components")
    if node is None or ready is None or components is None:
        _exit.complain(f"the node (pid {running.pid}) runs, but {running.http_url} does not answer")
        return _exit.UNAVAILABLE
    if as_json:
        listed = components["components"]
        print_json({"running": True, "pid": running.pid, "node": node, "readiness": ready, "components": listed})
    else:
        _print(running, node, ready, components["components"])
    return _exit.OK if ready["status"] == "ok" else _exit.FAILED


def _show_file(running: NodeFile, *, as_json: bool) -> int:
    facts = {"running": True, "pid": running.pid, "name": running.name, "started_at": running.started_at}
    if as_json:
        print_json(facts)
    else:
        print(f"{running.name} runs (pid {running.pid}), without HTTP")
    return _exit.OK


def _print(running: NodeFile, node: Any, ready: Any, components: list[Any]) -> None:
    print(f"{node['name']}  {status_text(node['health_status'])}  {node.get('message', '')}".rstrip())
    print(f"  version {node['version']}, pid {running.pid}, started {ago(running.started_at)}")
    for name, address in node.get("addresses", {}).items():
        print(f"  {name:8} {address}")
    for check in ready["checks"]:
        if not check["ok"]:
            print(f"  not ready: {check['component']}: {check.get('reason', '')}")
    rows = [(item["name"], item["status"], item.get("message", "")) for item in components]
    if rows:
        print()
        print_table(("COMPONENT", "STATUS", ""), rows, status_column=1)
