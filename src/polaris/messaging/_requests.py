"""Request and reply: how a handler's outcome travels back to the one who asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polaris.domain import PolarisEvent, event_type
from polaris.exceptions import MessageBusError, PolarisException, RequestFailedError
from polaris.messaging._broker import Delivery, MessageBroker, OutgoingMessage
from polaris.messaging._cloudevents import EventCodec
from polaris.messaging._wire_format import CONTENT_TYPE_HEADER

if TYPE_CHECKING:
    from polaris.observability import StructuredLogger


@event_type("polaris.request.failure")
class RequestFailure(PolarisEvent, frozen=True, omit_defaults=True):
    """The handler of a request raised: the stable code and the public title of its error, nothing else of it."""

    error_code: str
    title: str
    retryable: bool | None = None


class Responder:
    """Sends the outcome of a request to where the asking side waits for it."""

    def __init__(self, broker: MessageBroker, codec: EventCodec, *, logger: StructuredLogger) -> None:
        self._broker = broker
        self._codec = codec
        self._logger = logger

    async def answer(self, delivery: Delivery, result: Any, error: BaseException | None) -> None:
        """Reply with the returned event or the error; a handler that returned no event gives no reply.

        A reply that cannot be sent is logged: the asking side runs into its timeout.
        """
        if delivery.reply_to is None or (error is None and not isinstance(result, PolarisEvent)):
            return
        reply = result if error is None else _failure_of(error)
        try:
            content_type = self._codec.wire_format.content_type(batch=False)
            headers = None if content_type is None else {CONTENT_TYPE_HEADER: content_type}
            message = OutgoingMessage(delivery.reply_to, self._codec.encode(reply), headers=headers)
            await self._broker.publish(message)
        except PolarisException as problem:
            self._logger.warning("a reply could not be sent", topic=delivery.subject, error=problem)


def _failure_of(error: BaseException) -> RequestFailure:
    if isinstance(error, PolarisException):
        return RequestFailure(error.code, error.title, error.retryable)
    return RequestFailure(PolarisException.code, PolarisException.title)


def reply_of(topic: str, delivery: Delivery, codec: EventCodec) -> PolarisEvent:
    """The event of a reply. Raises `RequestFailedError` when the handler failed, `MessageDecodeError` for no event."""
    event = codec.decode(delivery.payload).event
    if isinstance(event, RequestFailure):
        raise RequestFailedError(
            topic, remote_code=event.error_code, title=event.title, remote_retryable=event.retryable
        )
    return event


def check_requestable(topic: str, stream: str | None) -> None:
    """Refuse a topic that a stream stores: its acknowledgement would be taken for the reply."""
    if stream is not None:
        raise MessageBusError(
            f"{topic!r} is stored by a stream; requests need a topic that is not", {"topic": topic, "stream": stream}
        )
