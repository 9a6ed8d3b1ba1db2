"""Which managed system needs which, as the edges of a graph."""

from __future__ import annotations

from typing import cast

from polaris.domain import SystemDependency
from polaris.exceptions import InvalidValueError
from polaris.storage._graph import GraphEdge, GraphStorageBackend
from polaris.storage._repository import Repository

_SEPARATOR = "\x1f"  # ids hold no control characters, so it cannot be a part of one
_STRENGTH, _METADATA = "strength", "metadata"


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

    async def find_all(self, *, limit: int | None = None) -> list[SystemDependency]:
        """All dependencies, in order of source, target and type."""
        return [_dependency(edge) for edge in await self.graph.get_edges(limit=limit)]

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


def _parts(entity_id: str) -> tuple[str, str, str]:
    parts = entity_id.split(_SEPARATOR) if isinstance(entity_id, str) else []
    if len(parts) != 3:
        raise InvalidValueError("entity_id", "an id made by SystemDependencyRepository.id_of", entity_id)
    return parts[0], parts[1], parts[2]


def _dependency(edge: GraphEdge) -> SystemDependency:
    strength, metadata = edge.properties.get(_STRENGTH, 1.0), edge.properties.get(_METADATA, {})
    return SystemDependency(edge.source, edge.target, edge.relationship_type, strength, metadata)
