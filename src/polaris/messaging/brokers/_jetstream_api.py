"""The administration of streams and consumers: JSON questions to the server on `$JS.API.>`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from polaris.exceptions import BusConnectionError, MessageBusError
from polaris.messaging._broker import AckPolicy, ConsumerSpec, Start, StreamSpec

PREFIX = "$JS.API"
STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
NO_MESSAGE_FOUND = 10037
STREAM_NAME_IN_USE = 10058
CONSUMER_EXISTS = 10148
NO_SUITABLE_PEERS = 10005
TEMPORARILY_UNAVAILABLE = 10008
NO_ROOM = (10047, 10122)
"""The server, or the account, may not store so much; the account may not in one stream."""

ACK_POLICIES = {AckPolicy.EACH: "explicit", AckPolicy.ALL: "all", AckPolicy.NONE: "none"}

PATIENCE_S = 5.0
ASK_AGAIN_S = 0.2
"""Before a cluster that could not answer is asked once more; jittered."""

Ask = Callable[[str, bytes], Awaitable[bytes]]
"""Sends a question to the server and returns the answer, or raises a `MessageBusError`."""

Json = dict[str, Any]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Json).decode


class JetStreamAPI:
    """Typed questions. What the server refuses raises `MessageBusError` with its words and codes.

    `err_code` is the server's own stable number, hence the comparisons. A cluster that has just been started, or whose
    leader is being elected, refuses what it will do a moment later: it is asked again for up to `patience_s` seconds.
    """

    def __init__(self, ask: Ask, *, patience_s: float = PATIENCE_S) -> None:
        self._ask = ask
        self._patience_s = patience_s

    async def call(self, endpoint: str, body: Json | None = None, *, absent: tuple[int, ...] = ()) -> Json | None:
        """Ask, and return the answer; None when the server refuses with one of the numbers in `absent`.

        Raises `BusConnectionError` when the cluster is not available for longer than its patience.
        """
        question = b"" if body is None else _encode(body)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._patience_s
        while True:
            answer = await self._answer(endpoint, question)
            refusal = answer.get("error")
            if refusal is None:
                return answer
            number = refusal.get("err_code", 0)
            if number in absent:
                return None
            if number not in (NO_SUITABLE_PEERS, TEMPORARILY_UNAVAILABLE) or loop.time() >= deadline_s:
                break
            await asyncio.sleep(ASK_AGAIN_S * random.uniform(0.5, 1.0))  # noqa: S311
        kind = BusConnectionError if number == TEMPORARILY_UNAVAILABLE else MessageBusError
        raise kind(
            f"JetStream refuses {endpoint}: {refusal.get('description', 'without a reason')}",
            {"endpoint": endpoint, "code": refusal.get("code"), "err_code": number},
        )

    async def _answer(self, endpoint: str, question: bytes) -> Json:
        raw = await self._ask(f"{PREFIX}.{endpoint}", question)
        try:
            return _decode(raw)
        except msgspec.DecodeError as error:
            raise MessageBusError(f"the answer to {endpoint} is not of JetStream", {"endpoint": endpoint}) from error

    async def ensure_stream(self, spec: StreamSpec) -> None:
        """Create the stream, or change what differs from `spec`; anything else about it stays as it is."""
        try:
            await self._ensure_stream(spec)
        except MessageBusError as error:
            if error.context.get("err_code") not in NO_ROOM:
                raise
            raise MessageBusError(
                f"{error.message}; the stream reserves {spec.max_bytes} bytes: allow the server (max_file_store) or "
                "the account more",
                {**error.context, "stream_bytes_max": spec.max_bytes},
            ) from error

    async def _ensure_stream(self, spec: StreamSpec) -> None:
        wanted = _stream_config(spec)
        while True:
            found = await self.call(f"STREAM.INFO.{spec.name}", absent=(STREAM_NOT_FOUND,))
            if found is None:
                if await self.call(f"STREAM.CREATE.{spec.name}", wanted, absent=(STREAM_NAME_IN_USE,)) is not None:
                    return
                continue  # another client was faster
            config = found["config"]
            if any(config.get(key) != value for key, value in wanted.items()):
                await self.call(f"STREAM.UPDATE.{spec.name}", {**config, **wanted})
            return

    async def ensure_consumer(self, spec: ConsumerSpec, *, begin: Start | None = None) -> bool:
        """Create the consumer, or change what differs from `spec`; True when it was created.

        Where it begins is decided when it is made: with `begin`, else as `spec` says. A consumer that exists keeps its
        position.
        """
        start = _start(begin or spec.start)
        wanted = _consumer_config(spec)
        while True:
            found = await self.consumer_info(spec)
            if found is None:
                body = {"stream_name": spec.stream, "config": {**wanted, **start}, "action": "create"}
                endpoint = f"CONSUMER.CREATE.{spec.stream}.{spec.durable}"
                if await self.call(endpoint, body, absent=(CONSUMER_EXISTS,)) is not None:
                    return True
                continue  # another client was faster
            config = found["config"]
            if config.get("ack_policy") != wanted["ack_policy"]:
                has = next((ours.value for ours, its in ACK_POLICIES.items() if its == config["ack_policy"]), "foreign")
                raise MessageBusError(
                    f"the position has the ack policy {has!r}, which cannot be changed to {spec.ack.value!r}: take "
                    "another name, or delete the consumer",
                    {"stream": spec.stream, "durable": spec.durable},
                )
            if any(config.get(key) != value for key, value in wanted.items()):
                body = {"stream_name": spec.stream, "config": {**config, **wanted}, "action": "update"}
                await self.call(f"CONSUMER.CREATE.{spec.stream}.{spec.durable}", body)
            return False

    async def consumer_info(self, spec: ConsumerSpec) -> Json | None:
        """What the server knows of the consumer, None when it is not there. An unknown stream is an error."""
        return await self.call(f"CONSUMER.INFO.{spec.stream}.{spec.durable}", absent=(CONSUMER_NOT_FOUND,))

    async def has_stream(self, name: str) -> bool:
        """Whether the stream exists."""
        return await self.stream_info(name) is not None

    async def stream_info(self, name: str) -> Json | None:
        """What the server knows of the stream, None when it is not there."""
        return await self.call(f"STREAM.INFO.{name}", absent=(STREAM_NOT_FOUND,))

    async def next_message(self, stream: str, from_sequence: int) -> Json | None:
        """The first stored message at or after the sequence, None when there is none."""
        body = {"seq": from_sequence, "next_by_subj": ">"}
        found = await self.call(f"STREAM.MSG.GET.{stream}", body, absent=(NO_MESSAGE_FOUND,))
        return None if found is None else found["message"]

    async def erase(self, stream: str, sequence: int) -> bool:
        """Remove one message; False when it is not there."""
        if await self.call(f"STREAM.MSG.GET.{stream}", {"seq": sequence}, absent=(NO_MESSAGE_FOUND,)) is None:
            return False
        answer = await self.call(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence}, absent=(NO_MESSAGE_FOUND,))
        return answer is not None and bool(answer.get("success"))


def _nanoseconds(seconds: float | None) -> int:
    return 0 if seconds is None else int(seconds * 1e9)


def _stream_config(spec: StreamSpec) -> Json:
    # The server refuses to remember the ids of messages for longer than it keeps messages.
    window_s = spec.duplicate_window_s if spec.max_age_s is None else min(spec.duplicate_window_s, spec.max_age_s)
    return {
        "name": spec.name,
        "subjects": list(spec.subjects),
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_age": _nanoseconds(spec.max_age_s),
        "max_bytes": -1 if spec.max_bytes is None else spec.max_bytes,
        "duplicate_window": _nanoseconds(window_s),
        "num_replicas": spec.replicas,
        # So that what is stored can be read many messages at a time.
        "allow_direct": True,
    }


def _consumer_config(spec: ConsumerSpec) -> Json:
    config: Json = {
        "name": spec.durable,
        "durable_name": spec.durable,
        "ack_policy": ACK_POLICIES[spec.ack],
        "ack_wait": _nanoseconds(spec.ack_wait_s),
        "max_ack_pending": spec.in_flight_max,
        # The bus sets no limit: it counts deliveries itself and puts aside what fails too often.
        "max_deliver": -1 if spec.deliveries_max is None else spec.deliveries_max,
        "filter_subject": spec.pattern,
    }
    if spec.inactive_s is not None:
        config["inactive_threshold"] = _nanoseconds(spec.inactive_s)
    return config


def _start(start: Start) -> Json:
    if start.sequence is not None:
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": start.sequence}
    if start.time is not None:
        return {"deliver_policy": "by_start_time", "opt_start_time": start.time.isoformat()}
    return {"deliver_policy": "new" if start.new else "all"}
