"""What schemathesis loads beside its own checks: what fits the document is accepted, or it cannot be told from there.

Given to it by SCHEMATHESIS_HOOKS; the test beside this file runs it.
"""

from __future__ import annotations

from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance

DEAD_LETTERS = 40

# What JSON Schema cannot say: a cursor comes from a former answer, two parameters may not fit each other, and the
# parameters of an action are JSON values of any shape whose integers have bounds at every depth.
UNSAYABLE = (
    "the next_cursor of a former answer",
    "a time before end",
    "a time at most ",
    "at most 5000 buckets",
    "an integer of at most 64 bits",
)


@schemathesis.check
def what_fits_is_accepted(ctx: CheckContext, response: Response, case: Case[Any]) -> bool | None:
    if response.status_code == 422:
        errors: list[dict[str, Any]] = response.json().get("errors", [])
        if errors and all(error["expected"].startswith(UNSAYABLE) for error in errors):
            return None
    return positive_data_acceptance(ctx, response, case)


@schemathesis.check
def nothing_fails(ctx: CheckContext, response: Response, case: Case[Any]) -> bool | None:
    """A node that is not ready says so with 503: an answer, and no failure."""
    if response.status_code == 503 and case.operation.path in ("/healthz", "/readyz"):
        return None
    return not_a_server_error(ctx, response, case)


@schemathesis.hook
def map_path_parameters(_: HookContext, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Few would hit one of the dead letters by chance."""
    sequence = path_parameters.get("sequence") if path_parameters else None
    if isinstance(sequence, int) and sequence > DEAD_LETTERS:
        return {**(path_parameters or {}), "sequence": sequence % DEAD_LETTERS + 1}
    return path_parameters
