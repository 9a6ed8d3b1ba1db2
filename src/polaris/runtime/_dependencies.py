"""Which managed system needs which, as the settings say, kept in the store for the page and for controllers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polaris.domain import SystemDependency

if TYPE_CHECKING:
    from polaris.runtime._settings import Settings
    from polaris.storage import PolarisDataStore, PolarisUnitOfWork

REQUIRES = "requires"
"""The type of the dependencies that settings name."""
_BY = "declared_by"


async def apply_dependencies(store: PolarisDataStore, settings: Settings) -> None:
    """Have the store know what `depends_on` names, and no more what a former configuration of this node named.

    What somebody else stored is left alone, also where it says the same. All or nothing; doing it again changes
    nothing.
    """
    by = settings.node.name
    wanted = {(source, target) for source, system in settings.systems.items() for target in system.depends_on}

    async def declare(work: PolarisUnitOfWork) -> None:
        graph = work.dependencies.graph
        former = await graph.get_edges(relationship_type=REQUIRES, edge_query={f"metadata.{_BY}": by})
        for edge in former:
            if (edge.source, edge.target) not in wanted:
                await graph.remove_edge(edge.source, edge.target, REQUIRES)
        for source, target in sorted(wanted - {(edge.source, edge.target) for edge in former}):
            if await graph.get_edge(source, target, REQUIRES) is None:
                await work.dependencies.save(SystemDependency(source, target, REQUIRES, metadata={_BY: by}))

    await store.in_unit_of_work(declare)
