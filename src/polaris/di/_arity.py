"""Calls that get their arguments first, written out for each number of arguments.

A loop over five arguments costs as much as two constructors; a call that is written out costs the call alone. Each
argument stands on a line of its own, so the line on which an error left the call tells whose provider raised it:
nothing has to be counted on the way. Calls of more arguments than are written out here use a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from polaris.di._blame import blame
from polaris.di._registration import ServiceRegistration
from polaris.di._store import Store

Function = Callable[..., Any]
Getters = Sequence[Callable[..., Any]]
Who = tuple[ServiceRegistration, ...]
"""Whose each argument is, in order, and last whose the call itself is."""

_LINE_OF_FIRST = 3
"""How far below its `def` a written call has its first argument; the call itself stands one line above."""


def call_of(function: Function, getters: Getters, names: Sequence[str], who: Who) -> Callable[[], Any]:
    """A call of `function` with what the getters give; an argument with a name that is not empty is passed by it.

    An error of a getter or of the function is marked with the service that it came from.
    """
    written = None if any(names) else _WRITTEN.get(len(getters))
    return _looped(function, getters, names, who) if written is None else written(function, getters, who)


def scoped_call_of(function: Function, getters: Getters, names: Sequence[str], who: Who) -> Callable[[Store], Any]:
    """As `call_of`, of getters that take the store of the scope that asks."""
    written = None if any(names) else _WRITTEN_SCOPED.get(len(getters))
    return _looped_scoped(function, getters, names, who) if written is None else written(function, getters, who)


def _blame_line(error: Exception, who: Who) -> NoReturn:
    """Blame the service on whose line the written call was left."""
    traceback = error.__traceback__
    assert traceback is not None  # noqa: S101 - it was caught in the frame that the traceback begins with
    place = traceback.tb_lineno - traceback.tb_frame.f_code.co_firstlineno - _LINE_OF_FIRST
    blame(error, who[place])  # the call itself: -1, the last


def _looped(function: Function, getters: Getters, names: Sequence[str], who: Who) -> Callable[[], Any]:
    def call() -> Any:
        args: list[Any] = []
        try:
            for get in getters:
                args.append(get())  # noqa: PERF401 - the length of the list tells who raised
            return _apply(function, args, names)
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            blame(error, who[len(args)])

    return call


def _looped_scoped(function: Function, getters: Getters, names: Sequence[str], who: Who) -> Callable[[Store], Any]:
    def call(store: Store) -> Any:
        args: list[Any] = []
        try:
            for get in getters:
                args.append(get(store))  # noqa: PERF401 - the length of the list tells who raised
            return _apply(function, args, names)
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            blame(error, who[len(args)])

    return call


def _apply(function: Function, values: list[Any], names: Sequence[str]) -> Any:
    args = [value for value, name in zip(values, names, strict=True) if not name]
    return function(*args, **{name: value for value, name in zip(values, names, strict=True) if name})


def _one(function: Function, getters: Getters, who: Who) -> Callable[[], Any]:
    [get_1] = getters

    def call() -> Any:
        try:
            return function(
                get_1(),
            )
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            _blame_line(error, who)

    return call


def _two(function: Function, getters: Getters, who: Who) -> Callable[[], Any]:
    get_1, get_2 = getters

    def call() -> Any:
        try:
            return function(
                get_1(),
                get_2(),
            )
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            _blame_line(error, who)

    return call


def _three(function: Function, getters: Getters, who: Who) -> Callable[[], Any]:
    get_1, get_2, get_3 = getters

    def call() -> Any:
        try:
            return function(
                get_1(),
                get_2(),
                get_3(),
            )
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            _blame_line(error, who)

    return call


def _four(function: Function, getters: Getters, who: Who) -> Callable[[], Any]:
    get_1, get_2, get_3, get_4 = getters

    def call() -> Any:
        try:
            return function(
                get_1(),
                get_2(),
                get_3(),
                get_4(),
            )
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            _blame_line(error, who)

    return call


def _five(function: Function, getters: Getters, who: Who) -> Callable[[], Any]:
    get_1, get_2, get_3, get_4, get_5 = getters

    def call() -> Any:
        try:
            return function(
                get_1(),
                get_2(),
                get_3(),
                get_4(),
                get_5(),
            )
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            _blame_line(error, who)

    return call


def _six(function: Function, getters: Getters, who: Who) -> Callable[[], Any]:
    get_1, get_2, get_3, get_4, get_5, get_6 = getters

    def call() -> Any:
        try:
            return function(
                get_1(),
                get_2(),
                get_3(),
                get_4(),
                get_5(),
                get_6(),
            )
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            _blame_line(error, who)

    return call


def _one_scoped(function: Function, getters: Getters, who: Who) -> Callable[[Store], Any]:
    [get_1] = getters

    def call(store: Store) -> Any:
        try:
            return function(
                get_1(store),
            )
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            _blame_line(error, who)

    return call


def _two_scoped(function: Function, getters: Getters, who: Who) -> Callable[[Store], Any]:
    get_1, get_2 = getters

    def call(store: Store) -> Any:
        try:
            return function(
                get_1(store),
                get_2(store),
            )
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            _blame_line(error, who)

    return call


def _three_scoped(function: Function, getters: Getters, who: Who) -> Callable[[Store], Any]:
    get_1, get_2, get_3 = getters

    def call(store: Store) -> Any:
        try:
            return function(
                get_1(store),
                get_2(store),
                get_3(store),
            )
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            _blame_line(error, who)

    return call


def _four_scoped(function: Function, getters: Getters, who: Who) -> Callable[[Store], Any]:
    get_1, get_2, get_3, get_4 = getters

    def call(store: Store) -> Any:
        try:
            return function(
                get_1(store),
                get_2(store),
                get_3(store),
                get_4(store),
            )
        except Exception as error:  # boundary: user code; re-raised with the name of its service
            _blame_line(error, who)

    return call


_WRITTEN = {1: _one, 2: _two, 3: _three, 4: _four, 5: _five, 6: _six}
_WRITTEN_SCOPED = {1: _one_scoped, 2: _two_scoped, 3: _three_scoped, 4: _four_scoped}
