"""A dictionary that cannot be changed: what value types hold instead of the caller's own mapping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class FrozenDict(dict[K, V]):
    """A `dict` whose content is fixed when it is made.

    A subclass of `dict`, because encoders and comparisons treat it as one at full speed. Freezing is shallow. Copies
    and pickles are equal frozen dictionaries; `dict(frozen)` gives a changeable copy.
    """

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        msg = "this mapping is part of an immutable value; make a changed copy with dict(...)"
        raise TypeError(msg)

    __setitem__ = _refuse
    __delitem__ = _refuse
    __ior__ = _refuse
    clear = _refuse
    pop = _refuse
    popitem = _refuse
    setdefault = _refuse
    update = _refuse

    def copy(self) -> dict[K, V]:
        return dict(self)

    def __copy__(self) -> FrozenDict[K, V]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenDict[K, V]:
        from copy import deepcopy

        return FrozenDict(deepcopy(dict(self), memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)


EMPTY: FrozenDict[Any, Any] = FrozenDict()


def frozen(mapping: Mapping[K, V]) -> FrozenDict[K, V]:
    """`mapping` itself when it is frozen already, a frozen copy otherwise."""
    return mapping if type(mapping) is FrozenDict else FrozenDict(mapping)
