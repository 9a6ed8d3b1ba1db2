"""Services replaced for a while, and services wrapped."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from polaris.di import DIContainer, ServiceLifetime
from polaris.exceptions import (
    DependencyInjectionError,
    DependencyResolutionException,
    ServiceNotRegisteredException,
)

SINGLETON = ServiceLifetime.SINGLETON


class Greeter(ABC):
    @abstractmethod
    def greet(self) -> str: ...


class Plain(Greeter):
    def greet(self) -> str:
        return "hello"


class Fake(Greeter):
    def greet(self) -> str:
        return "fake"


class Page:
    def __init__(self, greeter: Greeter) -> None:
        self.greeter = greeter


class Unrelated:
    pass


@pytest.fixture
def wired(container: DIContainer) -> DIContainer:
    container.register_singleton(Greeter, Plain)
    container.register_singleton(Page)
    container.register_singleton(Unrelated)
    return container


@pytest.mark.parametrize("replacement", [Fake(), Fake, lambda: Fake()], ids=["object", "class", "function"])
def test_an_override_is_seen_by_all_that_depends_on_it_and_ends_without_a_trace(
    wired: DIContainer, replacement: Any
) -> None:
    page, unrelated = wired.resolve(Page), wired.resolve(Unrelated)
    with wired.override(Greeter, replacement):
        assert wired.resolve(Greeter).greet() == "fake"
        assert wired.resolve(Page).greeter is wired.resolve(Greeter)
        assert wired.resolve(Page) is wired.resolve(Page) is not page
        assert wired.resolve(Unrelated) is unrelated
        assert [greeter.greet() for greeter in wired.resolve_all(Greeter)] == ["fake"]
        with wired.scope() as scope:
            assert scope.resolve(Page).greeter.greet() == "fake"
    assert wired.resolve(Page) is page
    assert wired.resolve(Greeter) is page.greeter
    assert page.greeter.greet() == "hello"


def test_a_singleton_first_built_inside_an_override_does_not_outlive_it(wired: DIContainer) -> None:
    with wired.override(Greeter, Fake()):
        inside = wired.resolve(Page)
        unrelated = wired.resolve(Unrelated)
    assert wired.resolve(Page) is not inside
    assert wired.resolve(Page).greeter.greet() == "hello"
    assert wired.resolve(Unrelated) is unrelated


def test_an_override_ends_also_when_the_body_fails(wired: DIContainer) -> None:
    def fail_inside() -> None:
        with wired.override(Greeter, Fake()):
            raise OSError

    with pytest.raises(OSError):
        fail_inside()
    assert wired.resolve(Greeter).greet() == "hello"


def test_overrides_nest_and_must_end_in_reverse_order(wired: DIContainer) -> None:
    wired.register_instance(int, 1)

    class Both:
        def __init__(self, greeter: Greeter, size: int) -> None:
            self.all = greeter.greet(), size

    wired.register_singleton(Both)
    with wired.override(Greeter, Fake()):
        outer = wired.resolve(Both)
        with wired.override(int, 2), wired.override(Greeter, Plain()):
            assert wired.resolve(Both).all == ("hello", 2)
        assert wired.resolve(Both) is outer
        assert outer.all == ("fake", 1)
    assert wired.resolve(Both).all == ("hello", 1)
    first, second = wired.override(int, 5), wired.override(int, 6)
    first.__enter__()
    second.__enter__()
    with pytest.raises(DependencyInjectionError, match="reverse order"):
        first.__exit__()
    second.__exit__()
    first.__exit__()
    assert wired.resolve(int) == 1


def test_a_replacement_that_does_not_fit_is_refused_at_once(wired: DIContainer) -> None:
    for wrong in (3, Unrelated):
        with pytest.raises(DependencyResolutionException, match="cannot be registered so"):
            wired.override(Greeter, wrong)


def test_an_override_of_one_key_leaves_the_others(container: DIContainer) -> None:
    container.register_instance(int, 1)
    container.register_instance(int, 2, key="b")
    with container.override(int, 3, key="b"):
        assert (container.resolve(int), container.resolve(int, key="b")) == (1, 3)
        assert container.resolve_all(int) == [1, 3]
    assert container.resolve_all(int) == [1, 2]


def test_what_was_missing_may_be_supplied_by_an_override(container: DIContainer) -> None:
    container.register_singleton(Page)
    with container.override(Greeter, Fake):
        container.validate()
        assert container.resolve(Page).greeter is container.resolve(Greeter)
    with pytest.raises(ServiceNotRegisteredException):
        container.resolve(Page)


def test_registering_inside_an_override_stays(wired: DIContainer) -> None:
    with wired.override(Greeter, Fake()):
        wired.register_instance(int, 3)
        assert wired.resolve(int) == 3
    assert wired.resolve(int) == 3


async def test_what_an_override_built_is_torn_down_at_its_end(wired: DIContainer) -> None:
    closed: list[str] = []

    async def make(unrelated: Unrelated) -> AsyncIterator[Greeter]:
        yield Fake()
        await asyncio.sleep(1)
        closed.append("greeter")

    def page(greeter: Greeter) -> Iterator[Page]:
        yield Page(greeter)
        closed.append("page")

    wired.register_factory(Page, page, lifetime=SINGLETON)
    original = wired.resolve(Page)
    async with wired.override(Greeter, make):
        assert (await wired.aresolve(Page)).greeter.greet() == "fake"
        assert closed == []
    assert closed == ["page", "greeter"]
    assert wired.resolve(Page) is original
    await wired.stop()
    assert closed == ["page", "greeter", "page"]


async def test_errors_of_teardown_at_the_end_of_an_override_come_out_together(wired: DIContainer) -> None:
    def make() -> Iterator[Greeter]:
        yield Fake()
        raise OSError

    def enter_and_leave() -> None:
        with wired.override(Greeter, make):
            wired.resolve(Greeter)

    with pytest.raises(ExceptionGroup):
        enter_and_leave()
    assert wired.resolve(Greeter).greet() == "hello"


class Loud(Greeter):
    def __init__(self, inner: Greeter, mark: str = "!") -> None:
        self.inner, self.mark = inner, mark

    def greet(self) -> str:
        return self.inner.greet().upper() + self.mark


def test_a_decorator_receives_the_original_and_whatever_else_it_needs(wired: DIContainer) -> None:
    wired.register_instance(str, "?")
    wired.decorate(Greeter, Loud)
    assert wired.resolve(Greeter).greet() == "HELLO?"
    assert wired.resolve(Page).greeter is wired.resolve(Greeter)
    assert len(wired.resolve_all(Greeter)) == 1


def test_decorators_stack_and_keep_the_lifetime_and_the_live_original(wired: DIContainer) -> None:
    original = wired.resolve(Greeter)

    def quoted(greeter: Greeter) -> Greeter:
        class Quoted(Greeter):
            inner = greeter

            def greet(self) -> str:
                return f"'{greeter.greet()}'"

        return Quoted()

    wired.decorate(Greeter, Loud)
    wired.decorate(Greeter, quoted)
    assert wired.resolve(Greeter).greet() == "'HELLO!'"
    assert wired.resolve(Greeter) is wired.resolve(Greeter)
    outer: Any = wired.resolve(Greeter)
    assert outer.inner.inner is original
    wired.validate()


async def test_decorators_may_be_async_or_have_a_teardown_and_follow_the_original_in_life(
    container: DIContainer,
) -> None:
    closed: list[str] = []

    def plain() -> Iterator[Greeter]:
        yield Plain()
        closed.append("plain")

    async def loud(inner: Greeter) -> AsyncIterator[Greeter]:
        yield Loud(inner)
        closed.append("loud")

    container.register_factory(Greeter, plain, lifetime=ServiceLifetime.SCOPED)
    container.decorate(Greeter, loud)
    async with container.scope() as scope:
        greeter = await scope.aresolve(Greeter)
        assert greeter.greet() == "HELLO!"
        assert await scope.aresolve(Greeter) is greeter
    assert closed == ["loud", "plain"]


def test_a_decorator_must_have_a_place_for_the_original(wired: DIContainer) -> None:
    with pytest.raises(DependencyResolutionException, match="no parameter of the decorator"):
        wired.decorate(Greeter, Fake)
    wired.decorate(Greeter, lambda inner: Loud(inner))
    assert wired.resolve(Greeter).greet() == "HELLO!"


def test_there_must_be_something_to_decorate(container: DIContainer) -> None:
    with pytest.raises(ServiceNotRegisteredException):
        container.decorate(Greeter, Loud)


async def test_a_hosted_decorator_stands_for_the_hosted_original(container: DIContainer) -> None:
    events: list[str] = []

    class Server:
        def start(self) -> None:
            events.append("start")

        def stop(self) -> None:
            events.append("stop")

    class Wrapped(Server):
        def __init__(self, inner: Server) -> None:
            self.inner = inner

        def start(self) -> None:
            self.inner.start()

        def stop(self) -> None:
            self.inner.stop()

    container.register_singleton(Server)
    container.decorate(Server, Wrapped)
    await container.start()
    await container.stop()
    assert events == ["start", "stop"]
