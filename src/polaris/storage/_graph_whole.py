"""All of what a view sees, in memory and numbered in order, for questions that need to see everything."""

from __future__ import annotations

from collections.abc import Iterator

from polaris.storage._graph_view import GraphView
from polaris.storage._graph_walk import PAUSE_STEPS, Explorer, Walk, all_nodes, parts, pause


class WholeGraph:
    """Nodes by their number in the order of ids, and where the edges of each lead: without doubles, in order."""

    def __init__(self, names: list[str], leads_to: list[list[int]]) -> None:
        self.names = names
        self.leads_to = leads_to


def whole_graph(view: GraphView) -> Walk[WholeGraph]:
    """The nodes that the view sees and its edges between them, along the direction of the view."""
    names = yield from all_nodes(view)
    numbers = {name: number for number, name in enumerate(names)}
    targets: list[set[int]] = [set() for _ in names]
    # The nodes are known, so the neighbours need no second look.
    explorer = Explorer(GraphView(view.direction, view.types, view.edges))
    for part in parts(names):
        for node, neighbor in (yield from explorer.neighbors(part)):
            number = numbers.get(neighbor)
            if number is not None:
                targets[numbers[node]].add(number)
    return WholeGraph(names, [sorted(some) for some in targets])


def strong_components(members: list[int], leads_to: list[list[int]] | dict[int, list[int]]) -> Walk[list[list[int]]]:
    """The parts in which every node leads to every other, without single nodes unless they lead to themselves.

    Tarjan's algorithm (1972) without recursion. `members` in order; edges out of these are not followed.
    """
    inside = set(members)
    order: dict[int, int] = {}
    low: dict[int, int] = {}
    open_nodes: list[int] = []
    is_open: set[int] = set()
    found: list[list[int]] = []
    steps = 0
    for root in members:
        if root in order:
            continue
        trail: list[tuple[int, Iterator[int]]] = []
        entering: int | None = root
        while entering is not None or trail:
            steps += 1
            if steps % PAUSE_STEPS == 0:
                yield pause
            if entering is not None:
                order[entering] = low[entering] = len(order)
                open_nodes.append(entering)
                is_open.add(entering)
                trail.append((entering, iter(leads_to[entering])))
                entering = None
            node, branches = trail[-1]
            following = next(branches, None)
            if following is None:
                trail.pop()
                if trail:
                    low[trail[-1][0]] = min(low[trail[-1][0]], low[node])
                if low[node] == order[node]:
                    component = _close(node, open_nodes, is_open)
                    if len(component) > 1 or node in leads_to[node]:
                        found.append(component)
            elif following not in inside:
                continue
            elif following not in order:
                entering = following
            elif following in is_open:
                low[node] = min(low[node], order[following])
    return found


def _close(node: int, open_nodes: list[int], is_open: set[int]) -> list[int]:
    component: list[int] = []
    while not component or component[-1] != node:
        component.append(open_nodes.pop())
        is_open.discard(component[-1])
    return sorted(component)
