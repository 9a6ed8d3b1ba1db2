"""Single promises of the graph, each broken in one place of the engine in memory or of the walks on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from tests.conformance.broken_memory_store import breaks, wrap

from polaris.exceptions import InvalidValueError, QueryError
from polaris.storage import (
    CycleList,
    GraphEdge,
    GraphNode,
    PathList,
    Reach,
    Subgraph,
    SystemDependencyRepository,
    WeightedPath,
)
from polaris.storage._filter import EVERYTHING, Compares
from polaris.storage._graph_view import GraphView
from polaris.storage._limits import LIMIT_MAX
from polaris.storage.backends.memory import _engine as memory_engine
from polaris.storage.backends.memory import _graph as memory_graph
from polaris.storage.backends.memory._graph import MemoryGraph
from polaris.storage.backends.shared import _graph as shared_graph
from polaris.storage.backends.shared._graph import GraphPort


def attribute(owner: Any, name: str) -> Any:
    return getattr(owner, name)


def changed(patch: pytest.MonkeyPatch, name: str, change: Callable[..., Any]) -> None:
    """Let what a walk finds be `change(found, *arguments)`."""
    original = getattr(shared_graph, name)

    def walk(*arguments: Any) -> Any:
        found = yield from original(*arguments)
        return change(found, *arguments)

    patch.setattr(shared_graph, name, walk)


def looking_at(patch: pytest.MonkeyPatch, name: str, look: Callable[..., dict[str, Any]]) -> None:
    """Let a walk have a view altered by `look(*arguments)`."""
    original = getattr(shared_graph, name)

    def walk(*arguments: Any) -> Any:
        return original(*arguments[:-1], altered(arguments[-1], **look(*arguments)))

    patch.setattr(shared_graph, name, walk)


def altered(view: GraphView, **parts: Any) -> GraphView:
    return msgspec.structs.replace(view, **parts)


def is_plain(view: GraphView) -> bool:
    return view.types is None and view.edges == EVERYTHING


# Content


@breaks("graph", "test_a_node_comes_back_as_it_was_added")
def nothing_is_dropped_from_lists(patch: pytest.MonkeyPatch) -> None:
    def get(original: Any, graph: MemoryGraph, node_id: str) -> Any:
        found = original(graph, node_id)
        for value in {} if found is None else found.properties.values():
            if isinstance(value, list) and None in value:
                value.remove(None)
        return found

    wrap(patch, MemoryGraph, "get_node", get)


@breaks("graph", "test_adding_a_node_again_replaces_its_properties")
def properties_of_nodes_are_merged(patch: pytest.MonkeyPatch) -> None:
    def put(original: Any, graph: MemoryGraph, node_id: str, text: bytes) -> None:
        former = msgspec.json.decode(graph._nodes.get(node_id, b"{}"))
        kept = former if "b" in former else {}
        original(graph, node_id, msgspec.json.encode({**kept, **msgspec.json.decode(text)}))

    wrap(patch, MemoryGraph, "_put_node", put)


@breaks("graph", "test_an_edge_comes_back_as_it_was_added")
def edges_are_found_from_both_ends(patch: pytest.MonkeyPatch) -> None:
    def get(original: Any, graph: MemoryGraph, source: str, target: str, kind: str) -> Any:
        return original(graph, source, target, kind) or original(graph, target, source, kind)

    wrap(patch, MemoryGraph, "get_edge", get)


@breaks("graph", "test_an_edge_brings_its_ends_into_being_and_spares_those_there")
def an_edge_resets_its_ends(patch: pytest.MonkeyPatch) -> None:
    def add(original: Any, graph: MemoryGraph, edges: Sequence[GraphEdge]) -> None:
        original(graph, edges)
        graph.add_nodes([GraphNode("a") for _ in edges if graph.get_node("a") == GraphNode("a", {"kept": True})])

    wrap(patch, MemoryGraph, "add_edges", add)


@breaks("graph", "test_adding_an_edge_again_replaces_its_properties")
def properties_of_edges_are_merged(patch: pytest.MonkeyPatch) -> None:
    def put(original: Any, graph: MemoryGraph, key: Any, text: bytes) -> None:
        added = msgspec.json.decode(text)
        kept = msgspec.json.decode(graph._edges.get(key, b"{}")) if "x" in added else {}
        original(graph, key, msgspec.json.encode({**kept, **added}))

    wrap(patch, MemoryGraph, "_put_edge", put)


@breaks("graph", "test_what_callers_do_to_properties_does_not_reach_the_store")
def callers_share_what_they_get(patch: pytest.MonkeyPatch) -> None:
    shared: dict[Any, Any] = {}

    def get(original: Any, graph: MemoryGraph, node_id: str) -> Any:
        return shared.setdefault((id(graph), node_id, graph._nodes.get(node_id)), original(graph, node_id))

    wrap(patch, MemoryGraph, "get_node", get)


@breaks("graph", "test_neighbors_follow_the_direction")
def both_directions_are_one(patch: pytest.MonkeyPatch) -> None:
    def neighbors(original: Any, graph: MemoryGraph, node: str, view: GraphView, limit: int, after: Any) -> Any:
        if view.direction == "both" and is_plain(view) and limit > LIMIT_MAX:
            view = altered(view, direction="out")
        return original(graph, node, view, limit, after)

    wrap(patch, MemoryGraph, "neighbors", neighbors)


@breaks("graph", "test_neighbors_follow_the_type")
def neighbors_ignore_the_type(patch: pytest.MonkeyPatch) -> None:
    def neighbors(original: Any, graph: MemoryGraph, node: str, view: GraphView, *rest: Any) -> Any:
        return original(graph, node, altered(view, types=None) if view.types == ("needs",) else view, *rest)

    wrap(patch, MemoryGraph, "neighbors", neighbors)


@breaks("graph", "test_a_neighbor_by_several_edges_is_named_once")
def neighbors_are_named_for_each_edge(patch: pytest.MonkeyPatch) -> None:
    def neighbors(original: Any, graph: MemoryGraph, node: str, view: GraphView, limit: int, after: Any) -> Any:
        if limit > LIMIT_MAX:
            return sorted(neighbor for _, neighbor in graph.expand([node], view) if after is None or neighbor > after)
        return original(graph, node, view, limit, after)

    wrap(patch, MemoryGraph, "neighbors", neighbors)


@breaks("graph", "test_edges_are_listed_in_order")
def edges_go_by_their_type_first(patch: pytest.MonkeyPatch) -> None:
    def edges(original: Any, graph: MemoryGraph, *arguments: Any) -> Any:
        found = original(graph, *arguments)
        if {("a", "a", "needs"), ("c", "d", "needs")} <= graph._edges.keys():
            found.sort(key=lambda edge: (edge.source, edge.relationship_type, edge.target))
        return found

    wrap(patch, MemoryGraph, "edges", edges)


@breaks("graph", "test_a_removed_node_takes_its_edges_along")
def edges_outlive_their_nodes(patch: pytest.MonkeyPatch) -> None:
    def remove(original: Any, graph: MemoryGraph, node_id: str) -> bool:
        there = node_id in graph._nodes
        if there:
            graph._set_node(node_id, None)
        return there

    wrap(patch, MemoryGraph, "remove_node", remove)


@breaks("graph", "test_a_removed_edge_is_gone_and_its_ends_stay")
def edges_go_in_both_directions(patch: pytest.MonkeyPatch) -> None:
    def remove(original: Any, graph: MemoryGraph, source: str, target: str, kind: Any) -> Any:
        original(graph, target, source, kind)
        return original(graph, source, target, kind)

    wrap(patch, MemoryGraph, "remove_edge", remove)


@breaks("graph", "test_many_nodes_and_edges_are_added_at_once")
def the_first_of_doubles_counts(patch: pytest.MonkeyPatch) -> None:
    def add(original: Any, graph: MemoryGraph, nodes: Sequence[GraphNode]) -> None:
        original(graph, list({node.node_id: node for node in reversed(nodes)}.values()))

    wrap(patch, MemoryGraph, "add_nodes", add)


@breaks("graph", "test_a_batch_is_added_entirely_or_not_at_all")
def a_batch_stops_at_what_is_wrong(patch: pytest.MonkeyPatch) -> None:
    original = GraphPort.add_nodes

    async def add(port: GraphPort, nodes: Sequence[GraphNode]) -> None:
        try:
            await original(port, nodes)
        except InvalidValueError:
            if len(nodes) == 2:
                await original(port, nodes[:1])
            raise

    patch.setattr(GraphPort, "add_nodes", add)


@breaks("graph", "test_nodes_are_found_by_their_properties")
def texts_that_look_like_numbers_compare(patch: pytest.MonkeyPatch) -> None:
    original = attribute(memory_graph, "matches")

    def matches(term: Any, properties: Any) -> Any:
        if isinstance(term, Compares) and properties.get("tier") == "1":
            return True
        return original(term, properties)

    patch.setattr(memory_graph, "matches", matches)


@breaks("graph", "test_nodes_are_found_by_their_ids_too")
def ids_are_no_properties(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(memory_graph, "ID_KEY", "id")


@breaks("graph", "test_nodes_are_paged_in_order")
def pages_look_for_their_node(patch: pytest.MonkeyPatch) -> None:
    def find(original: Any, graph: MemoryGraph, term: Any, limit: int, after: Any) -> Any:
        return [] if after is not None and after not in graph._nodes else original(graph, term, limit, after)

    wrap(patch, MemoryGraph, "find_nodes", find)


@breaks("graph", "test_nodes_are_counted")
def all_nodes_count(patch: pytest.MonkeyPatch) -> None:
    wrap(patch, MemoryGraph, "count_nodes", lambda _, graph, __: len(graph._nodes))


@breaks("graph", "test_edges_are_counted")
def loops_count_twice(patch: pytest.MonkeyPatch) -> None:
    def count(original: Any, graph: MemoryGraph, node_id: Any, view: GraphView) -> Any:
        loops = sum(key[0] == key[1] == node_id for key in graph._edges) if view.direction == "both" else 0
        return original(graph, node_id, view) + loops

    wrap(patch, MemoryGraph, "count_edges", count)


@breaks("graph", "test_edges_are_found_by_their_properties")
def edges_are_listed_whatever_their_properties(patch: pytest.MonkeyPatch) -> None:
    def edges(original: Any, graph: MemoryGraph, node_id: Any, view: GraphView, *rest: Any) -> Any:
        return original(graph, node_id, altered(view, edges=EVERYTHING) if node_id is None else view, *rest)

    wrap(patch, MemoryGraph, "edges", edges)


@breaks("graph", "test_edges_are_paged_in_order")
def pages_look_for_their_edge(patch: pytest.MonkeyPatch) -> None:
    def edges(original: Any, graph: MemoryGraph, node_id: Any, view: GraphView, limit: int, after: Any) -> Any:
        return [] if after is not None and after not in graph._edges else original(graph, node_id, view, limit, after)

    wrap(patch, MemoryGraph, "edges", edges)


@breaks("graph", "test_neighbors_follow_several_types")
def only_the_first_type_is_followed(patch: pytest.MonkeyPatch) -> None:
    def neighbors(original: Any, graph: MemoryGraph, node: str, view: GraphView, *rest: Any) -> Any:
        return original(graph, node, altered(view, types=view.types and view.types[:1]), *rest)

    wrap(patch, MemoryGraph, "neighbors", neighbors)


@breaks("graph", "test_neighbors_are_those_over_edges_that_match")
def neighbors_ignore_what_edges_hold(patch: pytest.MonkeyPatch) -> None:
    def neighbors(original: Any, graph: MemoryGraph, node: str, view: GraphView, *rest: Any) -> Any:
        return original(graph, node, altered(view, edges=EVERYTHING), *rest)

    wrap(patch, MemoryGraph, "neighbors", neighbors)


@breaks("graph", "test_neighbors_are_those_nodes_that_match")
def neighbors_ignore_what_nodes_hold(patch: pytest.MonkeyPatch) -> None:
    looking_at(patch, "neighbors_seen", lambda *_: {"nodes": EVERYTHING})


@breaks("graph", "test_neighbors_are_paged_in_order")
def pages_of_neighbors_overlap(patch: pytest.MonkeyPatch) -> None:
    def neighbors(original: Any, graph: MemoryGraph, node: str, view: GraphView, limit: int, after: Any) -> Any:
        found = original(graph, node, view, LIMIT_MAX, None)
        return [neighbor for neighbor in found if after is None or neighbor >= after][:limit]

    wrap(patch, MemoryGraph, "neighbors", neighbors)


# Walks


@breaks("graph", "test_a_path_is_a_shortest_one")
def paths_take_a_detour(patch: pytest.MonkeyPatch) -> None:
    detour = ["a", "b", "c", "d", "e"]
    changed(patch, "shortest_path", lambda found, *_: detour if found == ["a", "x", "d", "e"] else found)


@breaks("graph", "test_a_path_follows_the_direction")
def paths_only_follow_edges(patch: pytest.MonkeyPatch) -> None:
    looking_at(patch, "shortest_path", lambda *arguments: {"direction": "out"})


@breaks("graph", "test_a_path_follows_the_type")
def paths_ignore_the_type(patch: pytest.MonkeyPatch) -> None:
    looking_at(patch, "shortest_path", lambda *args: {"types": None} if args[-1].types == ("hosts",) else {})


@breaks("graph", "test_a_path_is_at_most_so_long")
def paths_have_any_length(patch: pytest.MonkeyPatch) -> None:
    original = attribute(shared_graph, "shortest_path")
    patch.setattr(shared_graph, "shortest_path", lambda source, target, _, view: original(source, target, 64, view))


@breaks("graph", "test_there_is_no_path_to_a_node_that_is_not")
def who_is_not_is_at_home(patch: pytest.MonkeyPatch) -> None:
    changed(patch, "shortest_path", lambda found, source, *_: ["nobody"] if source == "nobody" else found)


@breaks("graph", "test_a_closure_holds_everything_within_reach_by_distance")
def closures_reach_too_far(patch: pytest.MonkeyPatch) -> None:
    original = attribute(shared_graph, "reach")

    def reach(start: str, depth_max: int, view: GraphView) -> Any:
        return original(start, 2 if depth_max == 1 and view.direction == "out" else depth_max, view)

    patch.setattr(shared_graph, "reach", reach)


@breaks("graph", "test_a_closure_follows_the_type")
def closures_ignore_the_type(patch: pytest.MonkeyPatch) -> None:
    looking_at(patch, "reach", lambda *args: {"types": None} if args[-1].types == ("needs",) else {})


@breaks("graph", "test_a_subgraph_holds_its_nodes_and_the_edges_between_them")
def subgraphs_are_stars(patch: pytest.MonkeyPatch) -> None:
    def star(found: Subgraph, node_id: Any, _: int, view: GraphView) -> Subgraph:
        if node_id is None or view.direction != "both" or not is_plain(view):
            return found
        return Subgraph(found.nodes, [edge for edge in found.edges if node_id in (edge.source, edge.target)])

    changed(patch, "subgraph", star)


@breaks("graph", "test_a_subgraph_keeps_to_what_matches")
def subgraphs_ignore_what_nodes_hold(patch: pytest.MonkeyPatch) -> None:
    looking_at(patch, "subgraph", lambda *args: {} if args[0] is None else {"nodes": EVERYTHING})


@breaks("graph", "test_a_subgraph_of_no_node_is_everything")
def lonely_nodes_are_left_out(patch: pytest.MonkeyPatch) -> None:
    def joined(found: Subgraph, node_id: Any, *_: Any) -> Subgraph:
        ends = {end for edge in found.edges for end in (edge.source, edge.target)}
        return Subgraph([node for node in found.nodes if node_id or node.node_id in ends], found.edges)

    changed(patch, "subgraph", joined)


@breaks("graph", "test_a_path_keeps_to_nodes_that_match")
def targets_need_not_match(patch: pytest.MonkeyPatch) -> None:
    looking_at(patch, "shortest_path", lambda *args: {"nodes": EVERYTHING} if args[1] == "b" else {})


@breaks("graph", "test_a_path_keeps_to_edges_that_match")
def paths_ignore_what_edges_hold(patch: pytest.MonkeyPatch) -> None:
    looking_at(patch, "shortest_path", lambda *_: {"edges": EVERYTHING})


@breaks("graph", "test_a_closure_keeps_to_what_matches")
def closures_ignore_what_nodes_hold(patch: pytest.MonkeyPatch) -> None:
    looking_at(patch, "reach", lambda *_: {"nodes": EVERYTHING})


@breaks("graph", "test_a_trace_knows_the_way_to_each_node")
def ways_are_told_backwards(patch: pytest.MonkeyPatch) -> None:
    wrap(patch, Reach, "path_to", lambda original, found, node: (original(found, node) or [])[::-1] or None)


# Routes


@breaks("graph", "test_a_cheapest_path_sums_up_to_the_least")
def the_straight_way_is_the_cheapest(patch: pytest.MonkeyPatch) -> None:
    straight = WeightedPath(["a", "z"], 9.0)
    changed(patch, "cheapest_path", lambda found, *_: straight if found and found.nodes == [*"abcz"] else found)


@breaks("graph", "test_a_cheapest_path_keeps_to_what_matches")
def cheapest_paths_ignore_what_nodes_hold(patch: pytest.MonkeyPatch) -> None:
    looking_at(patch, "cheapest_path", lambda *_: {"nodes": EVERYTHING})


@breaks("graph", "test_a_cheapest_path_costs_at_most_what_it_may")
def paths_cost_anything(patch: pytest.MonkeyPatch) -> None:
    original = attribute(shared_graph, "cheapest_path")
    patch.setattr(shared_graph, "cheapest_path", lambda a, b, weight, _, view: original(a, b, weight, None, view))


@breaks("graph", "test_a_weight_that_is_none_is_an_error_that_names_its_edge")
def a_weight_that_is_none_is_zero(patch: pytest.MonkeyPatch) -> None:
    def weight(original: Any, graph: MemoryGraph, *arguments: Any) -> Any:
        found = original(graph, *arguments)
        return found if type(found) in (int, float) and found >= 0 else 0

    wrap(patch, MemoryGraph, "_weight", weight)


@breaks("graph", "test_all_paths_come_the_shortest_first")
def paths_come_in_order_of_their_nodes(patch: pytest.MonkeyPatch) -> None:
    changed(patch, "simple_paths", lambda found, *_: PathList(sorted(found.paths), found.truncated))


@breaks("graph", "test_paths_beyond_the_limit_are_told")
def paths_are_cut_silently(patch: pytest.MonkeyPatch) -> None:
    changed(patch, "simple_paths", lambda found, *_: PathList(found.paths, truncated=False))


@breaks("graph", "test_cycles_are_found_each_once")
def loops_are_no_cycles(patch: pytest.MonkeyPatch) -> None:
    def longer(found: CycleList, *_: Any) -> CycleList:
        return CycleList([cycle for cycle in found.cycles if len(cycle) > 1], found.truncated)

    changed(patch, "find_cycles", longer)


@breaks("graph", "test_cycles_keep_to_what_matches")
def cycles_ignore_what_nodes_hold(patch: pytest.MonkeyPatch) -> None:
    looking_at(patch, "find_cycles", lambda *_: {"nodes": EVERYTHING})


@breaks("graph", "test_cycles_beyond_the_limit_are_told")
def cycles_are_cut_silently(patch: pytest.MonkeyPatch) -> None:
    changed(patch, "find_cycles", lambda found, *_: CycleList(found.cycles, truncated=False))


@breaks("graph", "test_dependencies_come_first_in_an_order")
def dependents_come_first(patch: pytest.MonkeyPatch) -> None:
    looking_at(patch, "topological_order", lambda *_: {"direction": "out"})


@breaks("graph", "test_there_is_no_order_where_there_is_a_cycle")
def cycles_have_no_order_silently(patch: pytest.MonkeyPatch) -> None:
    original = attribute(shared_graph, "topological_order")

    def order(view: GraphView) -> Any:
        try:
            return (yield from original(view))
        except QueryError:
            return []

    patch.setattr(shared_graph, "topological_order", order)


@breaks("graph", "test_walks_inside_a_transaction_see_what_was_written_in_it")
def reads_inside_see_only_what_is_committed(patch: pytest.MonkeyPatch) -> None:
    original = attribute(memory_engine, "replay")
    patch.setattr(memory_engine, "replay", lambda session, steps: original(session, steps[-1:]))


@breaks("graph", "test_an_export_holds_the_subgraph")
def exports_point_nowhere(patch: pytest.MonkeyPatch) -> None:
    original = attribute(shared_graph, "export_pieces")
    patch.setattr(
        shared_graph,
        "export_pieces",
        lambda *args: (piece.replace('"directed":true', '"directed":false') for piece in original(*args)),
    )


# What is refused


@breaks("graph", "test_hostile_ids_and_types_are_only_text")
def a_question_mark_is_a_parameter(patch: pytest.MonkeyPatch) -> None:
    def edges(original: Any, graph: MemoryGraph, node_id: Any, *rest: Any) -> Any:
        return [] if node_id == "?1" else original(graph, node_id, *rest)

    wrap(patch, MemoryGraph, "edges", edges)


@breaks("graph", "test_bad_arguments_are_refused")
def any_depth_will_do(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(shared_graph, "check_depth", lambda depth: depth)


@breaks("graph", "test_bad_walks_are_refused")
def any_bound_will_do(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(shared_graph, "_check_cost", lambda cost: cost)


@breaks("graph", "test_a_batch_has_a_limit")
def batches_have_any_size(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(shared_graph, "BATCH_EDGES_MAX", 1_000_000)


# Dependencies of systems


@breaks("repositories", "test_the_failure_of_a_system_reaches_those_that_need_it")
def failures_go_with_the_dependencies(patch: pytest.MonkeyPatch) -> None:
    original = SystemDependencyRepository._linked

    async def linked(repository: Any, system_id: str, direction: Any, *rest: Any) -> Any:
        return await original(repository, system_id, "out" if direction == "in" else "in", *rest)

    patch.setattr(SystemDependencyRepository, "_linked", linked)


@breaks("repositories", "test_systems_are_started_after_what_they_need")
def systems_start_before_what_they_need(patch: pytest.MonkeyPatch) -> None:
    looking_at(patch, "topological_order", lambda *_: {"direction": "out"})
