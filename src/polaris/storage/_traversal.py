"""Walks over a graph, given only a way to ask for the neighbours of many nodes at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from polaris.exceptions import QueryError
from polaris.storage._graph import Direction
from polaris.storage._limits import NODES_VISITED_MAX

OPPOSITE: dict[Direction, Direction] = {"out": "in", "in": "out", "both": "both"}

Expand = Callable[[Iterable[str]], dict[str, list[str]]]
"""The neighbours of each of the nodes, in order."""


def shortest_path(source: str, target: str, max_depth: int, ahead: Expand, back: Expand) -> list[str] | None:
    """A path of the fewest hops, found from both ends at once (bidirectional breadth-first search, Pohl 1971)."""
    if source == target:
        return [source]
    before: dict[str, str | None] = {source: None}
    after: dict[str, str | None] = {target: None}
    front, rear = [source], [target]
    for _ in range(max_depth):
        # The smaller frontier grows by one whole level, so the first meeting is on a shortest path.
        if len(front) <= len(rear):
            front, met = _grow(front, before, after, ahead)
        else:
            rear, met = _grow(rear, after, before, back)
        if met is not None:
            return [*reversed(_trail(met, before)), *_trail(met, after)[1:]]
        if not front or not rear:
            return None
    return None


def _grow(
    frontier: list[str], mine: dict[str, str | None], theirs: dict[str, str | None], expand: Expand
) -> tuple[list[str], str | None]:
    reached: list[str] = []
    for node, neighbors in expand(frontier).items():
        for neighbor in neighbors:
            if neighbor not in mine:
                mine[neighbor] = node
                if neighbor in theirs:
                    return reached, neighbor
                reached.append(neighbor)
    _check_visited(len(mine))
    return reached, None


def _trail(node: str, parents: dict[str, str | None]) -> list[str]:
    trail = [node]
    while (parent := parents[trail[-1]]) is not None:
        trail.append(parent)
    return trail


def distances(start: str, max_depth: int, expand: Expand) -> dict[str, int]:
    """Every node within `max_depth` hops of `start`, which is not among them, with its distance; nearest first."""
    found = {start: 0}
    frontier = [start]
    for depth in range(1, max_depth + 1):
        reached = sorted({neighbor for neighbors in expand(frontier).values() for neighbor in neighbors} - found.keys())
        if not reached:
            break
        found.update(dict.fromkeys(reached, depth))
        _check_visited(len(found))
        frontier = reached
    del found[start]
    return found


def _check_visited(count: int) -> None:
    if count > NODES_VISITED_MAX:
        raise QueryError(f"the walk visits more than {NODES_VISITED_MAX} nodes; give a smaller max_depth")
