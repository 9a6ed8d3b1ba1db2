"""The endpoints that look into the node itself."""

from __future__ import annotations

from starlette.responses import Response

from polaris.api._bus_view import StreamsView
from polaris.api._endpoints import Arguments, Context, Endpoint
from polaris.api._inspection_view import ConfigurationView, HealthReport
from polaris.api._parameters import ID_CHARS_MAX, Parameter
from polaris.api._stream import EVENT_STREAM_TYPE
from polaris.api._tap_stream import TapResponse
from polaris.exceptions import InvalidTopicError, InvalidValueError

TAPPED = "polaris.>"


async def _health(context: Context, _: Arguments) -> HealthReport:
    """How everything does."""
    return context.view.inspection.health()


async def _configuration(context: Context, _: Arguments) -> ConfigurationView:
    """What the node was told, and where from."""
    return await context.view.inspection.configuration()


async def _streams(context: Context, _: Arguments) -> StreamsView:
    """What the broker holds."""
    return await context.view.inspection.streams()


async def _tap(context: Context, arguments: Arguments) -> Response:
    """What passes on the bus from now on."""
    if arguments["method"] == "HEAD":
        return Response(media_type=EVENT_STREAM_TYPE, headers={"Cache-Control": "no-store"})
    pattern = arguments["pattern"]
    return TapResponse(await context.view.inspection.tap(pattern), pattern, context.streams)


def _pattern() -> Parameter:
    """Subjects to look on at: the first part is a name, so that what belongs to brokers and clients stays theirs."""
    expected = "a subject such as polaris.telemetry.> that begins with a name: * is one part, > at the end all others"

    def parse(text: str) -> str:
        from polaris.messaging._subjects import check_pattern  # an API that nobody asks for a tap does not need the bus

        try:
            if text[:1] in ("*", ">", "_") or len(text) > ID_CHARS_MAX:
                raise InvalidValueError("pattern", expected, text)
            return check_pattern(text)
        except InvalidTopicError as error:
            raise InvalidValueError("pattern", expected, text) from error

    schema = {"type": "string", "minLength": 1, "maxLength": ID_CHARS_MAX, "default": TAPPED}
    return Parameter("pattern", "What to look on at.", schema, parse, default=TAPPED)


INSPECTION_ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "/api/v1/health",
        "health",
        "How the node and its parts do; of what is not well the cause and what to do, and the breakers that are open.",
        _health,
        HealthReport,
    ),
    Endpoint(
        "/api/v1/configuration",
        "configuration",
        "The settings in effect, each with where it comes from; secrets are masked.",
        _configuration,
        ConfigurationView,
    ),
    Endpoint(
        "/api/v1/bus/streams",
        "streams",
        "The streams of the broker with what they hold, and the consumers of each with their lag; 503 when the broker "
        "does not answer.",
        _streams,
        StreamsView,
    ),
    Endpoint(
        "/api/v1/tap",
        "tap",
        "What passes on the bus, as server-sent events: `hello` when it begins, `event` with each event as JSON or the "
        "beginning of a message that is none, `dropped` when that was too much, `heartbeat` when nothing passes. "
        "Changes nothing on the bus; 503 when as many look on as may.",
        _tap,
        media_type=EVENT_STREAM_TYPE,
        parameters=(_pattern(),),
    ),
)
