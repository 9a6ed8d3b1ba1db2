"""Errors as RFC 9457 problem documents: typed, with stable codes, and with no inner detail of the node."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from polaris.exceptions import (
    InvalidValueError,
    MethodNotAllowedError,
    NotFoundError,
    PolarisException,
    RequestError,
)

PROBLEM_TYPE = "application/problem+json"


class ParameterProblem(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter that was refused, and what would have been accepted."""

    parameter: str
    expected: str


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error as RFC 9457 describes it; `code` is stable and safe to match on."""

    type: str
    title: str
    status: int
    code: str
    instance: str | None = None
    correlation_id: str | None = None
    detail: str | None = None
    errors: tuple[ParameterProblem, ...] = ()


def problem_response(error: PolarisException, *, headers: dict[str, str] | None = None) -> Response:
    """The public form of `error`.

    Only errors about the request itself say more than title and code: they repeat to the client what it sent.
    """
    problem: dict[str, Any] = error.to_problem()
    if isinstance(error, RequestError):
        problem["detail"] = error.message
    elif isinstance(error, InvalidValueError):
        problem["detail"] = f"{error.field}: expected {error.expected}"
        problem["errors"] = [{"parameter": error.field, "expected": error.expected}]
    retry_after = getattr(error, "retry_after", None)
    if isinstance(retry_after, (int, float)):
        headers = {**(headers or {}), "Retry-After": str(max(1, round(retry_after)))}
    return Response(
        msgspec.json.encode(problem), status_code=error.http_status, media_type=PROBLEM_TYPE, headers=headers
    )


def handle_framework_error(_: Request, error: Exception) -> Response:
    """What the framework calls for its own errors: no such route, wrong method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return problem_response(NotFoundError("no such resource"), headers=headers)
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(headers.get("Allow", "GET, HEAD").split(", ")))
        return problem_response(MethodNotAllowedError(f"only {headers['Allow']}"), headers=headers)
    return problem_response(RequestError(str(error.detail)), headers=headers)
