"""JetStream's answer to a publish: done, not done, or unknown."""

from __future__ import annotations

import msgspec

from polaris.exceptions import PublishError, UnconfirmedPublishError
from polaris.messaging._broker import NOBODY_STORES, DeliveryClass, OutgoingMessage, Receipt
from polaris.messaging.brokers._nats_replies import NoReply, Reply


class _Confirmation(msgspec.Struct):
    """JetStream's answer to a publish."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: dict[str, object] | None = None


_decode_confirmation = msgspec.json.Decoder(_Confirmation).decode


def receipt_of(message: OutgoingMessage, answer: Reply | NoReply, timeout_s: float) -> Receipt:
    """What JetStream's answer to a publish means: done, not done, or unknown."""
    context = {"topic": message.subject, "message_id": message.message_id}
    if answer is NoReply.FORBIDDEN:
        raise PublishError(f"the server forbids publishing to {message.subject!r}", context)
    if isinstance(answer, NoReply):
        why = f"nothing within {timeout_s:g} s" if answer is NoReply.TIMEOUT else answer.value
        raise UnconfirmedPublishError(f"the message for {message.subject!r} is not confirmed: {why}", context)
    if answer.nobody_listens:
        raise PublishError(f"no stream stores {message.subject!r}", {**context, "reason": NOBODY_STORES})
    try:
        confirmation = _decode_confirmation(answer.payload)
    except msgspec.DecodeError as error:
        raise UnconfirmedPublishError(f"the answer for {message.subject!r} is not of a stream", context) from error
    if confirmation.error is not None:
        reason = confirmation.error.get("description", "without a reason")
        context["err_code"] = str(confirmation.error.get("err_code"))
        raise PublishError(f"the stream refused the message for {message.subject!r}: {reason}", context)
    if not confirmation.stream:
        raise UnconfirmedPublishError(f"the answer for {message.subject!r} is not of a stream", context)
    return Receipt(
        delivery=DeliveryClass.AT_LEAST_ONCE,
        message_id=message.message_id,
        stream=confirmation.stream,
        sequence=confirmation.seq,
        duplicate=confirmation.duplicate,
    )
