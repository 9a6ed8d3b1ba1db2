"""Whatever graph, whatever view of it: both engines answer what networkx does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import networkx as nx  # type: ignore[import-untyped]
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from tests.faults.sizes import size
from tests.property.random_graphs import EDGES, NAMES, STEPS, VIEWS, Model, take
from tests.sqlite_sessions import new_session, scratch

from polaris.exceptions import QueryError
from polaris.storage import _graph_walk
from polaris.storage._graph_cycles import find_cycles
from polaris.storage._graph_order import topological_order
from polaris.storage._graph_paths import simple_paths
from polaris.storage._graph_values import GraphEdge, GraphNode
from polaris.storage._graph_view import GraphView
from polaris.storage._graph_weighted import cheapest_path
from polaris.storage._operation import GraphSession
from polaris.storage._traversal import neighbors_seen, reach, shortest_path, subgraph
from polaris.storage.backends.memory._graph import MemoryGraph
from polaris.storage.backends.memory._journal import Journal

SESSION = new_session()
GRAPHS = st.lists(STEPS, max_size=8)
DEPTHS = st.integers(0, 6)


@pytest.fixture(scope="module", autouse=True)
def _small_questions() -> Iterator[None]:
    """Walks ask about three nodes at once, so that small graphs are asked about in several parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_graph_walk, "ASKED_AT_ONCE", 3)
        yield


@contextmanager
def engines(steps: list[tuple[Any, ...]]) -> Iterator[tuple[Model, list[GraphSession]]]:
    """The model and both engines, after all steps."""
    with scratch(SESSION) as session:
        model = Model({}, {})
        found: list[GraphSession] = [MemoryGraph(Journal()), session.graph]
        for step in steps:
            answer = model.apply(step)
            for engine in found:
                assert take(engine, step) == answer
        yield model, found


def in_order(view: GraphView, edges: list[GraphEdge]) -> list[tuple[str, str, str]]:
    return [(edge.source, edge.target, edge.relationship_type) for edge in edges]


@settings(max_examples=size(80, 800), deadline=None)
@given(GRAPHS, VIEWS, NAMES, NAMES, st.integers(0, 4))
def test_nodes_edges_and_neighbors_are_listed_and_counted(
    steps: list[tuple[Any, ...]], view: GraphView, node: str, after: str, limit: int
) -> None:
    with engines(steps) as (model, both):
        seen_nodes = sorted(one for one in model.nodes if model.sees_node(view, one))
        seen_edges = sorted(key for key in model.edges if model.sees_edge(view, key))
        ends = {"out": (0,), "in": (1,), "both": (0, 1)}[view.direction]
        at_node = [key for key in seen_edges if node in [key[end] for end in ends]]
        graph = model.steps(view)
        for engine in both:
            assert engine.find_nodes(view.nodes, 100, None) == [GraphNode(one, model.nodes[one]) for one in seen_nodes]
            later = [one for one in seen_nodes if one > after]
            assert [one.node_id for one in engine.find_nodes(view.nodes, limit, after)] == later[:limit]
            assert engine.count_nodes(view.nodes) == len(seen_nodes)
            assert engine.edges(None, view, 100, None) == [GraphEdge(*key, model.edges[key]) for key in seen_edges]
            assert in_order(view, engine.edges(node, view, 100, None)) == at_node
            cursor = (after, node, "m")
            assert in_order(view, engine.edges(node, view, limit, cursor)) == [k for k in at_node if k > cursor][:limit]
            assert (engine.count_edges(None, view), engine.count_edges(node, view)) == (len(seen_edges), len(at_node))
            around = sorted(graph[node]) if node in graph else []
            assert engine.walk(lambda: neighbors_seen(node, 100, None, view)) == around
            assert (
                engine.walk(lambda: neighbors_seen(node, limit, after, view))
                == [one for one in around if one > after][:limit]
            )
            if view.sees_all_nodes:
                assert engine.neighbors(node, view, 100, None) == around
                assert engine.neighbors(node, view, limit, after) == [one for one in around if one > after][:limit]
            for key in list(model.edges)[:3]:
                assert engine.get_edge(*key) == GraphEdge(*key, model.edges[key])


@settings(max_examples=size(120, 1200), deadline=None)
@given(GRAPHS, VIEWS, NAMES, DEPTHS)
def test_what_is_within_reach_has_the_distances_of_networkx(
    steps: list[tuple[Any, ...]], view: GraphView, start: str, depth: int
) -> None:
    with engines(steps) as (model, both):
        graph = model.steps(view)
        far = dict(nx.single_source_shortest_path_length(graph, start, depth)) if start in graph else {}
        far.pop(start, None)
        event(f"reached: {min(len(far), 5)}")
        for engine in both:
            found = engine.walk(lambda: reach(start, depth, view))
            assert found.distances == far
            assert list(found.distances) == sorted(far, key=lambda node: (far[node], node))
            for node, parent in found.parents.items():
                nearer = [one for one in graph.predecessors(node) if far.get(one, 0) == far[node] - 1]
                assert parent == min(one for one in nearer if one == start or one in far)
                path = found.path_to(node)
                assert path is not None
                assert nx.is_path(graph, path)
                assert (path[0], path[-1], len(path)) == (start, node, far[node] + 1)
            members = {start, *far} if start in model.nodes else set()
            part = engine.walk(lambda: subgraph(start, depth, view))
            check_subgraph(model, view, members, part)
            check_subgraph(model, view, set(model.seen(view)), engine.walk(lambda: subgraph(None, 0, view)))


def check_subgraph(model: Model, view: GraphView, members: set[str], found: Any) -> None:
    assert found.nodes == [GraphNode(node, model.nodes[node]) for node in sorted(members)]
    inside = sorted(key for key in model.edges if model.sees_edge(view, key) and {key[0], key[1]} <= members)
    assert found.edges == [GraphEdge(*key, model.edges[key]) for key in inside]


@settings(max_examples=size(120, 1200), deadline=None)
@given(GRAPHS, VIEWS, NAMES, NAMES, DEPTHS)
def test_a_path_is_as_short_as_that_of_networkx(
    steps: list[tuple[Any, ...]], view: GraphView, source: str, target: str, depth: int
) -> None:
    with engines(steps) as (model, both):
        graph = model.steps(view)
        hops = None
        if source in graph and target in graph and nx.has_path(graph, source, target):
            hops = nx.shortest_path_length(graph, source, target)
        event(f"hops: {hops}")
        paths = [engine.walk(lambda: shortest_path(source, target, depth, view)) for engine in both]
        assert paths[0] == paths[1]
        path = paths[0]
        if hops is None or hops > depth:
            assert path is None
        else:
            assert path is not None
            assert nx.is_path(graph, path)
            assert (path[0], path[-1], len(path) - 1) == (source, target, hops)


@settings(max_examples=size(120, 1200), deadline=None)
@given(GRAPHS, VIEWS, NAMES, NAMES, st.none() | st.integers(0, 8), st.sampled_from([1, 0.1]))
def test_a_cheapest_path_costs_what_that_of_networkx_costs(
    steps: list[tuple[Any, ...]], view: GraphView, source: str, target: str, bound: int | None, scale: float
) -> None:
    scaled = [
        (step[0], [scaled_edge(edge, scale) for edge in step[1]]) if step[0] == "edges" else step for step in steps
    ]
    with engines(scaled) as (model, both):
        graph = model.steps(view)
        cost = None
        if source in graph and target in graph and nx.has_path(graph, source, target):
            cost = nx.dijkstra_path_length(graph, source, target, "w")
        event("no path" if cost is None else "a path")
        found = [engine.walk(lambda: cheapest_path(source, target, ("w",), bound, view)) for engine in both]
        assert found[0] == found[1]
        if cost is None or (bound is not None and cost > bound + 1e-9):
            assert found[0] is None
        elif found[0] is not None or bound is None or cost < bound - 1e-9:
            assert found[0] is not None
            nodes = found[0].nodes
            assert nx.is_path(graph, nodes)
            assert (nodes[0], nodes[-1]) == (source, target)
            assert found[0].cost == pytest.approx(cost, abs=1e-12)
            assert found[0].cost == pytest.approx(nx.path_weight(nx.DiGraph(lightest(graph)), nodes, "w"), abs=1e-12)


def scaled_edge(edge: GraphEdge, scale: float) -> GraphEdge:
    weight = edge.properties["w"] * scale
    return GraphEdge(edge.source, edge.target, edge.relationship_type, {**edge.properties, "w": weight})


def lightest(graph: nx.MultiDiGraph) -> nx.DiGraph:
    """Of several edges between two nodes the one of the least weight."""
    single = nx.DiGraph()
    for one, other, properties in graph.edges(data=True):
        if not single.has_edge(one, other) or properties["w"] < single[one][other]["w"]:
            single.add_edge(one, other, w=properties["w"])
    return single


BAD_WEIGHTS = st.sampled_from([{}, {"w": -1}, {"w": -0.5}, {"w": None}, {"w": "1"}, {"w": True}, {"w": [1]}, {"w": {}}])
BAD_EDGES = st.builds(
    lambda edge, bad: GraphEdge(edge.source, edge.target, edge.relationship_type, bad), EDGES, BAD_WEIGHTS
)


@settings(max_examples=size(80, 800), deadline=None)
@given(GRAPHS, st.lists(BAD_EDGES, min_size=1, max_size=3), VIEWS, NAMES, NAMES)
def test_a_weight_that_is_none_is_an_error_or_was_not_met(
    steps: list[tuple[Any, ...]], bad: list[GraphEdge], view: GraphView, source: str, target: str
) -> None:
    with engines([*steps, ("edges", bad)]) as (model, both):
        graph = model.steps(view)
        broken = [
            (one, other, key)
            for one, other, key, properties in graph.edges(keys=True, data=True)
            if type(properties.get("w")) not in (int, float) or properties["w"] < 0
        ]
        found = [told(engine, source, target, view) for engine in both]
        assert found[0] == found[1]
        event(type(found[0]).__name__)
        if isinstance(found[0], str):
            assert any(repr(one) in found[0] and repr(other) in found[0] for one, other, _ in broken)
        elif found[0] is not None:
            graph.remove_edges_from(broken)
            assert found[0].cost == nx.dijkstra_path_length(graph, source, target, "w")


def told(engine: GraphSession, source: str, target: str, view: GraphView) -> Any:
    try:
        return engine.walk(lambda: cheapest_path(source, target, ("w",), None, view))
    except QueryError as error:
        return error.message


@settings(max_examples=size(80, 800), deadline=None)
@given(GRAPHS, VIEWS, NAMES, NAMES, DEPTHS, st.integers(0, 12))
def test_all_paths_are_those_of_networkx(
    steps: list[tuple[Any, ...]], view: GraphView, source: str, target: str, depth: int, limit: int
) -> None:
    with engines(steps) as (model, both):
        graph = nx.DiGraph(model.steps(view))
        paths: list[list[str]] = []
        if source == target:
            paths = [[source]] if source in graph else []
        elif source in graph and target in graph:
            paths = sorted(nx.all_simple_paths(graph, source, target, depth), key=lambda path: (len(path), path))
        event(f"paths: {min(len(paths), 10)}")
        for engine in both:
            found = engine.walk(lambda: simple_paths(source, target, depth, limit, view))
            assert found.paths == paths[:limit]
            assert found.truncated is (len(paths) > limit)


@settings(max_examples=size(120, 1200), deadline=None)
@given(GRAPHS, VIEWS.filter(lambda view: view.direction != "both"), st.integers(0, 12))
def test_cycles_and_orders_are_those_of_networkx(steps: list[tuple[Any, ...]], view: GraphView, limit: int) -> None:
    with engines(steps) as (model, both):
        graph = nx.DiGraph(model.seen(view))
        cycles = sorted(turned(cycle) for cycle in nx.simple_cycles(graph))
        event(f"cycles: {min(len(cycles), 10)}")
        for engine in both:
            found = engine.walk(lambda: find_cycles(limit, view))
            assert found.cycles == cycles[:limit]
            assert found.truncated is (len(cycles) > limit)
            if cycles:
                with pytest.raises(QueryError) as caught:
                    engine.walk(lambda: topological_order(view))
                along = caught.value.context["cycle"]
                assert (along if view.direction == "out" else turned(along[::-1])) in cycles
            else:
                order = list(nx.lexicographical_topological_sort(graph))
                assert engine.walk(lambda: topological_order(view)) == order


def turned(cycle: list[str]) -> list[str]:
    first = cycle.index(min(cycle))
    return cycle[first:] + cycle[:first]


@settings(max_examples=size(60, 600), deadline=None)
@given(GRAPHS, GRAPHS)
def test_what_the_graph_in_memory_takes_back_is_as_if_it_had_never_been(
    kept: list[tuple[Any, ...]], undone: list[tuple[Any, ...]]
) -> None:
    journal, model, view = Journal(), Model({}, {}), GraphView("both")
    engine = MemoryGraph(journal)
    for step in kept:
        model.apply(step)
        take(engine, step)
    journal.forget()
    engine.find_nodes(view.nodes, 1, None)
    for step in undone:
        take(engine, step)
    journal.undo()
    assert engine.find_nodes(view.nodes, 100, None) == [
        GraphNode(node, model.nodes[node]) for node in sorted(model.nodes)
    ]
    assert engine.edges(None, view, 100, None) == [GraphEdge(*key, model.edges[key]) for key in sorted(model.edges)]
    for node in model.nodes:
        assert engine.neighbors(node, view, 100, None) == sorted(model.steps(view)[node])
    assert engine.nodes_count == len(model.nodes)
