"""Random graphs: as steps for an engine, and as networkx sees what a view leaves of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import networkx as nx  # type: ignore[import-untyped]
from hypothesis import strategies as st

from polaris.storage._filter_match import matches
from polaris.storage._graph_values import EdgeKey, GraphEdge, GraphNode
from polaris.storage._graph_view import GraphView, parse_view
from polaris.storage._operation import GraphSession

Properties = dict[str, Any]

NAMES = st.sampled_from(["a", "b", "c", "d", "e", "f", "A", "é", "🦉", "'; --", 'x"y', "10", "9", "a.b", "%"])
TYPES = st.sampled_from(["needs", "hosts", "a\\b"])
WEIGHTS = st.integers(0, 5)
PROPERTIES = st.fixed_dictionaries({"w": WEIGHTS}, optional={"tier": st.sampled_from([1, 2, "x", None])})
EDGE_QUERIES = st.sampled_from([None, {"tier": 1}, {"w": {"$lt": 3}}, {"$not": {"tier": {"$exists": True}}}])
NODE_QUERIES = st.sampled_from([None, None, {"tier": 1}, {"tier": {"$ne": 2}}, {"w": {"$gte": 2}}])
VIEWS = st.builds(
    parse_view,
    st.sampled_from(["out", "in", "both"]),
    st.sampled_from([None, None, "needs", ["hosts", "needs"], ["a\\b"]]),
    EDGE_QUERIES,
    NODE_QUERIES,
)
NODES = st.builds(GraphNode, NAMES, PROPERTIES)
EDGES = st.builds(GraphEdge, NAMES, NAMES, TYPES, PROPERTIES)
STEPS = st.one_of(
    st.tuples(st.just("nodes"), st.lists(NODES, max_size=4)),
    st.tuples(st.just("edges"), st.lists(EDGES, max_size=8)),
    st.tuples(st.just("edges"), st.lists(EDGES, max_size=16)),
    st.tuples(st.just("remove_node"), NAMES),
    st.tuples(st.just("remove_edge"), NAMES, NAMES, st.none() | TYPES),
)


class Model(NamedTuple):
    """The graph as two dictionaries."""

    nodes: dict[str, Properties]
    edges: dict[EdgeKey, Properties]

    def copy(self) -> Model:
        return Model(dict(self.nodes), dict(self.edges))

    def apply(self, step: tuple[Any, ...]) -> bool | None:
        """Take the step; gives what the engine must answer."""
        if step[0] == "nodes":
            self.nodes.update((node.node_id, node.properties) for node in step[1])
            return None
        if step[0] == "edges":
            for edge in step[1]:
                for end in (edge.source, edge.target):
                    self.nodes.setdefault(end, {})
                self.edges[edge.source, edge.target, edge.relationship_type] = edge.properties
            return None
        if step[0] == "remove_node":
            gone = [key for key in self.edges if step[1] in key[:2]]
            found = self.nodes.pop(step[1], None) is not None
        else:
            gone = [key for key in self.edges if key[:2] == step[1:3] and step[3] in (None, key[2])]
            found = bool(gone)
        for key in gone:
            del self.edges[key]
        return found

    def sees_node(self, view: GraphView, node: str) -> bool:
        return matches(view.nodes, self.nodes[node])

    def sees_edge(self, view: GraphView, key: EdgeKey) -> bool:
        return (view.types is None or key[2] in view.types) and matches(view.edges, self.edges[key])

    def steps(self, view: GraphView) -> nx.MultiDiGraph:
        """Every hop that a walk may take: an edge of the view, in its direction, into a node that it sees."""
        graph = nx.MultiDiGraph()
        graph.add_nodes_from(self.nodes)
        for key, properties in self.edges.items():
            if self.sees_edge(view, key):
                ends = {"out": [key[:2]], "in": [key[1::-1]], "both": [key[:2], key[1::-1]]}[view.direction]
                graph.add_edges_from((*hop, properties) for hop in ends if self.sees_node(view, hop[1]))
        return graph

    def seen(self, view: GraphView) -> nx.MultiDiGraph:
        """The same between the nodes that the view sees, without the others."""
        return self.steps(view).subgraph([node for node in self.nodes if self.sees_node(view, node)])


def take(engine: GraphSession, step: tuple[Any, ...]) -> bool | None:
    """Let an engine take the step."""
    if step[0] == "nodes":
        engine.add_nodes(step[1])
        return None
    if step[0] == "edges":
        engine.add_edges(step[1])
        return None
    return engine.remove_node(step[1]) if step[0] == "remove_node" else engine.remove_edge(*step[1:])
