"""Which managed system needs which, as the edges of a graph."""

from __future__ import annotations

from typing import cast

import msgspec

from polaris.domain import SystemDependency
from polaris.domain._checks import check_fraction
from polaris.exceptions import InvalidValueError
from polaris.storage._graph import CycleList, Direction, GraphEdge, GraphStorageBackend, RelationshipTypes
from polaris.storage._repository import Repository
from polaris.storage._turns import in_turns

_SEPARATOR = "\x1f"  # ids hold no control characters, so it cannot be a part of one
_STRENGTH, _METADATA = "strength", "metadata"


class LinkedSystem(msgspec.Struct, frozen=True):
    """A system that another one depends on, or that depends on it, and by which way.

    `path` leads from the other one to it, both included; `depth` is its length in dependencies.
    """

    system_id: str
    depth: int
    path: list[str]


class SystemDependencyRepository(Repository[SystemDependency]):
    """Dependencies between systems. The id of one is made of source, target and type: see `id_of`."""

    model = "graph"

    @property
    def graph(self) -> GraphStorageBackend:
        return cast(GraphStorageBackend, self.storage_backend)

    @staticmethod
    def id_of(dependency: SystemDependency) -> str:
        """The id under which `find_by_id` and `delete` know this dependency."""
        ends = (dependency.source_system, dependency.target_system, dependency.dependency_type)
        return _SEPARATOR.join(ends)

    async def save(self, entity: SystemDependency) -> None:
        if not isinstance(entity, SystemDependency):
            raise InvalidValueError("entity", "a SystemDependency", entity)
        properties = {_STRENGTH: entity.strength, _METADATA: dict(entity.metadata)}
        await self.graph.add_edge(entity.source_system, entity.target_system, entity.dependency_type, properties)

    async def find_by_id(self, entity_id: str) -> SystemDependency | None:
        edge = await self.graph.get_edge(*_parts(entity_id))
        return None if edge is None else _dependency(edge)

    async def find_all(
        self, *, limit: int | None = None, after: SystemDependency | None = None
    ) -> list[SystemDependency]:
        """All dependencies, in order of source, target and type, behind `after`, which may be gone."""
        last = None if after is None else GraphEdge(after.source_system, after.target_system, after.dependency_type)
        return [_dependency(edge) for edge in await self.graph.get_edges(limit=limit, after=last)]

    async def delete(self, entity_id: str) -> bool:
        return await self.graph.remove_edge(*_parts(entity_id))

    async def dependencies_of(self, system_id: str, *, dependency_type: str | None = None) -> list[SystemDependency]:
        """What the system itself needs."""
        return [_dependency(edge) for edge in await self.graph.get_edges(system_id, "out", dependency_type)]

    async def dependents_of(self, system_id: str, *, dependency_type: str | None = None) -> list[SystemDependency]:
        """What needs the system itself."""
        return [_dependency(edge) for edge in await self.graph.get_edges(system_id, "in", dependency_type)]

    async def affected_by(self, system_id: str, *, max_depth: int | None = None) -> dict[str, int]:
        """Every system that depends on this one, directly or not, with its distance in hops."""
        return await self.graph.closure(system_id, "in", max_depth=max_depth)

    async def impact_of(
        self,
        system_id: str,
        *,
        dependency_type: RelationshipTypes = None,
        strength_min: float = 0.0,
        max_depth: int | None = None,
    ) -> list[LinkedSystem]:
        """Whom the failure of a system reaches and by which way, nearest first: all that depend on it.

        `strength_min` leaves out weaker dependencies, `max_depth` (at most 64, which is also the default) what is
        further away. No system is taken to have a substitute.
        """
        return await self._linked(system_id, "in", dependency_type, strength_min, max_depth)

    async def requirements_of(
        self,
        system_id: str,
        *,
        dependency_type: RelationshipTypes = None,
        strength_min: float = 0.0,
        max_depth: int | None = None,
    ) -> list[LinkedSystem]:
        """All that a system needs, directly or not, and by which way, nearest first; arguments as for `impact_of`."""
        return await self._linked(system_id, "out", dependency_type, strength_min, max_depth)

    async def _linked(
        self,
        system_id: str,
        direction: Direction,
        dependency_type: RelationshipTypes,
        strength_min: float,
        max_depth: int | None,
    ) -> list[LinkedSystem]:
        check_fraction("strength_min", strength_min)
        strong = {_STRENGTH: {"$gte": strength_min}} if strength_min > 0 else None
        found = await self.graph.trace(system_id, direction, dependency_type, edge_query=strong, max_depth=max_depth)
        return [
            LinkedSystem(one, distance, found.path_to(one) or [])
            async for one, distance in in_turns(found.distances.items())
        ]

    async def find_cycles(self, *, dependency_type: RelationshipTypes = None, limit: int = 100) -> CycleList:
        """Systems that need each other in a circle, up to `limit` circles; with a limit of 1: whether there are any."""
        return await self.graph.find_cycles(dependency_type, limit=limit)

    async def start_order(self, *, dependency_type: RelationshipTypes = None) -> list[str]:
        """All systems, each after all that it needs; backwards it is an order to stop them in.

        Raises `QueryError` naming systems that need each other in a circle.
        """
        return await self.graph.topological_order("in", dependency_type)


def _parts(entity_id: str) -> tuple[str, str, str]:
    parts = entity_id.split(_SEPARATOR) if isinstance(entity_id, str) else []
    if len(parts) != 3:
        raise InvalidValueError("entity_id", "an id made by SystemDependencyRepository.id_of", entity_id)
    return parts[0], parts[1], parts[2]


def _dependency(edge: GraphEdge) -> SystemDependency:
    strength, metadata = edge.properties.get(_STRENGTH, 1.0), edge.properties.get(_METADATA, {})
    return SystemDependency(edge.source, edge.target, edge.relationship_type, strength, metadata)
