"""What an operation is about: found out by letting it speak to a session that only listens."""

from __future__ import annotations

from typing import Any, cast

from polaris.storage._operation import Operation, Session

Target = tuple[str, str | None]
"""A model and a collection of it; None stands for all of them."""

ANYTHING: Target = ("", None)
_WITH_COLLECTIONS = frozenset({"time_series", "documents"})


class _Listener:
    """Takes the place of a session and of its models: the first call says which method is meant."""

    def __init__(self, model: str = "") -> None:
        self._model = model
        self.target = ANYTHING

    def __getattr__(self, name: str) -> Any:
        if self._model:
            return self._hear
        model = _Listener(name)
        model.__dict__["parent"] = self
        return model

    def _hear(self, *arguments: Any, **_: Any) -> None:
        first = arguments[0] if arguments else None
        named = self._model in _WITH_COLLECTIONS and isinstance(first, str)
        self.__dict__["parent"].target = (self._model, first if named else None)


def target_of(operation: Operation[Any]) -> Target:
    """The model and collection that the operation reads or writes: it calls one method of one model."""
    listener = _Listener()
    operation.run(cast(Session, listener))
    return listener.target


def overlap(one: Target, other: Target) -> bool:
    """Whether what one writes the other may see."""
    if ANYTHING in (one, other):
        return True
    return one[0] == other[0] and (one[1] == other[1] or one[1] is None or other[1] is None)
