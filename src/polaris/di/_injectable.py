"""A class that promises, when it is defined, that the container can fill its constructor."""

from __future__ import annotations

import inspect

from polaris.exceptions import DependencyResolutionException

_VARIADIC = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


class Injectable:
    """Subclass it to learn of an unannotated constructor parameter at class creation instead of at start.

    Every parameter of an `__init__` defined in the subclass must be annotated; one with a default may go without, and
    `*args` and `**kwargs` are left alone. A subclass without its own `__init__` is fine. It is a promise only: the
    container wires any class, and nothing is written onto this one.
    Raises DependencyResolutionException, naming all the parameters; the class is then not created.
    """

    __slots__ = ()

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        constructor = vars(cls).get("__init__")
        if constructor is None:
            return
        _, *parameters = inspect.signature(constructor).parameters.values()
        lacking = [
            parameter.name
            for parameter in parameters
            if parameter.annotation is inspect.Parameter.empty
            and parameter.default is inspect.Parameter.empty
            and parameter.kind not in _VARIADIC
        ]
        if lacking:
            names = ", ".join(repr(name) for name in lacking)
            reason = f"{cls.__name__} is not injectable: no annotation for constructor parameter {names}"
            raise DependencyResolutionException(reason)
