"""The order in which everything comes before what its edges lead to."""

from __future__ import annotations

import heapq

from polaris.exceptions import QueryError
from polaris.storage._graph_view import GraphView
from polaris.storage._graph_walk import PAUSE_STEPS, Walk, pause
from polaris.storage._graph_whole import WholeGraph, whole_graph

CYCLE_NODES_SHOWN_MAX = 20


def topological_order(view: GraphView) -> Walk[list[str]]:
    """All nodes, each before those that the view leads to from it; of those that could be next, the first in order.

    Kahn's algorithm (1962) with a queue in order. Raises `QueryError` with a cycle when there is one.
    """
    graph = yield from whole_graph(view)
    before = [0] * len(graph.names)
    for targets in graph.leads_to:
        for target in targets:
            before[target] += 1
    ready = [number for number, count in enumerate(before) if count == 0]
    order: list[str] = []
    while ready:
        number = heapq.heappop(ready)
        order.append(graph.names[number])
        for target in graph.leads_to[number]:
            before[target] -= 1
            if before[target] == 0:
                heapq.heappush(ready, target)
        if len(order) % PAUSE_STEPS == 0:
            yield pause
    if len(order) < len(graph.names):
        stuck = {number for number, count in enumerate(before) if count > 0}
        raise _no_order(_cycle_among(graph, stuck, backwards=view.direction == "in"))
    return order


def _cycle_among(graph: WholeGraph, stuck: set[int], *, backwards: bool) -> list[str]:
    """A cycle among the nodes that never became ready, along its edges: each of them has one of them before it."""
    leading: dict[int, int] = {}
    for number in sorted(stuck, reverse=True):
        for target in graph.leads_to[number]:
            if target in stuck:
                leading[target] = number
    node = min(stuck)
    seen: dict[int, int] = {}
    trail: list[int] = []
    while node not in seen:
        seen[node] = len(trail)
        trail.append(node)
        node = leading[node]
    cycle = trail[seen[node] :]
    if not backwards:
        cycle.reverse()
    first = cycle.index(min(cycle))
    return [graph.names[number] for number in cycle[first:] + cycle[:first]]


def _no_order(cycle: list[str]) -> QueryError:
    shown = [*cycle[:CYCLE_NODES_SHOWN_MAX], "..."] if len(cycle) > CYCLE_NODES_SHOWN_MAX else [*cycle, cycle[0]]
    return QueryError(f"there is no order: {' -> '.join(shown)} is a cycle", {"cycle": cycle[:CYCLE_NODES_SHOWN_MAX]})
