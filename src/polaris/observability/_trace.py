"""Which trace the running task belongs to: W3C trace context, sampled by ratio, cheap where unsampled."""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections.abc import Callable
from contextvars import ContextVar, Token
from types import TracebackType

import msgspec

from polaris.exceptions import InvalidValueError

SAMPLED = 0x01
RANDOM_TRACE_ID = 0x02
_FLAGS_KEPT = SAMPLED | RANDOM_TRACE_ID
TRACESTATE_CHARS_MAX = 512
TRACESTATE_MEMBERS_MAX = 32

# W3C Trace Context 3.2.2: lower-case hex only; a version above 00 may carry more after another dash; ff is no version.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")

_MARK = re.compile(r"(?:^|,)\s*polaris=(?!0{16})([0-9a-f]{16})\s*(?=,|$)")
_HEX_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")

_random = random.Random()  # noqa: S311 - identifiers, not secrets; reseeded in a forked child
os.register_at_fork(after_in_child=_random.seed)


class TraceContext(msgspec.Struct, frozen=True):
    """A position in a trace: ids in lower-case hex, flags and vendor state as W3C Trace Context has them. Immutable."""

    trace_id: str
    span_id: str
    flags: int = 0
    tracestate: str = ""

    @property
    def sampled(self) -> bool:
        """Whether somebody upstream decided that this trace is recorded."""
        return self.flags & SAMPLED == SAMPLED

    @property
    def traceparent(self) -> str:
        """The header value, version 00."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    def child(self) -> TraceContext:
        """A new span of the same trace; an unsampled context is its own child, since nobody will record the span."""
        if not self.flags & SAMPLED:
            return self
        return TraceContext(self.trace_id, new_span_id(), self.flags, self.tracestate)

    @property
    def recorded_span_id(self) -> str | None:
        """The span that POLARIS recorded last on the way to this position, None where it has not been told."""
        mark = _MARK.search(self.tracestate)
        return None if mark is None else mark[1]

    def marked(self) -> TraceContext:
        """The same position, with the note in its vendor state (`polaris=<span id>`) that its span is recorded.

        Whoever hands a trace on without recording a span keeps the note as it is, and so can be told from others.
        """
        members = (member.strip() for member in self.tracestate.split(","))
        others = [member for member in members if member and not member.startswith("polaris=")]
        state = ",".join([f"polaris={self.span_id}", *others][:TRACESTATE_MEMBERS_MAX])
        state = state if len(state) <= TRACESTATE_CHARS_MAX else f"polaris={self.span_id}"
        return TraceContext(self.trace_id, self.span_id, self.flags, state)


def new_span_id() -> str:
    """Eight random bytes as hex, never all zero."""
    return f"{_random.getrandbits(64) or 1:016x}"


def trace_of(event_id: str) -> TraceContext:
    """The recorded trace that an event begins which was published under none: the same wherever it is asked.

    The ids of a UUID are its own digits, those of any other id a digest of it.
    """
    digits = event_id.replace("-", "").lower()
    if not _HEX_ID.fullmatch(digits) or digits[16:] == "0" * 16:
        digits = hashlib.blake2b(event_id.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return TraceContext(digits, digits[16:], SAMPLED)


def start_trace(*, sampled: bool) -> TraceContext:
    """The first span of a new trace."""
    return TraceContext(f"{_random.getrandbits(128) or 1:032x}", new_span_id(), SAMPLED if sampled else 0)


def parse_traceparent(header: str | None, tracestate: str | None = None) -> TraceContext | None:
    """The context a peer sent, or None when there is none or it is malformed: then a new trace begins (W3C 4.3).

    A malformed `tracestate`, or one over 512 characters, is dropped and the rest kept (W3C 3.3.1.5).
    """
    if header is None:
        return None
    match = _TRACEPARENT.fullmatch(header)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if more is not None and version == "00":
        return None
    state = tracestate if tracestate and _TRACESTATE.fullmatch(tracestate) else ""
    return TraceContext(trace_id, span_id, int(flags, 16) & _FLAGS_KEPT, state)


class RatioSampler:
    """Decides which new traces are recorded: about `ratio` of them, 0 to 1. The decision costs one random number.

    It is asked only for the first span of a trace; everything below keeps the decision that the context carries.
    """

    __slots__ = ("_draw", "ratio")

    def __init__(self, ratio: float, *, draw: Callable[[], float] = _random.random) -> None:
        if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0.0 <= ratio <= 1.0:
            raise InvalidValueError("ratio", "a number from 0 to 1", ratio)
        self.ratio = float(ratio)
        self._draw = draw

    def sample(self) -> bool:
        """Whether to record the trace about to begin."""
        return self._draw() < self.ratio

    def start_trace(self) -> TraceContext:
        """The first span of a new trace, sampled or not."""
        return start_trace(sampled=self._draw() < self.ratio)


NEVER = RatioSampler(0.0)
_current: ContextVar[TraceContext | None] = ContextVar("polaris_trace", default=None)


def current_trace() -> TraceContext | None:
    """The trace context of the running task or thread, or None outside any scope."""
    return _current.get()


class trace_scope:  # noqa: N801 - used like a function, beside correlation_scope
    """Run the body at a position in a trace and restore the former one afterwards, whatever happens.

    With a context, that one becomes current as it is: a consumer enters `received.child()`. Without one, the body is a
    child of the surrounding span, or the first span of a new trace, sampled as `sampler` says (default: never). Tasks
    started inside inherit the context (PEP 567). A scope is entered once.
    """

    __slots__ = ("_context", "_sampler", "_token")

    def __init__(self, context: TraceContext | None = None, *, sampler: RatioSampler = NEVER) -> None:
        self._context = context
        self._sampler = sampler
        self._token: Token[TraceContext | None] | None = None

    def __enter__(self) -> TraceContext:
        context = self._context
        if context is None:
            parent = _current.get()
            context = self._sampler.start_trace() if parent is None else parent.child()
        self._token = _current.set(context)
        return context

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        token, self._token = self._token, None
        if token is not None:
            _current.reset(token)
