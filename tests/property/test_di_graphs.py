"""Random graphs of services: the container's verdicts and lives against a model that tries everything."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from polaris.di import DIContainer, ServiceLifetime
from polaris.exceptions import (
    DependencyInjectionError,
    DependencyResolutionException,
    ServiceNotRegisteredException,
)

SINGLETON, SCOPED, TRANSIENT = ServiceLifetime.SINGLETON, ServiceLifetime.SCOPED, ServiceLifetime.TRANSIENT
KINDS = ["function", "coroutine", "generator", "async generator"]


@dataclass(frozen=True)
class Spec:
    """One service: how long it lives, how it is made, what it needs, and whether anybody registers it."""

    lifetime: ServiceLifetime
    kind: str
    needs: tuple[int, ...]
    registered: bool = True


def graphs(*, acyclic: bool, complete: bool) -> st.SearchStrategy[list[Spec]]:
    @st.composite
    def draw_graph(draw: st.DrawFn) -> list[Spec]:
        size = draw(st.integers(1, 8))
        specs = []
        for number in range(size):
            others = list(range(number if acyclic else size))
            needs = draw(st.lists(st.sampled_from(others), max_size=3, unique=True)) if others else []
            specs.append(
                Spec(
                    draw(st.sampled_from(list(ServiceLifetime))),
                    draw(st.sampled_from(KINDS)),
                    tuple(needs),
                    registered=complete or draw(st.integers(0, 5)) > 0,
                )
            )
        return specs

    return draw_graph()


class World:
    """A container filled from specs, and a record of what happened in it."""

    def __init__(self, specs: list[Spec]) -> None:
        self.specs = specs
        self.classes = [type(f"S{number}", (), {}) for number in range(len(specs))]
        self.built: list[tuple[int, int]] = []
        self.closed: list[int] = []
        self.serial = 0
        self.container = DIContainer()
        for number, spec in enumerate(specs):
            if spec.registered:
                self.container.register_factory(
                    self.classes[number], self._factory(number, spec), lifetime=spec.lifetime
                )

    def _factory(self, number: int, spec: Spec) -> Callable[..., Any]:
        def build(parts: tuple[Any, ...]) -> Any:
            made: Any = self.classes[number]()
            self.serial += 1
            made.serial, made.parts = self.serial, parts
            self.built.append((number, made.serial))
            return made

        def function(*parts: Any) -> Any:
            return build(parts)

        async def coroutine(*parts: Any) -> Any:
            await asyncio.sleep(0)
            return build(parts)

        def generator(*parts: Any) -> Iterator[Any]:
            made = build(parts)
            yield made
            self.closed.append(made.serial)

        async def async_generator(*parts: Any) -> AsyncIterator[Any]:
            made = build(parts)
            await asyncio.sleep(0)
            yield made
            self.closed.append(made.serial)

        factory: Any = dict(zip(KINDS, (function, coroutine, generator, async_generator), strict=True))[spec.kind]
        factory.__signature__ = inspect.Signature(
            [
                inspect.Parameter(f"p{need}", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=self.classes[need])
                for need in spec.needs
            ]
        )
        result: Callable[..., Any] = factory
        return result


def simple_paths(specs: list[Spec], start: int) -> Iterator[tuple[int, ...]]:
    """Every path of needs from a service, one past each repetition: brute force."""
    pending: list[tuple[int, ...]] = [(start,)]
    while pending:
        path = pending.pop()
        yield path
        if path[-1] in path[:-1] or not specs[path[-1]].registered:
            continue
        pending += [(*path, need) for need in specs[path[-1]].needs]


def model(specs: list[Spec]) -> tuple[set[tuple[int, int]], set[tuple[int, int]], set[int], set[int]]:
    """Missing (who, what), edges on cycles, singletons that keep something scoped, and those that keep a teardown."""
    missing, on_cycle = set(), set()
    keeps_scoped, keeps_teardown = set(), set()
    for number, spec in enumerate(specs):
        if not spec.registered:
            continue
        for path in simple_paths(specs, number):
            if len(path) == 2 and not specs[path[1]].registered:
                missing.add((path[0], path[1]))
            if len(path) > 1 and path[0] == path[-1]:
                on_cycle |= set(pairwise(path))
            through = [specs[step] for step in path[1:-1]]
            end = specs[path[-1]]
            if spec.lifetime is not SINGLETON or len(path) < 2 or not end.registered:
                continue
            if all(step.lifetime is TRANSIENT for step in through):
                if end.lifetime is SCOPED:
                    keeps_scoped.add(number)
                if end.lifetime is TRANSIENT and "generator" in end.kind:
                    keeps_teardown.add(number)
    return missing, on_cycle, keeps_scoped, keeps_teardown


def number_of(name: str) -> int:
    return int(name.removeprefix("S"))


def edges_of(path: tuple[str, ...]) -> set[tuple[int, int]]:
    return set(pairwise(number_of(name) for name in path))


@given(graphs(acyclic=False, complete=False))
@settings(max_examples=300, deadline=None)
def test_validate_reports_exactly_what_brute_force_finds(specs: list[Spec]) -> None:
    world = World(specs)
    problems: list[Any] = []
    try:
        world.container.validate()
    except ExceptionGroup as group:
        problems = list(group.exceptions)
    missing, on_cycle, keeps_scoped, keeps_teardown = model(specs)
    found_missing = {
        (number_of(one.path[-1]), number_of(one.service))
        for one in problems
        if isinstance(one, ServiceNotRegisteredException)
    }
    others = [one for one in problems if isinstance(one, DependencyResolutionException)]
    cycles = [one for one in others if one.reason == "cyclic dependency"]
    captives = [one for one in others if one not in cycles]
    assert found_missing == missing
    assert {edge for one in cycles for edge in edges_of(one.path)} == on_cycle
    assert {number_of(one.path[0]) for one in captives if "scope" in one.reason} == keeps_scoped
    assert {number_of(one.path[0]) for one in captives if "teardown" in one.reason} == keeps_teardown
    for one in others:  # every drawn path is a path
        assert all(need in specs[who].needs for who, need in edges_of(one.path))
    assert world.built == []
    event(f"problems: {min(len(problems), 5)}")


def reachable(specs: list[Spec], start: int) -> set[int]:
    return {step for path in simple_paths(specs, start) for step in path}


@given(graphs(acyclic=False, complete=False), st.booleans())
@settings(max_examples=200, deadline=None)
def test_resolution_succeeds_exactly_where_the_model_says(specs: list[Spec], in_scope: bool) -> None:
    world = World(specs)
    missing, on_cycle, keeps_scoped, _ = model(specs)

    async def ask_for(number: int) -> bool:
        scope = world.container.scope()
        owner: Any = scope if in_scope else world.container
        before = list(world.built)
        try:
            await owner.aresolve(world.classes[number])
        except DependencyInjectionError:
            assert world.built == before  # nothing is half built
            return False
        finally:
            await scope.aclose()
        return True

    async def ask_for_all() -> list[bool]:
        outcomes = [await ask_for(number) for number in range(len(specs))]
        await world.container.stop()
        return outcomes

    for number, succeeded in enumerate(asyncio.run(ask_for_all())):
        involved = reachable(specs, number)
        sound = (
            specs[number].registered
            and not any(who in involved for who, _ in missing | on_cycle)
            and not involved & keeps_scoped
        )
        if not in_scope:
            needs_scope = any(
                specs[path[-1]].lifetime is SCOPED
                for path in simple_paths(specs, number)
                if all(specs[step].lifetime is not SINGLETON for step in path)
            )
            sound = sound and not needs_scope
        assert succeeded == sound, (number, specs)


@given(
    graphs(acyclic=True, complete=True),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7)), min_size=1, max_size=30),
)
@settings(max_examples=200, deadline=None)
def test_lifetimes_and_teardown_follow_the_model(specs: list[Spec], requests: list[tuple[int, int]]) -> None:
    """Requests from two scopes and the container: one instance each, torn down once, dependents before dependencies."""
    _, _, keeps_scoped, _ = model(specs)
    world = World(specs)
    found: dict[tuple[int, int], set[int]] = {}

    async def run() -> None:
        scopes = [world.container.scope(), world.container.scope()]
        for where, which in requests:
            number = which % len(specs)
            owner: Any = world.container if where == 2 else scopes[where]
            try:
                made = await owner.aresolve(world.classes[number])
            except DependencyResolutionException:
                continue
            lifetime = specs[number].lifetime
            place = {SINGLETON: 2, SCOPED: where, TRANSIENT: 3 + len(found)}[lifetime]
            found.setdefault((number, place), set()).add(made.serial)
            assert [type(part) for part in made.parts] == [world.classes[need] for need in specs[number].needs]
        for scope in scopes:
            before = len(world.closed)
            await scope.aclose()
            assert world.closed[before:] == sorted(world.closed[before:], reverse=True)
        before = len(world.closed)
        await world.container.stop()
        assert world.closed[before:] == sorted(world.closed[before:], reverse=True)

    asyncio.run(run())
    assert all(len(serials) == 1 for serials in found.values())
    with_teardown = [serial for number, serial in world.built if "generator" in specs[number].kind]
    assert Counter(world.closed) == Counter(with_teardown)
    singles = Counter(number for number, _ in world.built if specs[number].lifetime is SINGLETON)
    assert all(count == 1 for count in singles.values())
    event(f"captives: {bool(keeps_scoped)}")


@given(graphs(acyclic=True, complete=True), st.data())
@settings(max_examples=150, deadline=None)
def test_stop_runs_exactly_where_start_began_and_order_follows_the_graph(
    specs: list[Spec], data: st.DataObject
) -> None:
    failing = data.draw(st.sets(st.integers(0, len(specs) - 1), max_size=2))
    specs = [Spec(SINGLETON, "function", spec.needs) for spec in specs]
    classes: list[type] = []
    log: list[tuple[str, int]] = []
    container = DIContainer()

    def hosted(number: int) -> type:
        class Hosted:
            def __init__(self, *parts: object) -> None:
                pass

            async def start(self) -> None:
                log.append(("start", number))
                await asyncio.sleep(0)
                if number in failing:
                    raise OSError
                log.append(("up", number))

            async def stop(self) -> None:
                log.append(("stop", number))
                await asyncio.sleep(0)
                log.append(("down", number))

        return Hosted

    for number, spec in enumerate(specs):
        cls: Any = hosted(number)
        cls.__signature__ = inspect.Signature(
            [
                inspect.Parameter(f"p{need}", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=classes[need])
                for need in spec.needs
            ]
        )
        classes.append(cls)
        container.register_singleton(cls)

    async def run() -> None:
        try:
            await container.start()
        except ExceptionGroup as group:
            assert failing
            assert all(isinstance(error, OSError) for error in group.exceptions)
        else:
            assert not failing & {number for kind, number in log if kind == "start"}
        await container.stop()

    asyncio.run(run())
    position = {entry: index for index, entry in enumerate(log)}
    assert len(position) == len(log)  # nothing happened twice
    begun = {number for kind, number in log if kind == "start"}
    assert begun == {number for kind, number in log if kind == "stop"}
    for number in begun:
        for need in specs[number].needs:
            assert position["up", need] < position["start", number]
            assert position["down", number] < position["stop", need]
    if not failing:
        assert begun == set(range(len(specs)))


def test_the_model_knows_a_captive_when_it_sees_one() -> None:
    """The oracle itself is tried on known answers."""
    specs = [
        Spec(SCOPED, "function", ()),
        Spec(TRANSIENT, "generator", (0,)),
        Spec(SINGLETON, "function", (1, 4)),
        Spec(SINGLETON, "function", (3,)),
        Spec(SINGLETON, "function", (), registered=False),
    ]
    assert model(specs) == ({(2, 4)}, {(3, 3)}, {2}, {2})


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_the_world_can_be_resolved(kind: str) -> None:
    world = World([Spec(SINGLETON, kind, ())])
    assert isinstance(await world.container.aresolve(world.classes[0]), world.classes[0])
    await world.container.stop()
    assert bool(world.closed) == ("generator" in kind)
