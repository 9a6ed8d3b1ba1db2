"""The exception meant by what people pass as `exc_info`."""

from __future__ import annotations

import sys


def is_exc_info(value: object) -> bool:
    """Whether the value means an exception or none, in one of the ways of the standard library."""
    if value is None or value is True or value is False or isinstance(value, BaseException):
        return True
    return isinstance(value, tuple) and len(value) == 3 and (value[1] is None or isinstance(value[1], BaseException))


def error_of(exc_info: object) -> BaseException | None:
    """The exception: itself, out of a `sys.exc_info()` tuple, or for True the one being handled; else None."""
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple) and len(exc_info) == 3 and isinstance(exc_info[1], BaseException):
        return exc_info[1]
    return sys.exc_info()[1] if exc_info is True else None
