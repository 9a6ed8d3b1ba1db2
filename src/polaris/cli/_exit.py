"""How the command line ends: documented exit codes, and one clear line a problem on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import NoReturn

from polaris.exceptions import (
    BusConnectionError,
    ConfigurationError,
    InvalidTopicError,
    InvalidValueError,
    PolarisException,
    RequestTimeoutError,
    StoreConnectionError,
    StoreLockedError,
)

OK = 0
FAILED = 1
"""What was asked for did not succeed, or was refused."""
USAGE = 2
"""The arguments are wrong; nothing was done."""
NOTHING_FOUND = 4
"""No such system, metric or value in the store."""
UNAVAILABLE = 69
"""Node, bus or store cannot be reached (EX_UNAVAILABLE of sysexits.h)."""
TIMED_OUT = 75
"""No answer in time; the outcome is open (EX_TEMPFAIL)."""
MISCONFIGURED = 78
"""The configuration is refused, or rules out what was asked for; nothing was started (EX_CONFIG)."""
INTERRUPTED = 130
"""Ctrl-C before the work was done."""


def exit_code_of(error: PolarisException) -> int:
    """The exit code that stands for `error`."""
    if isinstance(error, (InvalidValueError, InvalidTopicError)):
        return USAGE
    if isinstance(error, (ConfigurationError, StoreLockedError)):
        return MISCONFIGURED
    if isinstance(error, (BusConnectionError, StoreConnectionError)):
        return UNAVAILABLE
    if isinstance(error, (RequestTimeoutError, TimeoutError)):
        return TIMED_OUT
    return FAILED


def complain(text: str) -> None:
    """One line on standard error."""
    print(f"polaris: {text}", file=sys.stderr)


def leave(error: PolarisException) -> NoReturn:
    """Say what is wrong, each problem on its own line, and exit with the code of the error."""
    _explain(error)
    raise SystemExit(exit_code_of(error))


def leave_all(group: ExceptionGroup[PolarisException]) -> NoReturn:
    """As `leave`, for errors that came together; the first decides on the code."""
    errors = list(_leaves(group))
    for error in errors:
        _explain(error)
    raise SystemExit(exit_code_of(errors[0]))


def _explain(error: PolarisException) -> None:
    problems = error.problems if isinstance(error, ConfigurationError) and error.problems else (error.message,)
    for problem in problems:
        complain(problem)


def _leaves(group: ExceptionGroup[PolarisException]) -> Iterator[PolarisException]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
