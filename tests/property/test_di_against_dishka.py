"""Random graphs of services: what POLARIS says of them and makes of them, beside dishka, which was written by others.

The lifetimes in the words of dishka: SINGLETON is cached in `Scope.APP`, SCOPED cached in `Scope.REQUEST`, and
TRANSIENT is not cached. A factory of dishka belongs to one scope, while a transient of POLARIS lives wherever it is
asked for: it stands in REQUEST if it needs something scoped, itself or through other transients, else in APP.

Where the two differ by design, and how the comparison allows for it:
- dishka names the first fault and stops; POLARIS names them all. The verdicts must be the same, and the one fault of
  dishka must be among those of POLARIS.
- dishka says of a captive that its scoped dependency is missing in the scope. It is told apart by whether that is
  registered.
- a singleton that keeps a transient with a teardown is a fault for POLARIS and none for dishka: such reports are left
  out.
- dishka tears down a transient of APP with the application, POLARIS with the scope that asked: teardown is not
  compared.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from dishka import AsyncContainer, Provider, make_async_container
from dishka import Scope as DishkaScope
from dishka.exceptions import CycleDependenciesError, GraphMissingFactoryError, NoFactoryError
from hypothesis import event, given, settings
from hypothesis import strategies as st
from tests.faults.sizes import size
from tests.property.test_di_graphs import SCOPED, SINGLETON, TRANSIENT, Spec, World, edges_of, graphs, number_of

from polaris.exceptions import DependencyResolutionException, ServiceNotRegisteredException

Fault = tuple[str, int, int]
"""What is wrong: missing or cyclic and the dependency it is about; or captive and the singleton that keeps, twice."""

ROOT = 2


def needs_scope(specs: list[Spec], number: int) -> bool:
    """Whether a service is scoped, or needs something scoped itself or through transients."""
    pending, seen = [number], {number}
    while pending:
        spec = specs[pending.pop()]
        if spec.registered and spec.lifetime is SCOPED:
            return True
        if spec.registered and spec.lifetime is TRANSIENT:
            fresh = [need for need in spec.needs if need not in seen]
            seen.update(fresh)
            pending += fresh
    return False


def in_dishka(world: World) -> AsyncContainer:
    """A container of dishka with the factories of the world; raises if dishka finds a fault."""
    provider = Provider()
    for number, spec in enumerate(world.specs):
        if not spec.registered:
            continue
        factory: Any = world._factory(number, spec)
        factory.__annotations__ = {f"p{need}": world.classes[need] for need in spec.needs}
        provider.provide(
            factory,
            provides=world.classes[number],
            scope=DishkaScope.REQUEST if needs_scope(world.specs, number) else DishkaScope.APP,
            cache=spec.lifetime is not TRANSIENT,
        )
    return make_async_container(provider)


def fault_in_dishka(specs: list[Spec]) -> set[Fault]:
    """The first fault that dishka names, by the dependencies it is about; empty if the graph is sound."""
    try:
        in_dishka(World(specs))
    except CycleDependenciesError as error:
        ring = [number_of(factory.provides.type_hint.__name__) for factory in error.path]
        return {("cyclic", one, other) for one, other in pairwise([*ring, ring[0]])}
    except GraphMissingFactoryError as error:
        who = number_of(error.path[-1].provides.type_hint.__name__)
        what = number_of(error.requested.type_hint.__name__)
        return {("captive", who, who) if specs[what].registered else ("missing", who, what)}
    return set()


def faults_in_polaris(specs: list[Spec]) -> set[Fault]:
    problems: list[Any] = []
    try:
        World(specs).container.validate()
    except ExceptionGroup as group:
        problems = list(group.exceptions)
    faults: set[Fault] = set()
    for problem in problems:
        if isinstance(problem, ServiceNotRegisteredException):
            faults.add(("missing", number_of(problem.path[-1]), number_of(problem.service)))
        elif problem.reason == "cyclic dependency":
            faults |= {("cyclic", one, other) for one, other in edges_of(problem.path)}
        elif "scope" in problem.reason:
            faults.add(("captive", number_of(problem.path[0]), number_of(problem.path[0])))
        else:
            assert "teardown" in problem.reason
    return faults


@given(graphs(acyclic=False, complete=False))
@settings(max_examples=size(120, 1_200), deadline=None)
def test_the_verdict_on_a_graph_is_that_of_dishka(specs: list[Spec]) -> None:
    theirs, ours = fault_in_dishka(specs), faults_in_polaris(specs)
    assert bool(theirs) == bool(ours)
    assert theirs <= ours
    event(f"dishka: {min((kind for kind, *_ in theirs), default='sound')}")


@given(graphs(acyclic=True, complete=True))
@settings(max_examples=size(80, 800), deadline=None)
def test_the_verdict_on_lifetimes_alone_is_that_of_dishka(specs: list[Spec]) -> None:
    theirs, ours = fault_in_dishka(specs), faults_in_polaris(specs)
    assert bool(theirs) == bool(ours)
    assert theirs <= ours
    event(f"dishka: {min((kind for kind, *_ in theirs), default='sound')}")


def without_captives(specs: list[Spec]) -> list[Spec]:
    """The same graph with every singleton that would keep something scoped made scoped itself."""
    sound = list(specs)
    for number, spec in enumerate(specs):  # needs come before those who need them
        if spec.lifetime is SINGLETON and any(needs_scope(sound, need) for need in spec.needs):
            sound[number] = replace(spec, lifetime=SCOPED)
    return sound


class Sharing:
    """Writes down objects so that two records are equal exactly if the same objects are shared in the same places."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self.record: list[Any] = []

    def note(self, found: Any) -> None:
        self.record.append(self._shape(found))

    def refused(self) -> None:
        self.record.append("refused")

    def _shape(self, made: Any) -> Any:
        known = self._numbers.get(made.serial)
        if known is not None:
            return known
        self._numbers[made.serial] = len(self._numbers)
        return type(made).__name__, tuple(self._shape(part) for part in made.parts)


Requests = list[tuple[int, int]]
"""Where each service is asked for, in scope 0, scope 1 or the container itself, and which."""


async def shared_in_polaris(world: World, requests: Requests) -> list[Any]:
    sharing = Sharing()
    async with world.container.scope() as one, world.container.scope() as other:
        owners: list[Any] = [one, other, world.container]
        for where, which in requests:
            try:
                sharing.note(await owners[where].aresolve(world.classes[which]))
            except DependencyResolutionException:
                sharing.refused()
    await world.container.stop()
    return sharing.record


async def shared_in_dishka(world: World, requests: Requests) -> list[Any]:
    sharing = Sharing()
    container = in_dishka(world)
    async with container() as one, container() as other:
        owners = [one, other, container]
        for where, which in requests:
            try:
                sharing.note(await owners[where].get(world.classes[which]))
            except NoFactoryError:
                sharing.refused()
    await container.close()
    return sharing.record


@given(
    graphs(acyclic=True, complete=True),
    st.lists(st.tuples(st.integers(0, ROOT), st.integers(0, 7)), min_size=2, max_size=20),
)
@settings(max_examples=size(120, 1_200), deadline=None)
def test_the_same_objects_are_shared_as_in_dishka(specs: list[Spec], asked: Requests) -> None:
    """Inside a scope, across scopes, in the container itself, and in the parts of what was asked for."""
    specs = without_captives(specs)
    requests = [(where, which % len(specs)) for where, which in asked]
    ours, theirs = World(specs), World(specs)
    record = asyncio.run(shared_in_polaris(ours, requests))
    assert record == asyncio.run(shared_in_dishka(theirs, requests))
    assert Counter(number for number, _ in ours.built) == Counter(number for number, _ in theirs.built)
    event(f"refused: {'refused' in record}, shared: {any(isinstance(one, int) for one in record)}")


@pytest.mark.parametrize(
    ("specs", "fault"),
    [
        ([Spec(SCOPED, "function", ()), Spec(TRANSIENT, "function", (0,))], set()),
        ([Spec(SINGLETON, "function", (1,)), Spec(SINGLETON, "function", (), registered=False)], {("missing", 0, 1)}),
        ([Spec(SCOPED, "function", (1,)), Spec(TRANSIENT, "function", (0,))], {("cyclic", 0, 1), ("cyclic", 1, 0)}),
        (
            [Spec(SCOPED, "function", ()), Spec(TRANSIENT, "function", (0,)), Spec(SINGLETON, "function", (1,))],
            {("captive", 2, 2)},
        ),
        ([Spec(TRANSIENT, "generator", ()), Spec(SINGLETON, "function", (0,))], set()),
    ],
    ids=["sound", "missing", "cyclic", "captive", "a teardown kept"],
)
def test_both_know_a_fault_when_they_see_one(specs: list[Spec], fault: set[Fault]) -> None:
    """The comparison itself is tried on known answers."""
    assert fault_in_dishka(specs) == faults_in_polaris(specs) == fault


def test_two_records_differ_if_something_else_is_shared() -> None:
    shared, separate = Sharing(), Sharing()
    first, second = World([Spec(SINGLETON, "function", ())]), World([Spec(TRANSIENT, "function", ())])
    for sharing, world in ((shared, first), (separate, second)):
        for _ in range(2):
            sharing.note(world.container.resolve(world.classes[0]))
    assert shared.record == [("S0", ()), 0]
    assert separate.record == [("S0", ()), ("S0", ())]
