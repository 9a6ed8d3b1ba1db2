"""Proves a wiring before it is used: everything missing, cyclic or captive, found at once. Linear in its size."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import pairwise

from polaris.di._planner import captive_scoped, is_transient, missing_dependency
from polaris.di._registration import ServiceLifetime, ServiceRegistration
from polaris.di._wiring import Wiring
from polaris.exceptions import DependencyInjectionError, DependencyResolutionException

CYCLES_MAX = 100
"""How many cycles one report draws; more are counted in a last entry."""


def find_problems(wiring: Wiring) -> list[DependencyInjectionError]:
    """Every problem of the wiring: missing dependencies, then cycles, then captive dependencies."""
    registrations = wiring.registrations()
    return [
        *_find_missing(wiring, registrations),
        *_find_cycles(wiring, registrations),
        *_find_captives(wiring, registrations),
    ]


def _find_missing(wiring: Wiring, registrations: list[ServiceRegistration]) -> Iterator[DependencyInjectionError]:
    for one in registrations:
        if one.is_open:  # proved for each choice of type arguments that somebody asks for
            continue
        for filling in wiring.fillings(one):
            if filling.is_missing:
                yield missing_dependency(wiring, [one.name], filling)


def _find_cycles(wiring: Wiring, registrations: list[ServiceRegistration]) -> Iterator[DependencyInjectionError]:
    """Draw cycles until every dependency that lies on one is in a drawing."""
    group_of = _strong_groups(wiring, registrations)
    drawn: set[tuple[ServiceRegistration, ServiceRegistration]] = set()
    cycles = omitted = 0
    for one in registrations:
        for need in wiring.needs(one):
            if group_of[one] != group_of[need] or (one, need) in drawn:
                continue
            if cycles == CYCLES_MAX:
                omitted += 1
                continue
            cycles += 1
            chain = [one, *_way_back(wiring, group_of, need, one)]
            drawn.update(pairwise(chain))
            yield DependencyResolutionException("cyclic dependency", path=[step.name for step in chain])
    if omitted:
        yield DependencyResolutionException(f"{omitted} more dependencies lie on cycles that are not drawn")


def _way_back(
    wiring: Wiring, group_of: dict[ServiceRegistration, int], start: ServiceRegistration, goal: ServiceRegistration
) -> list[ServiceRegistration]:
    """The shortest chain from `start` to `goal` inside their group."""
    came_from: dict[ServiceRegistration, ServiceRegistration | None] = {start: None}
    queue = deque([start])
    while goal not in came_from:
        current = queue.popleft()
        for need in wiring.needs(current):
            if need not in came_from and group_of[need] == group_of[goal]:
                came_from[need] = current
                queue.append(need)
    chain: list[ServiceRegistration] = []
    step: ServiceRegistration | None = goal
    while step is not None:
        chain.append(step)
        step = came_from[step]
    return chain[::-1]


def _strong_groups(wiring: Wiring, registrations: list[ServiceRegistration]) -> dict[ServiceRegistration, int]:
    """The number of the strongly connected component of each registration (Tarjan 1972, without recursion)."""
    index: dict[ServiceRegistration, int] = {}
    low: dict[ServiceRegistration, int] = {}
    group_of: dict[ServiceRegistration, int] = {}
    pending: list[ServiceRegistration] = []
    for root in registrations:
        if root in index:
            continue
        index[root] = low[root] = len(index)
        pending.append(root)
        route = [(root, wiring.needs(root))]
        while route:
            current, needs = route[-1]
            for need in needs:
                if need not in index:
                    index[need] = low[need] = len(index)
                    pending.append(need)
                    route.append((need, wiring.needs(need)))
                    break
                if need not in group_of:
                    low[current] = min(low[current], index[need])
            else:
                route.pop()
                if route:
                    above = route[-1][0]
                    low[above] = min(low[above], low[current])
                if low[current] == index[current]:
                    _close_group(pending, current, group_of, index[current])
    return group_of


def _close_group(
    pending: list[ServiceRegistration],
    root: ServiceRegistration,
    group_of: dict[ServiceRegistration, int],
    number: int,
) -> None:
    while True:
        member = pending.pop()
        group_of[member] = number
        if member is root:
            return


def _find_captives(wiring: Wiring, registrations: list[ServiceRegistration]) -> Iterator[DependencyInjectionError]:
    """Singletons that would keep something beyond its life, directly or through transients."""
    dependents: dict[ServiceRegistration, list[ServiceRegistration]] = {}
    for one in registrations:
        for need in wiring.needs(one):
            dependents.setdefault(need, []).append(one)
    singletons = [one for one in registrations if one.lifetime is ServiceLifetime.SINGLETON]
    short_lived = [one for one in registrations if one.lifetime is not ServiceLifetime.SINGLETON]
    to_scoped = _transients_above(dependents, [one for one in short_lived if wiring.needs_scope(one)])
    to_teardown = _transients_above(dependents, [one for one in short_lived if _owes_teardown(one)])
    for one in singletons:
        if wiring.needs_scope(one) or any(need in to_scoped for need in wiring.needs(one)):
            yield captive_scoped(wiring, one)
        if any(need in to_teardown for need in wiring.needs(one)):
            names = [step.name for step in wiring.path_to(one, _owes_teardown, through=is_transient)]
            reason = (
                f"captive dependency: the singleton {names[0]} would keep the transient {names[-1]}, "
                "whose teardown then waits for the end of the container: register it as a singleton"
            )
            yield DependencyResolutionException(reason, path=names)


def _owes_teardown(registration: ServiceRegistration) -> bool:
    return is_transient(registration) and registration.has_teardown


def _transients_above(
    dependents: dict[ServiceRegistration, list[ServiceRegistration]], goals: list[ServiceRegistration]
) -> set[ServiceRegistration]:
    """The goals, and the transients that depend on them directly or through other transients."""
    found = set(goals)
    queue = deque(goals)
    while queue:
        for above in dependents.get(queue.popleft(), ()):
            if above not in found and is_transient(above):
                found.add(above)
                queue.append(above)
    return found
