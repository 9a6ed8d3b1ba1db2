"""What a faulty broker hands out: deliveries whose settlements get lost, consumers and callbacks that miss some."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar

from polaris.clock import Clock
from polaris.exceptions import BusConnectionError
from polaris.messaging._broker import BrokerSubscription, ConsumerInfo, Delivery, OnDelivery, PullConsumer
from polaris.testing._faults import Fault, FaultDice

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Line(Protocol):
    """The connection that may be cut, as what hangs on it sees it."""

    @property
    def is_cut(self) -> bool: ...

    def require(self, where: str) -> None:
        """One call: it may cut the line. Raises `BusConnectionError` while it is cut."""
        ...

    async def until_cut(self, work: Awaitable[T]) -> T:
        """The result of `work`, or `BusConnectionError` when the line is cut before; `work` is cancelled then."""
        ...


class FaultyDelivery:
    """A delivery of a consumer; see `Fault.ACK_LOST` and `Fault.NAK_LOST`. The first settlement counts."""

    def __init__(self, inner: Delivery, line: Line, dice: FaultDice) -> None:
        self._inner = inner
        self._line = line
        self._dice = dice
        self._settled = False

    @property
    def subject(self) -> str:
        return self._inner.subject

    @property
    def payload(self) -> bytes:
        return self._inner.payload

    @property
    def headers(self) -> Mapping[str, str]:
        return self._inner.headers

    @property
    def reply_to(self) -> str | None:
        return self._inner.reply_to

    @property
    def attempt(self) -> int:
        return self._inner.attempt

    @property
    def sequence(self) -> int | None:
        return self._inner.sequence

    @property
    def number(self) -> int | None:
        return self._inner.number

    @property
    def stored_at(self) -> datetime | None:
        return self._inner.stored_at

    async def ack(self, *, confirm: bool = False) -> None:
        if self._settled:
            return
        self._line.require("ack")
        if self._dice.strikes(Fault.ACK_LOST, self._where):
            if confirm:
                raise BusConnectionError("the acknowledgement is not confirmed: a fault was injected")
            self._settled = True
            return
        await self._inner.ack(confirm=confirm)
        self._settled = True

    async def nak(self, *, delay_s: float) -> None:
        await self._settle("nak", Fault.NAK_LOST, lambda: self._inner.nak(delay_s=delay_s))

    async def term(self) -> None:
        await self._settle("term", Fault.ACK_LOST, self._inner.term)

    async def in_progress(self) -> None:
        if not self._settled:
            self._line.require("in_progress")
            await self._inner.in_progress()

    @property
    def _where(self) -> str:
        return f"{self.subject} #{self.sequence}"

    async def _settle(self, call: str, fault: Fault, settle: Callable[[], Awaitable[None]]) -> None:
        if self._settled:
            return
        self._line.require(call)
        if not self._dice.strikes(fault, self._where):
            await settle()
        self._settled = True


class FaultyConsumer:
    """A consumer of which deliveries get lost, and come again after `ack_wait_s`."""

    def __init__(self, inner: PullConsumer, line: Line, dice: FaultDice) -> None:
        self._inner = inner
        self._line = line
        self._dice = dice

    async def fetch(self, count_max: int, *, wait_s: float) -> Sequence[Delivery]:
        self._line.require("fetch")
        found = await self._line.until_cut(self._inner.fetch(count_max, wait_s=wait_s))
        arrived = [delivery for delivery in found if not self._dice.strikes(Fault.LOSS, delivery.subject)]
        if len(arrived) > 1 and self._dice.strikes(Fault.REORDER, f"a fetch of {len(arrived)}"):
            self._dice.random.shuffle(arrived)
        return [FaultyDelivery(delivery, self._line, self._dice) for delivery in arrived]

    async def info(self) -> ConsumerInfo:
        self._line.require("info")
        return await self._inner.info()

    async def close(self) -> None:
        await self._inner.close()


class FaultyCallback:
    """Stands between a core subscription and whoever takes its messages, one after the other."""

    def __init__(self, on_delivery: OnDelivery, line: Line, dice: FaultDice, clock: Clock) -> None:
        self._on_delivery = on_delivery
        self.dropped: Callable[[Delivery], None] | None = getattr(on_delivery, "dropped", None)
        self._line = line
        self._dice = dice
        self._clock = clock
        self._turn = asyncio.Lock()
        self._held: Delivery | None = None
        self._release: asyncio.Task[None] | None = None

    async def __call__(self, delivery: Delivery) -> None:
        dice, subject = self._dice, delivery.subject
        if self._line.is_cut:
            dice.note(Fault.LOSS, subject)
            return
        if dice.strikes(Fault.LOSS, subject):
            return
        if dice.strikes(Fault.DELAY, subject):
            await self._clock.sleep(dice.random.uniform(0.0, dice.plan.delay_s_max))
        if self._held is None and dice.strikes(Fault.REORDER, subject):
            self._held = delivery
            self._release = asyncio.create_task(self._let_go_later(), name=f"faulty-hold {subject}")
            return
        times = 2 if dice.strikes(Fault.DUPLICATE, subject) else 1
        try:
            for _ in range(times):
                await self._hand_over(delivery)
        finally:
            await self.let_go()

    async def let_go(self) -> None:
        """Hand over what is held back for the next message."""
        held = await self._take_held()
        if held is not None:
            await self._hand_over(held)

    async def forget(self) -> None:
        """Drop what is held back."""
        await self._take_held()

    async def _take_held(self) -> Delivery | None:
        held, self._held = self._held, None
        release, self._release = self._release, None
        if release is not None and release is not asyncio.current_task():
            if held is not None:
                release.cancel()
            await asyncio.wait([release])
        return held

    async def _hand_over(self, delivery: Delivery) -> None:
        async with self._turn:
            await self._on_delivery(delivery)

    async def _let_go_later(self) -> None:
        await self._clock.sleep(self._dice.plan.delay_s_max)
        held, self._held = self._held, None
        if held is None:
            return
        try:
            await self._hand_over(held)
        except Exception:  # boundary: as with every message, the failure of a callback must not end its subscription
            _log.exception("the callback for %s failed", held.subject)


class FaultySubscription:
    """A core subscription whose end also ends what is held back."""

    def __init__(self, inner: BrokerSubscription, callback: FaultyCallback, on_end: Callable[[Any], None]) -> None:
        self._inner = inner
        self._callback = callback
        self._on_end = on_end

    async def drain(self) -> None:
        await self._inner.drain()
        await self._callback.let_go()
        self._on_end(self)

    async def unsubscribe(self) -> None:
        await self._inner.unsubscribe()
        await self._callback.forget()
        self._on_end(self)

    async def finish(self) -> None:
        """Hand over what is held back; the broker under it has drained."""
        await self._callback.let_go()

    async def abandon(self) -> None:
        """Drop what is held back; the broker under it has disconnected."""
        await self._callback.forget()
