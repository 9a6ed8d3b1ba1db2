"""What `polaris doctor` asks of the node: does it run and answer; its parts, systems, bus, breakers, dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from polaris.cli._dlq import connected_letters
from polaris.cli._findings import Finding, fine, problem, warning
from polaris.cli._node_http import TIMEOUT_S, ask_json
from polaris.cli._output import ago
from polaris.exceptions import PolarisException
from polaris.runtime import DataFolder, NodeFile
from polaris.runtime._remedies import CONNECTOR, OF_BREAKERS, remedy_for

if TYPE_CHECKING:
    from polaris.runtime import Settings

BUS_ANSWER_S_MAX = 4.0
LETTERS_COUNTED_MAX = 100


def running(settings: Settings) -> tuple[NodeFile | None, Finding]:
    """The node that owns the data folder, if one runs."""
    folder = DataFolder(settings.data_dir)
    node = folder.running_node()
    if node is not None:
        return node, fine("node", f"{node.name} runs (pid {node.pid}, since {ago(node.started_at)})")
    last = folder.read_node_file()
    what = f"no node runs on {settings.data_dir}"
    if last is not None:
        what += (
            f"; the last one (pid {last.pid}, of {ago(last.started_at)}) did not stop in order, and lost nothing by it"
        )
    return None, problem("node", what, "start it: polaris run")


def answers(node: NodeFile) -> Iterator[Finding]:
    """What the node says of its parts, systems and breakers."""
    if node.http_url is None:
        return
    health = ask_json(node, "api/v1/health")
    systems = ask_json(node, "api/v1/systems?limit=1000")
    if health is None or systems is None:
        what = f"pid {node.pid} holds the data folder, but {node.http_url} does not answer within {TIMEOUT_S:g} s"
        yield problem("node", what, f"it is frozen or overloaded: kill {node.pid}, then polaris run; nothing is lost")
        return
    for part in health.get("components", ()):
        yield of_component(part)
    for system in systems.get("systems", ()):
        if system.get("stale"):
            yield stale_system(system)
    yield from map(of_breaker, health.get("breakers", ()))


def of_component(part: dict[str, Any]) -> Finding:
    """A part of the node as it says it does."""
    name, status = part["name"], part["status"]
    if status in ("healthy", "unknown"):
        return fine(name, status)
    remedy = part.get("remedy") or remedy_for(name)
    since = f", since {ago(_moment(part['since']))}" if part.get("since") else ""
    said = f"{status}: {part.get('message') or 'no reason given'}{since}"
    return warning(name, said, remedy) if status == "warning" else problem(name, said, remedy)


def stale_system(system: dict[str, Any]) -> Finding:
    """A system whose last sample is older than it should be."""
    last = system.get("last_sample_at")
    what = f"its last sample is of {ago(_moment(last))}" if last else "no sample has ever come"
    if system.get("connector") == "push":
        return problem(system["system_id"], what, "it sends by itself: check that its sender runs and reaches the bus")
    return problem(system["system_id"], what, remedy_for(CONNECTOR))


def of_breaker(breaker: dict[str, Any]) -> Finding:
    """A breaker that is not closed."""
    state, do = breaker["state"], breaker.get("remedy") or OF_BREAKERS
    if state == "half_open":
        return warning(f"breaker {breaker['name']}", "is half open: the next call shows whether it closes", do)
    return problem(f"breaker {breaker['name']}", f"is {state}: calls are refused at once", do)


def _moment(text: str) -> datetime:
    return msgspec.convert(text, datetime)


async def bus(settings: Settings) -> list[Finding]:
    """Whether the bus answers, and how many dead letters wait."""
    do = "check that the NATS server runs and is not frozen; an embedded one is the node's: restart the node"
    try:
        async with asyncio.timeout(BUS_ANSWER_S_MAX), connected_letters(settings) as letters:
            waiting = len(await letters.list(count_max=LETTERS_COUNTED_MAX))
    except TimeoutError:
        return [problem("bus", f"takes the connection, but does not answer within {BUS_ANSWER_S_MAX:g} s", do)]
    except PolarisException as error:
        return [problem("bus", error.message, do)]
    found = [fine("bus", "answers")]
    if waiting:
        more = " or more" if waiting == LETTERS_COUNTED_MAX else ""
        do = "look at them: polaris dlq list; when the cause is mended: polaris dlq replay"
        found.append(warning("dead letters", f"{waiting}{more} wait", do))
    return found
