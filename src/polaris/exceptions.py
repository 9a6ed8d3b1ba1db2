"""Every error of POLARIS: typed, with stable codes, safe to print, to pickle and to send.

    PolarisException                            polaris.error
    ├── InvalidValueError (ValueError)          polaris.value.invalid
    ├── ConfigurationError                      polaris.configuration
    ├── ConnectorError                          polaris.connector
    │   └── ActionNotSupportedError             polaris.connector.action_not_supported
    ├── AdaptationError                         polaris.adaptation
    ├── CircuitBreakerError                     polaris.circuit_breaker
    │   └── CircuitBreakerOpenException         polaris.circuit_breaker.open
    ├── BulkheadError                           polaris.bulkhead
    │   └── BulkheadRejectedException           polaris.bulkhead.rejected
    ├── RateLimitExceededError                  polaris.rate_limit.exceeded
    ├── RetryExhaustedError                     polaris.retry.exhausted
    ├── DeadlineExceededError (TimeoutError)    polaris.deadline_exceeded
    ├── RequestError                            polaris.request
    │   ├── NotFoundError                       polaris.request.not_found
    │   ├── MethodNotAllowedError               polaris.request.method
    │   ├── HostNotAllowedError                 polaris.request.host
    │   ├── UnauthenticatedError                polaris.request.unauthenticated
    │   ├── OriginNotAllowedError               polaris.request.origin
    │   ├── RequestConflictError                polaris.request.conflict
    │   ├── RequestTooLargeError                polaris.request.too_large
    │   └── MediaTypeError                      polaris.request.media_type
    ├── MessageBusError                         polaris.bus
    │   ├── BusConnectionError                  polaris.bus.connection
    │   ├── PublishError                        polaris.bus.publish              nothing stored
    │   │   └── PayloadTooLargeError            polaris.bus.payload_too_large    nothing sent
    │   ├── UnconfirmedPublishError             polaris.bus.publish_unconfirmed  maybe stored; repeat with the same id
    │   ├── MessageDecodeError                  polaris.bus.decode
    │   │   └── UnknownEventTypeError           polaris.bus.unknown_event_type
    │   ├── InvalidTopicError (ValueError)      polaris.bus.invalid_topic
    │   ├── SubscriptionError                   polaris.bus.subscription
    │   ├── RequestTimeoutError (TimeoutError)  polaris.bus.request_timeout
    │   └── RequestFailedError                  polaris.bus.request_failed
    ├── DataStoreError                          polaris.store
    │   ├── StoreConnectionError                polaris.store.connection
    │   ├── UnconfirmedWriteError               polaris.store.write_unconfirmed  maybe written
    │   ├── StoreFullError                      polaris.store.full
    │   ├── SeriesLimitError                    polaris.store.series_limit
    │   ├── StoreCorruptError                   polaris.store.corrupt
    │   ├── StoreLockedError                    polaris.store.locked
    │   ├── ConflictError                       polaris.store.conflict
    │   │   └── TransactionConflictError        polaris.store.transaction_conflict
    │   ├── QueryError (ValueError)             polaris.store.query
    │   ├── MigrationError                      polaris.store.migration
    │   └── UnitOfWorkError                     polaris.store.unit_of_work
    └── DependencyInjectionError                polaris.di
        ├── ServiceNotRegisteredException       polaris.di.not_registered
        └── DependencyResolutionException       polaris.di.resolution

Outcomes are kept apart: *not done* (PublishError), *unknown* (UnconfirmedPublishError, UnconfirmedWriteError), and
done, which is no error.
`retryable` is the one answer that retry policies, breakers and the redelivery of the bus ask: True, False, or None
where the policy of the caller decides.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, ParamSpec, Self, TypeVar, cast, overload

from polaris._correlation import _correlation_id, current_correlation_id
from polaris._redaction import TEXT_CHARS_MAX, as_text, clean_texts, redact, redact_fields, redact_text

P = ParamSpec("P")
R = TypeVar("R")

MESSAGE_CHARS_MAX = TEXT_CHARS_MAX

_now_s = time.time
_correlation_now = _correlation_id.get
# Python itself puts what a class was called with into this slot, unredacted.
_ARGS = BaseException.__dict__["args"]
_empty_args = BaseException.__init__


class PolarisException(Exception):
    """The root of all errors of POLARIS.

    What it is made with is redacted and bounded when it is made, so no later printing, logging, pickling or sending
    of it can leak a secret: at most 2 048 characters of `message`; `context` holds JSON types only (see
    `polaris._redaction.redact` for its bounds). The same goes for texts, and tuples of texts, that a subclass sets as
    attributes before it calls this constructor. `cause` becomes `__cause__`.

    Class attributes: `code` is stable across releases and safe to match on; `retryable` says whether repeating the same
    call may help (True), cannot (False), or depends on the caller's policy (None).
    """

    code: ClassVar[str] = "polaris.error"
    retryable: ClassVar[bool | None] = None
    title: ClassVar[str] = "Internal error"
    """The public summary of the class of errors: shown to clients that may not see the message."""
    http_status: ClassVar[int] = 500

    def __init__(
        self,
        message: str = "",
        context: Mapping[str, object] | None = None,
        *,
        cause: BaseException | None = None,
    ) -> None:
        if self.__dict__:
            _redact_attributes(self.__dict__)
        if type(message) is not str:
            message = as_text(message)
        if message:
            self.message = message = clean_texts[message]
            super().__init__(message)
        else:
            _empty_args(self)
        if context:
            self.context = redact_fields(context)
        self.correlation_id: str | None = _correlation_now()
        self._stamp: float = _now_s()
        if cause is not None:
            self.__cause__ = cause

    def _derived(self) -> tuple[str, Mapping[str, object]]:
        """The message and the context of an error that was made without, from its attributes, which are redacted.

        A policy that rejects makes many errors of which few are ever read: they are worded when they are.
        """
        return "", {}

    @functools.cached_property
    def message(self) -> str:
        """What happened, redacted and bounded."""
        text, _ = self._derived()
        return redact_text(text) if text else self.title

    @functools.cached_property
    def context(self) -> dict[str, Any]:
        """The circumstances as JSON types, redacted and bounded."""
        _, fields = self._derived()
        return redact_fields(fields) if fields else {}

    @property
    def args(self) -> tuple[Any, ...]:
        """The message alone, whatever the class was called with."""
        return cast(tuple[Any, ...], _ARGS.__get__(self)) or (self.message,)

    @args.setter
    def args(self, values: tuple[Any, ...]) -> None:
        _ARGS.__set__(self, values)

    @property
    def timestamp(self) -> datetime:
        """When the error was made, timezone-aware UTC."""
        return datetime.fromtimestamp(self._stamp, UTC)

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, code={self.code!r})"

    def to_dict(self) -> dict[str, Any]:
        """Everything about the error as JSON types: for logs, dead letters and stores, not for untrusted clients."""
        return {
            "type": type(self).__name__,
            "code": self.code,
            "message": self.message,
            "retryable": self.retryable,
            "timestamp": self.timestamp.isoformat(),
            "correlation_id": self.correlation_id,
            "context": self.context,
            "cause": _described(self.__cause__),
        }

    def to_problem(self, *, instance: str | None = None) -> dict[str, Any]:
        """The public form: an RFC 9457 problem object. It shows neither message, context nor cause."""
        problem: dict[str, Any] = {
            "type": f"urn:polaris:error:{self.code}",
            "title": self.title,
            "status": self.http_status,
            "code": self.code,
        }
        if instance is not None:
            problem["instance"] = instance
        if self.correlation_id is not None:
            problem["correlation_id"] = self.correlation_id
        return problem

    def __reduce__(self) -> tuple[Any, ...]:
        # A foreign cause may hold secrets, and often cannot be unpickled: its description goes in its place.
        cause = self.__cause__
        if cause is not None and not isinstance(cause, (PolarisException, ForeignCause)):
            cause = ForeignCause(cast(str, _described(cause)))
        state = {"message": self.message, "context": self.context} | self.__dict__
        return _rebuild, (type(self), self.args, state, cause, self.__suppress_context__)

    def __copy__(self) -> Self:
        clone = _rebuild(type(self), self.args, dict(self.__dict__), self.__cause__, self.__suppress_context__)
        return cast(Self, clone)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # The state holds JSON types and immutable values only; the cause stays the same object.
        clone = self.__copy__()
        clone.context = copy.deepcopy(self.context)
        memo[id(self)] = clone
        return clone


class ForeignCause(Exception):
    """What is left of the cause of an error that was pickled: the type and the redacted text of a foreign exception."""

    def __init__(self, text: str = "") -> None:
        super().__init__(redact_text(text))


def _redact_attributes(attributes: dict[str, object]) -> None:
    # What stands under these names now would stay there, unredacted, when the constructor is given none.
    attributes.pop("message", None)
    attributes.pop("context", None)
    for name, value in attributes.items():
        if isinstance(value, str):
            attributes[name] = clean_texts[str.__str__(value)]
        elif isinstance(value, tuple):
            attributes[name] = tuple(
                clean_texts[str.__str__(item)] if isinstance(item, str) else item for item in value
            )


def _described(cause: BaseException | None) -> str | None:
    if cause is None:
        return None
    return str(cause) if isinstance(cause, ForeignCause) else cast(str, redact(cause))


def _rebuild(
    cls: type[PolarisException],
    args: tuple[Any, ...],
    state: dict[str, Any],
    cause: BaseException | None,
    suppress: bool,
) -> PolarisException:
    """Bring an error back without running its constructor: subclasses may take any arguments."""
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    error.__cause__ = cause
    error.__suppress_context__ = suppress
    return error


class InvalidValueError(PolarisException, ValueError):
    """A value was refused; nothing was done. Names the field, the type found and the limit."""

    code = "polaris.value.invalid"
    retryable = False
    title = "Invalid value"
    http_status = 422

    def __init__(self, field: str, expected: str, value: object = None, *, cause: BaseException | None = None) -> None:
        super().__init__(cause=cause)
        self.field = clean_texts[field]
        self.expected = clean_texts[expected]
        self.found = type(value).__name__

    def _derived(self) -> tuple[str, Mapping[str, object]]:
        return (
            f"{self.field}: expected {self.expected}, got {self.found}",
            {"field": self.field, "expected": self.expected, "type": self.found},
        )


class ConfigurationError(PolarisException):
    """The configuration is refused as a whole; `problems` lists every mistake, and nothing was started."""

    code = "polaris.configuration"
    retryable = False
    title = "Invalid configuration"

    def __init__(
        self,
        message: str = "",
        context: Mapping[str, object] | None = None,
        *,
        problems: Sequence[str] = (),
        cause: BaseException | None = None,
    ) -> None:
        self.problems: tuple[str, ...] = tuple(problems)
        if not message and self.problems:
            message = "; ".join(self.problems)
        super().__init__(message, context, cause=cause)


class ConnectorError(PolarisException):
    """A managed system could not be reached, read or changed."""

    code = "polaris.connector"
    title = "Managed system unavailable"
    http_status = 502


class ActionNotSupportedError(ConnectorError):
    """The connector does not know this action type or refuses its parameters; nothing was done to the system."""

    code = "polaris.connector.action_not_supported"
    retryable = False
    title = "Action not supported"
    http_status = 422


class AdaptationError(PolarisException):
    """An adaptation action was not carried out, or its outcome is not known; the message says which."""

    code = "polaris.adaptation"
    title = "Adaptation failed"


class CircuitBreakerError(PolarisException):
    """A circuit breaker stood between the caller and the call."""

    code = "polaris.circuit_breaker"
    title = "Circuit breaker error"
    http_status = 503


class CircuitBreakerOpenException(CircuitBreakerError):
    """The breaker is open, isolated, or has no half-open permit left; the function was not called.

    `retry_after` is the time in seconds until the breaker may admit a call again, None when that is not known.
    """

    code = "polaris.circuit_breaker.open"
    retryable = True
    title = "Dependency temporarily unavailable"

    def __init__(self, name: str, *, state: str = "open", retry_after: float | None = None) -> None:
        super().__init__()
        self.name = clean_texts[name]
        self.state = clean_texts[state]
        self.retry_after = retry_after

    def _derived(self) -> tuple[str, Mapping[str, object]]:
        wait = "" if self.retry_after is None else f", retry after {self.retry_after:.3g} s"
        return (
            f"circuit breaker {self.name!r} is {self.state}{wait}",
            {"name": self.name, "state": self.state, "retry_after": self.retry_after},
        )


class BulkheadError(PolarisException):
    """A bulkhead stood between the caller and the call."""

    code = "polaris.bulkhead"
    title = "Bulkhead error"
    http_status = 503


class BulkheadRejectedException(BulkheadError):
    """The bulkhead and its queue are full, or the wait for a permit took too long; the function was not called."""

    code = "polaris.bulkhead.rejected"
    retryable = True
    title = "Too many concurrent calls"

    def __init__(self, name: str, *, active: int, queued: int, reason: str = "full") -> None:
        super().__init__()
        self.name = clean_texts[name]
        self.active = active
        self.queued = queued
        self.reason = clean_texts[reason]

    def _derived(self) -> tuple[str, Mapping[str, object]]:
        return (
            f"bulkhead {self.name!r} rejected the call: {self.reason} ({self.active} active, {self.queued} queued)",
            {"name": self.name, "active": self.active, "queued": self.queued, "reason": self.reason},
        )


class RateLimitExceededError(PolarisException):
    """A rate limiter or a client-side throttle on this side refused the call; the function was not called.

    `retry_after` is the time in seconds until a call of its kind may be admitted, None when that is not known.
    """

    code = "polaris.rate_limit.exceeded"
    retryable = True
    title = "Too many calls"
    http_status = 429

    def __init__(self, name: str, *, retry_after: float | None = None, reason: str = "rate") -> None:
        super().__init__()
        self.name = clean_texts[name]
        self.retry_after = retry_after
        self.reason = clean_texts[reason]

    def _derived(self) -> tuple[str, Mapping[str, object]]:
        wait = "" if self.retry_after is None else f", retry after {self.retry_after:.3g} s"
        return (
            f"rate limiter {self.name!r} rejected the call: {self.reason}{wait}",
            {"name": self.name, "retry_after": self.retry_after, "reason": self.reason},
        )


class RetryExhaustedError(PolarisException):
    """Every permitted attempt failed; `__cause__` is the last error, with its traceback."""

    code = "polaris.retry.exhausted"
    retryable = False
    title = "Operation failed repeatedly"
    http_status = 503

    def __init__(self, operation: str, *, attempts: int, reason: str = "attempts", cause: BaseException) -> None:
        self.operation = operation
        self.attempts = attempts
        self.reason = reason
        tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        super().__init__(
            f"{operation or 'operation'} failed after {tries} ({reason}): {as_text(cause)}",
            {"operation": operation, "attempts": attempts, "reason": reason},
            cause=cause,
        )


class DeadlineExceededError(PolarisException, TimeoutError):
    """The time allowed ran out; what was running was cancelled, and its outcome is unknown."""

    code = "polaris.deadline_exceeded"
    title = "Deadline exceeded"
    http_status = 504

    def __init__(
        self, operation: str = "", *, timeout_s: float | None = None, cause: BaseException | None = None
    ) -> None:
        super().__init__(cause=cause)
        self.operation = clean_texts[operation]
        self.timeout_s = timeout_s

    def _derived(self) -> tuple[str, Mapping[str, object]]:
        limit = "" if self.timeout_s is None else f" after {self.timeout_s:g} s"
        return (
            f"{self.operation or 'operation'} exceeded its deadline{limit}",
            {"operation": self.operation, "timeout_s": self.timeout_s},
        )


class RequestError(PolarisException):
    """A request to the API cannot be served as it is; nothing was done. The message is meant for the client."""

    code = "polaris.request"
    retryable = False
    title = "Bad request"
    http_status = 400


class NotFoundError(RequestError):
    """What was asked for does not exist (any more, or yet)."""

    code = "polaris.request.not_found"
    title = "Not found"
    http_status = 404


class MethodNotAllowedError(RequestError):
    """The resource exists but knows no such method."""

    code = "polaris.request.method"
    title = "Method not allowed"
    http_status = 405


class HostNotAllowedError(RequestError):
    """The request names a host that this node does not answer for: the guard against DNS rebinding."""

    code = "polaris.request.host"
    title = "Unknown host"
    http_status = 421


class UnauthenticatedError(RequestError):
    """The request needs the node's token, and has none or another."""

    code = "polaris.request.unauthenticated"
    title = "Token required"
    http_status = 401


class OriginNotAllowedError(RequestError):
    """A page of another origin asked for a change, maybe without its user's knowledge."""

    code = "polaris.request.origin"
    title = "Foreign origin"
    http_status = 403


class RequestConflictError(RequestError):
    """What was asked for contradicts what is there, such as an id that belongs to something else."""

    code = "polaris.request.conflict"
    title = "Conflict"
    http_status = 409


class RequestTooLargeError(RequestError):
    """The body of the request is over the limit."""

    code = "polaris.request.too_large"
    title = "Body too large"
    http_status = 413


class MediaTypeError(RequestError):
    """The body is not of the type that is read here."""

    code = "polaris.request.media_type"
    title = "Unsupported media type"
    http_status = 415


class MessageBusError(PolarisException):
    """The bus could not do what was asked."""

    code = "polaris.bus"
    title = "Message bus error"
    http_status = 503


class BusConnectionError(MessageBusError):
    """There is no connection to the broker, and none could be made within the time allowed."""

    code = "polaris.bus.connection"
    retryable = True
    title = "Message bus unavailable"


class PublishError(MessageBusError):
    """The event was not stored and will not be delivered."""

    code = "polaris.bus.publish"
    retryable = True
    title = "Event not published"


class PayloadTooLargeError(PublishError):
    """The encoded event is over the broker's limit; it was refused before anything was sent."""

    code = "polaris.bus.payload_too_large"
    retryable = False
    title = "Event too large"
    http_status = 413

    def __init__(self, topic: str, *, payload_bytes: int, payload_bytes_max: int) -> None:
        self.payload_bytes = payload_bytes
        self.payload_bytes_max = payload_bytes_max
        super().__init__(
            f"event for {topic!r} has {payload_bytes} bytes, the limit is {payload_bytes_max} bytes",
            {"topic": topic, "payload_bytes": payload_bytes, "payload_bytes_max": payload_bytes_max},
        )


class UnconfirmedPublishError(MessageBusError):
    """No acknowledgement came: the event may or may not be stored. Publishing it again with the same id is safe."""

    code = "polaris.bus.publish_unconfirmed"
    retryable = True
    title = "Event not confirmed"


class MessageDecodeError(MessageBusError):
    """The bytes of a message are not a valid event; decoding them again cannot help."""

    code = "polaris.bus.decode"
    retryable = False
    title = "Undecodable message"
    http_status = 400


class UnknownEventTypeError(MessageDecodeError):
    """The message is well formed but of an event type that nobody registered."""

    code = "polaris.bus.unknown_event_type"
    title = "Unknown event type"


class InvalidTopicError(MessageBusError, ValueError):
    """The topic, pattern or id cannot be expressed as a legal subject; nothing was sent or subscribed."""

    code = "polaris.bus.invalid_topic"
    retryable = False
    title = "Invalid topic"
    http_status = 422


class SubscriptionError(MessageBusError):
    """The subscription was refused; nothing is subscribed."""

    code = "polaris.bus.subscription"
    retryable = False
    title = "Invalid subscription"


class RequestTimeoutError(MessageBusError, TimeoutError):
    """No reply came in time; whether the request was handled is unknown."""

    code = "polaris.bus.request_timeout"
    title = "No reply in time"
    http_status = 504


class RequestFailedError(MessageBusError):
    """The request was received and its handler failed; `remote_code` is the stable code of the error it raised."""

    code = "polaris.bus.request_failed"
    title = "Request failed at its handler"
    http_status = 502

    def __init__(self, topic: str, *, remote_code: str, title: str = "", remote_retryable: bool | None = None) -> None:
        self.remote_code = remote_code
        self.remote_retryable = remote_retryable
        super().__init__(
            f"the handler of {topic!r} failed: {title or remote_code} ({remote_code})",
            {"topic": topic, "remote_code": remote_code, "remote_retryable": remote_retryable},
        )


class DataStoreError(PolarisException):
    """The data store could not do what was asked; the transaction it happened in is rolled back."""

    code = "polaris.store"
    title = "Data store error"
    http_status = 503


class StoreConnectionError(DataStoreError):
    """The store is not connected or cannot be reached."""

    code = "polaris.store.connection"
    retryable = True
    title = "Data store unavailable"


class UnconfirmedWriteError(DataStoreError):
    """The connection to the store was lost before a write was confirmed: it was written entirely, or not at all.

    Repeating it is safe for what may be done twice: points, documents put by id, nodes and edges.
    """

    code = "polaris.store.write_unconfirmed"
    title = "Write unconfirmed"


class StoreFullError(DataStoreError):
    """The disk or the configured size limit is full; nothing of the transaction was written."""

    code = "polaris.store.full"
    retryable = True
    title = "Data store full"
    http_status = 507


class SeriesLimitError(DataStoreError):
    """A write would make more series than the collection or the store may have; nothing of it was written.

    `collection`: where the new series would be. `limit`: how many there may be in the `scope`, which is "collection" or
    "store". `count`: how many there would be. Series that exist are written as before.
    """

    code = "polaris.store.series_limit"
    retryable = False
    title = "Too many series"
    http_status = 507

    def __init__(self, collection: str, *, limit: int, count: int, scope: str = "collection") -> None:
        super().__init__()
        self.collection = clean_texts[collection]
        self.limit = limit
        self.count = count
        self.scope = clean_texts[scope]

    def _derived(self) -> tuple[str, Mapping[str, object]]:
        return (
            f"the {self.scope} may have {self.limit} series; a new one in {self.collection!r} would make {self.count}",
            {"collection": self.collection, "limit": self.limit, "count": self.count, "scope": self.scope},
        )


class StoreCorruptError(DataStoreError):
    """The store's file is damaged; nothing was written."""

    code = "polaris.store.corrupt"
    retryable = False
    title = "Data store damaged"


class StoreLockedError(DataStoreError):
    """Another runtime owns the store; nothing was opened."""

    code = "polaris.store.locked"
    retryable = False
    title = "Data store in use"


class ConflictError(DataStoreError):
    """A unique key exists already, or a version is not the expected one; nothing was written."""

    code = "polaris.store.conflict"
    retryable = False
    title = "Conflict"
    http_status = 409


class TransactionConflictError(ConflictError):
    """Others changed what this transaction was based on; nothing was written. Repeating it from the beginning helps."""

    code = "polaris.store.transaction_conflict"
    retryable = True
    title = "Transaction conflict"


class QueryError(DataStoreError, ValueError):
    """The query cannot be understood: an unknown operator, a bad field, range or limit. Nothing was read."""

    code = "polaris.store.query"
    retryable = False
    title = "Invalid query"
    http_status = 422


class MigrationError(DataStoreError):
    """The store's schema is not one that this version can use; nothing was changed."""

    code = "polaris.store.migration"
    retryable = False
    title = "Data store schema mismatch"


class UnitOfWorkError(DataStoreError):
    """The unit of work was used outside its life or across engines; its transaction is rolled back."""

    code = "polaris.store.unit_of_work"
    retryable = False
    title = "Invalid unit of work"


class DependencyInjectionError(PolarisException):
    """The container was wired or used wrongly."""

    code = "polaris.di"
    retryable = False
    title = "Service wiring error"


class ServiceNotRegisteredException(DependencyInjectionError):
    """Nobody registered the service; `path` is the chain of services that asked for it, outermost first."""

    code = "polaris.di.not_registered"
    title = "Service not registered"

    def __init__(
        self, service: str, *, path: Sequence[str] = (), suggestions: Sequence[str] = (), hint: str = ""
    ) -> None:
        self.service = service
        self.path: tuple[str, ...] = tuple(path)
        self.suggestions: tuple[str, ...] = tuple(suggestions)
        lines = [f"{service} is not registered" + (f" ({hint})" if hint else "")]
        if self.path:
            lines.append(draw_path((*self.path, service)))
        if self.suggestions:
            lines.append("did you mean " + " or ".join(self.suggestions) + "?")
        super().__init__(
            "\n".join(lines), {"service": service, "path": list(self.path), "suggestions": list(suggestions)}
        )


class DependencyResolutionException(DependencyInjectionError):
    """A service could not be built; `path` is the chain that led to it, outermost first; `reason` says why."""

    code = "polaris.di.resolution"
    title = "Service could not be built"

    def __init__(self, reason: str, *, path: Sequence[str] = (), cause: BaseException | None = None) -> None:
        self.reason = reason
        self.path: tuple[str, ...] = tuple(path)
        message = reason if not self.path else f"{reason}\n{draw_path(self.path)}"
        super().__init__(message, {"path": list(self.path)}, cause=cause)


def draw_path(path: Sequence[str]) -> str:
    """A dependency path as an indented drawing, outermost first, one service a line."""
    return "\n".join(f"{'   ' * depth}{'└─ ' if depth else ''}{name}" for depth, name in enumerate(path))


class ErrorContext:
    """Helpers that turn foreign errors into `PolarisException` with a context, at a boundary of the caller's choice."""

    @staticmethod
    def create_context(operation: str, **fields: object) -> dict[str, Any]:
        """The operation, the UTC time, the current correlation id and the redacted fields, as JSON types."""
        # Ours come first, so that the bound on fields never takes them, and win over fields of that name.
        ours: dict[str, Any] = {
            "operation": redact_text(operation),
            "timestamp": datetime.now(UTC).isoformat(),
            "correlation_id": current_correlation_id(),
        }
        return ours | redact_fields(fields) | ours if fields else ours

    @overload
    @staticmethod
    def wrap_exception(function: Callable[P, R], /) -> Callable[P, R]: ...

    @overload
    @staticmethod
    def wrap_exception(
        operation: str | None = None, /, *, error: type[PolarisException] = PolarisException, **fields: object
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...

    @staticmethod
    def wrap_exception(
        operation: Callable[P, R] | str | None = None,
        /,
        *,
        error: type[PolarisException] = PolarisException,
        **fields: object,
    ) -> Callable[P, R] | Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorate a sync or async function so that it raises only `PolarisException`, cancellation and exit.

        A `PolarisException` passes unchanged; any other `Exception` becomes `error` with the context and `__cause__`.
        `BaseException`s that are no `Exception` (cancellation, KeyboardInterrupt, SystemExit) are never wrapped.
        Nor are `concurrent.futures.CancelledError` and the ends of an iteration (StopIteration, StopAsyncIteration).
        `error` must take `(message, context, *, cause)`; another one, and a generator function, is refused at once
        (InvalidValueError).
        """
        _require_translation(error)
        if callable(operation):
            return _wrapped(operation, _name_of(operation), error, fields)
        name = operation

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            return _wrapped(function, name or _name_of(function), error, fields)

        return decorate


def _name_of(function: Callable[..., object]) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _require_translation(error: type[PolarisException]) -> None:
    try:
        inspect.signature(error).bind("", {}, cause=None)
    except TypeError as unfit:
        raise InvalidValueError("error", "a class that takes (message, context, *, cause)", error) from unfit


def _passes_unchanged(error: Exception) -> bool:
    """Cancellation in the clothes of an `Exception`, and the iteration protocol."""
    futures = sys.modules.get("concurrent.futures._base")
    if futures is not None and isinstance(error, futures.CancelledError):
        return True
    return isinstance(error, (PolarisException, StopIteration, StopAsyncIteration))


def _wrapped(
    function: Callable[P, R], operation: str, error: type[PolarisException], fields: Mapping[str, object]
) -> Callable[P, R]:
    def translate(foreign: Exception) -> PolarisException:
        context = ErrorContext.create_context(operation, **fields)
        return error(f"{operation} failed: {type(foreign).__name__}: {as_text(foreign)}", context, cause=foreign)

    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidValueError("function", "a function that is no generator", function)
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004

        @functools.wraps(function)
        async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            try:
                return await cast(Callable[P, Awaitable[Any]], function)(*args, **kwargs)
            except Exception as foreign:  # boundary: this decorator is one, by request
                if _passes_unchanged(foreign):
                    raise
                raise translate(foreign) from foreign

        return cast(Callable[P, R], call_async)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Exception as foreign:  # boundary: this decorator is one, by request
            if _passes_unchanged(foreign):
                raise
            raise translate(foreign) from foreign

    return call
