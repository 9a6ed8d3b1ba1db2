"""How to get one service: the compiled answer to one question to the container."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from polaris.di._registration import MISSING, ServiceRegistration
from polaris.di._store import Store

Chain = tuple[tuple[Callable[..., Any], ServiceRegistration], ...]


class Plan:
    """How to get one service, or one argument of its provider.

    The first possible form is used: `constant` (an instance, a live singleton), `pure` (a call without arguments),
    `sync` (a call with the store of the scope that asks) and `awaitable`. A plan whose singletons are still to build is
    good for one use: `final` is False.
    """

    __slots__ = (
        "awaitable",
        "chain",
        "constant",
        "final",
        "is_async",
        "is_scoped",
        "pure",
        "registration",
        "sync",
    )

    def __init__(
        self,
        registration: ServiceRegistration,
        sync: Callable[[Store], Any],
        awaitable: Callable[[Store], Awaitable[Any]],
        *,
        constant: Any = MISSING,
        pure: Callable[[], Any] | None = None,
        final: bool = True,
        is_scoped: bool = False,
        is_async: bool = False,
        chain: Chain = (),
    ) -> None:
        self.registration = registration
        self.sync = sync
        self.awaitable = awaitable
        self.constant = constant
        self.pure = pure
        self.final = final
        self.is_scoped = is_scoped
        """Whether it can only be had inside a scope."""
        self.chain = chain
        """Behind `pure`: functions to call one after the other, each with the result before, and whose they are."""
        self.is_async = is_async
        """Whether something has to be awaited to build it."""
