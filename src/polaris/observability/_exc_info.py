"""The exception meant by what people pass as `exc_info`."""

from __future__ import annotations

import sys


def error_of(exc_info: object) -> BaseException | None:
    """The exception: itself, out of a `sys.exc_info()` tuple, or for True the one being handled; else None."""
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple) and len(exc_info) == 3 and isinstance(exc_info[1], BaseException):
        return exc_info[1]
    return sys.exc_info()[1] if exc_info is True else None
