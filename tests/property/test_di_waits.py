"""Random factories that fetch from the container in their bodies, asked for by many tasks: nobody waits for ever."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st
from tests.faults.sizes import size

from polaris.di import DIContainer, ServiceLifetime
from polaris.exceptions import DependencyResolutionException
from polaris.testing import run_virtual

FOR_EVER_S = 10_000
"""Far more virtual time than everything together can take."""


@dataclass(frozen=True)
class Body:
    """What a factory does before it returns: it waits a while, fetches services, and waits again."""

    before_s: int
    needs: tuple[int, ...]
    in_tasks: bool
    after_s: int


@dataclass(frozen=True)
class Caller:
    """A task that begins some time and asks for services one after the other."""

    begin_s: int
    asks: tuple[int, ...]


def bodies(*, acyclic: bool) -> st.SearchStrategy[list[Body]]:
    @st.composite
    def draw_bodies(draw: st.DrawFn) -> list[Body]:
        size = draw(st.integers(2, 5))
        found = []
        for number in range(size):
            others = list(range(number if acyclic else size))
            needs = draw(st.lists(st.sampled_from(others), max_size=2, unique=True)) if others else []
            delays = st.integers(0, 2)
            found.append(Body(draw(delays), tuple(needs), draw(st.booleans()), draw(delays)))
        return found

    return draw_bodies()


CALLERS = st.lists(
    st.builds(Caller, st.integers(0, 4), st.lists(st.integers(0, 4), min_size=1, max_size=3).map(tuple)),
    min_size=1,
    max_size=6,
)


def outcomes_of(found: list[Body], callers: list[Caller]) -> list[Any]:
    """What every question of every caller came to, an instance or an error."""
    container = DIContainer()
    classes = [type(f"S{number}", (), {}) for number in range(len(found))]

    def factory(number: int) -> Any:
        async def make() -> Any:
            body = found[number]
            await asyncio.sleep(body.before_s)
            if body.in_tasks:
                async with asyncio.TaskGroup() as group:
                    for need in body.needs:
                        group.create_task(container.aresolve(classes[need]))
            else:
                for need in body.needs:
                    await container.aresolve(classes[need])
            await asyncio.sleep(body.after_s)
            return classes[number]()

        return make

    for number, cls in enumerate(classes):
        container.register_factory(cls, factory(number), lifetime=ServiceLifetime.SINGLETON)
    outcomes: list[Any] = []

    async def call(caller: Caller) -> None:
        await asyncio.sleep(caller.begin_s)
        for which in caller.asks:
            try:
                outcomes.append(await container.aresolve(classes[which % len(classes)]))
            except DependencyResolutionException as error:
                outcomes.append(error)

    async def run() -> None:
        async with asyncio.timeout(FOR_EVER_S):
            await asyncio.gather(*map(call, callers))

    run_virtual(run())
    return outcomes


@given(bodies(acyclic=True), CALLERS)
@settings(max_examples=size(80, 800), deadline=None)
def test_services_that_do_not_need_each_other_in_a_ring_are_all_had_and_built_once(
    found: list[Body], callers: list[Caller]
) -> None:
    outcomes = outcomes_of(found, callers)
    assert [outcome for outcome in outcomes if isinstance(outcome, Exception)] == []
    assert len(set(outcomes)) == len({type(outcome) for outcome in outcomes})


@given(bodies(acyclic=False), CALLERS)
@settings(max_examples=size(120, 1_200), deadline=None)
def test_in_a_ring_everybody_gets_an_instance_or_an_error_and_nobody_waits_for_ever(
    found: list[Body], callers: list[Caller]
) -> None:
    outcomes = outcomes_of(found, callers)
    instances = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
    assert len(outcomes) == sum(len(caller.asks) for caller in callers)
    assert len(set(instances)) == len({type(outcome) for outcome in instances})
    event(f"errors: {len(instances) < len(outcomes)}")
