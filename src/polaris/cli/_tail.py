"""`polaris tail`: what passes on the bus, as it passes, also what POLARIS itself could not read."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from polaris.cli import _exit
from polaris.cli._bus import connected_broker
from polaris.cli._lines import foreign_line, line_of, undecodable_line
from polaris.cli._output import print_json_line
from polaris.domain import EVENTS, PolarisEvent
from polaris.exceptions import MessageDecodeError, UnknownEventTypeError

if TYPE_CHECKING:
    from polaris.messaging import ConnectionState, Delivery
    from polaris.runtime import Settings


def follow(settings: Settings, pattern: str, *, count_max: int | None, as_json: bool) -> int:
    """Print what passes until Ctrl-C or `count_max` events."""
    return asyncio.run(Tail(pattern, count_max=count_max, as_json=as_json).run(settings))


class Tail:
    """Looks on and changes nothing: it asks the broker, not the bus, so nothing that it cannot read is put aside."""

    def __init__(self, pattern: str, *, count_max: int | None, as_json: bool) -> None:
        from polaris.messaging import EventCodec, unpacked
        from polaris.messaging._subjects import check_pattern

        self._pattern = check_pattern(pattern)
        self._left = count_max
        self._as_json = as_json
        self._codec = EventCodec()
        self._unpacked = unpacked
        self._ended = asyncio.Event()

    async def run(self, settings: Settings) -> int:
        """Follow until something ends it; the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._ended.set)
        async with connected_broker(settings) as broker:
            await broker.subscribe(self._pattern, self._on_delivery)
            broker.on_state(self._tell_state)
            if sys.stderr.isatty():
                _exit.complain(f"following {self._pattern}; Ctrl-C ends")
            await self._ended.wait()
        return _exit.OK

    def _tell_state(self, state: ConnectionState) -> None:
        if not self._ended.is_set():
            _exit.complain(f"the bus is {state}")

    async def _on_delivery(self, delivery: Delivery) -> None:
        try:
            payload = self._unpacked(delivery.payload, delivery.headers)
            if self._codec.is_batch(payload):
                members = msgspec.json.decode(payload, type=list[msgspec.Raw])
                for member in members:
                    self._show(delivery.subject, bytes(member))
            else:
                self._show(delivery.subject, payload)
        except (msgspec.DecodeError, MessageDecodeError, RecursionError) as error:
            self._print_undecodable(delivery.subject, delivery.payload, str(error))

    def _show(self, topic: str, payload: bytes) -> None:
        try:
            event = self._codec.decode(payload).event
        except UnknownEventTypeError:
            document = msgspec.json.decode(payload)
            self._print({"topic": topic, **document} if self._as_json else foreign_line(topic, document))
        except MessageDecodeError as error:
            self._print_undecodable(topic, payload, error.message)
        else:
            self._print({"topic": topic, **facts_of(event)} if self._as_json else line_of(event))

    def _print_undecodable(self, topic: str, payload: bytes, reason: str) -> None:
        facts = {"topic": topic, "type": None, "undecodable": reason, "payload_bytes": len(payload)}
        self._print(facts if self._as_json else undecodable_line(topic, len(payload), reason))

    def _print(self, shown: dict[str, Any] | str) -> None:
        if self._ended.is_set():
            return
        try:
            if isinstance(shown, str):
                print(shown, flush=True)
            else:
                print_json_line(shown)
        except BrokenPipeError:
            # The reader went away, as `head` does.
            self._ended.set()
            return
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._ended.set()


def facts_of(event: PolarisEvent) -> dict[str, Any]:
    """The event's type and fields, for programs."""
    return {"type": EVENTS.require(type(event)).name, **msgspec.to_builtins(event)}
