"""The life of the connection to NATS: made, lost, made again, closed, and what is said about it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import deque
from collections.abc import Callable

from nats import errors

from polaris.exceptions import BusConnectionError, ConfigurationError, MessageBusError
from polaris.messaging._broker import ConnectionState, StateListener
from polaris.messaging._state_listeners import StateListeners
from polaris.messaging.brokers._nats_client import HardenedClient
from polaris.messaging.brokers._nats_config import NATSConfig, without_secrets
from polaris.messaging.brokers._nats_replies import NoReply, Reply, ReplyInbox, Take
from polaris.messaging.brokers._tasks import end

_log = logging.getLogger(__name__)

_REFUSALS = ("authorization", "authentication", "nkey", "jwt")
_PERMISSION_PUBLISH = 'permissions violation for publish to "'
_PERMISSION_SUBSCRIBE = 'permissions violation for subscription to "'
_TOO_MANY_SUBSCRIPTIONS = "maximum subscriptions exceeded"
_INFORMATION = ".INFO."
_COMPLAINTS_KEPT = 32
_LEAVING_S = 0.25
"""How long answers that are on their way are waited for before a server is left that will end."""
QUESTIONS = 3
PAYLOAD_BYTES_ASSUMED = 1 << 20
_CAN_SEND = (ConnectionState.CONNECTED, ConnectionState.DRAINING)


class NATSConnection:
    """One connection at a time, behind `NATSMessageBroker`. Reports states in order; never reconnects after `close`."""

    def __init__(self, config: NATSConfig, *, on_lost: Callable[[], None]) -> None:
        self.config = config
        self.reconnects = 0
        self._state = ConnectionState.DISCONNECTED
        self._listeners = StateListeners()
        self._on_lost = on_lost
        self._lifecycle = asyncio.Lock()
        self._client: HardenedClient | None = None
        self._met: HardenedClient | None = None
        self._replies: ReplyInbox | None = None
        self._last_error: Exception | None = None
        self._refusal: Exception | None = None
        self._refused = asyncio.Event()
        self._complaints: deque[str] = deque(maxlen=_COMPLAINTS_KEPT)
        self._leaving = False

    @property
    def state(self) -> ConnectionState:
        return self._state

    def on_state(self, listener: StateListener) -> Callable[[], None]:
        """Call `listener` at every change of state, until what is returned is called."""
        return self._listeners.add(listener)

    def enter(self, state: ConnectionState) -> None:
        """Change the state and tell the listeners."""
        if state is self._state:
            return
        self._state = state
        self._listeners.tell(state)

    @property
    def payload_bytes_max(self) -> int:
        """The limit of the server that was met last; before the first one, nats-server's default."""
        met = self._met
        return PAYLOAD_BYTES_ASSUMED if met is None else met._max_payload  # noqa: SLF001 - one call less a message

    def require_client(self, *, settling: bool = False) -> HardenedClient:
        """The client while messages can be sent; raises `BusConnectionError` otherwise.

        While a server is being left, only what is `settling` messages of before goes out.
        """
        client = self._client
        if client is None or (self._state not in _CAN_SEND and not (settling and self._leaving)):
            raise BusConnectionError(f"the broker is {self._state.value}", {"state": self._state.value})
        return client

    async def open(self) -> bool:
        """Connect within `connect_timeout_s`; False when there is a connection, or a lost one is being made again."""
        async with self._lifecycle:
            if self._client is not None and not self._client.is_closed:
                return False
            self._last_error = self._refusal = None
            self._refused.clear()
            client = HardenedClient(
                self.config,
                on_lost=self._lost,
                on_back=self._back,
                on_end=self._ended,
                on_error=self._complained,
                on_leaving=self._leave,
            )
            replies = ReplyInbox(client)
            try:
                async with asyncio.timeout(self.config.connect_timeout_s):
                    await self._first_connection(client)
                    await replies.open()
                    await client.flush()
            except (TimeoutError, errors.Error, OSError) as error:
                await client.shut()
                raise self._unreachable(error) from error
            except BaseException:  # boundary: undone, then raised again
                await client.shut()
                raise
            self._client, self._met, self._replies = client, client, replies
            self.enter(ConnectionState.CONNECTED)
            return True

    async def close(self) -> None:
        """Flush what can be flushed, and close for good; questions in flight end without an answer. Idempotent."""
        async with self._lifecycle:
            client, self._client = self._client, None
            replies, self._replies = self._replies, None
            if client is None:
                return
            if self._state in (ConnectionState.CONNECTED, ConnectionState.DRAINING):
                with contextlib.suppress(errors.Error, OSError, TimeoutError):
                    async with asyncio.timeout(self.config.drain_timeout_s):
                        await client.flush()
            self.enter(ConnectionState.CLOSED)
            if replies is not None:
                replies.give_up(NoReply.LOST)
            await client.shut()

    async def flush(self) -> None:
        """Wait until the server has handled all that was sent; `BusConnectionError` after `api_timeout_s`."""
        client = self.require_client()
        try:
            async with asyncio.timeout(self.config.api_timeout_s):
                await client.flush()
        except (TimeoutError, errors.Error, OSError) as error:
            raise BusConnectionError(f"the server does not answer: {error}", {"state": self._state.value}) from error

    async def room(self, timeout_s: float) -> HardenedClient:
        """The client, once the bytes that wait for the socket are below their bound.

        Raises `BusConnectionError` when that takes longer than `timeout_s`; nothing was sent then.
        """
        client = self.require_client()
        if client.congested:
            try:
                async with asyncio.timeout(timeout_s):
                    while client.congested:
                        await client.room()
                        client = self.require_client()
            except TimeoutError as error:
                raise BusConnectionError(
                    f"the server takes no more data: {self.config.send_buffer_bytes_max} bytes wait for it",
                    {"timeout_s": timeout_s},
                ) from error
        return client

    async def ask(
        self, subject: str, payload: bytes, *, headers: bytes | None = None, timeout_s: float
    ) -> Reply | NoReply:
        """Send a question and wait for its answer, see `ReplyInbox.ask`."""
        if self.require_client().congested:
            await self.room(timeout_s)
        replies = self._replies
        if replies is None:
            raise BusConnectionError(f"the broker is {self._state.value}", {"state": self._state.value})
        return await replies.ask(subject, payload, headers=headers, timeout_s=timeout_s)

    async def gather(self, subject: str, payload: bytes, take: Take, *, silence_s: float) -> NoReply | None:
        """Send a question that has several answers, see `ReplyInbox.gather`."""
        await self.room(silence_s)
        replies = self._replies
        if replies is None:
            raise BusConnectionError(f"the broker is {self._state.value}", {"state": self._state.value})
        return await replies.gather(subject, payload, take, silence_s=silence_s)

    async def ask_server(self, subject: str, payload: bytes) -> bytes:
        """Ask JetStream's administration.

        A question that changes nothing is repeated within `api_timeout_s`: a cluster without a leader lets it pass
        unanswered. Raises `BusConnectionError` without an answer, `MessageBusError` without JetStream.
        """
        questions = QUESTIONS if _INFORMATION in subject else 1
        for _ in range(questions):
            answer = await self.ask(subject, payload, timeout_s=self.config.api_timeout_s / questions)
            if answer is not NoReply.TIMEOUT:
                break
        if isinstance(answer, NoReply):
            raise BusConnectionError(f"no answer to {subject}: {answer.value}", {"subject": subject})
        if answer.nobody_listens:
            raise MessageBusError("JetStream is not available on the server", {"subject": subject})
        return answer.payload

    async def questions_answered(self) -> None:
        """Wait until no question waits for its answer."""
        while self._replies is not None and self._replies.waiting:  # noqa: ASYNC110 - each ends by its own timeout
            await asyncio.sleep(0.005)

    def complaint_of_subscribing(self, pattern: str) -> str | None:
        """What the server has said against a subscription to `pattern`, once; None when it said nothing."""
        for complaint in self._complaints:
            if f'{_PERMISSION_SUBSCRIBE}{pattern.lower()}"' in complaint or _TOO_MANY_SUBSCRIPTIONS in complaint:
                self._complaints.remove(complaint)
                return complaint
        return None

    async def _first_connection(self, client: HardenedClient) -> None:
        """Try until it succeeds, or until the server refuses this client for good."""
        opening = asyncio.create_task(client.open(), name="nats-connect")
        refusal = asyncio.create_task(self._refused.wait(), name="nats-refusal")
        try:
            await asyncio.wait((opening, refusal), return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                raise self._refusal or errors.AuthorizationError()
            opening.result()
        except ImportError as error:
            problem = "nats.nkey and nats.credentials need the extra: pip install 'polaris-infrastructure[nkeys]'"
            raise ConfigurationError(problems=[problem]) from error
        finally:
            if not opening.done():
                client.abandon()
            await end(opening, refusal)

    def _unreachable(self, error: Exception) -> BusConnectionError:
        # What comes after a refusal, such as the reset of its connection, says less.
        reason = self._refusal or self._last_error or error
        servers = ", ".join(without_secrets(server) for server in self.config.servers)
        if isinstance(error, TimeoutError) and not isinstance(error, errors.Error):
            text = f"no connection to {servers} within {self.config.connect_timeout_s:g} s"
            text += "" if reason is error else f": {reason}"
        else:
            text = f"no connection to {servers}: {reason}"
        return BusConnectionError(text, {"servers": servers, "reason": type(reason).__name__})

    def _lost(self, error: Exception) -> None:
        if self._state is ConnectionState.CONNECTED:
            _log.warning("the connection to NATS is lost: %s", error)
            self.enter(ConnectionState.RECONNECTING)
        if self._replies is not None:
            self._replies.give_up(NoReply.LOST)
        self._on_lost()

    async def _leave(self) -> bool:
        """The server will end, and another one is there: begin nothing new, and let what is under way be answered."""
        if self._state is not ConnectionState.CONNECTED:
            return False
        self._leaving = True
        self.enter(ConnectionState.RECONNECTING)
        try:
            async with asyncio.timeout(_LEAVING_S):
                await self.questions_answered()
        except TimeoutError:
            pass  # it ends as it does when a connection breaks
        finally:
            self._leaving = False
        return True

    def _back(self) -> None:
        self.reconnects += 1
        if self._state is ConnectionState.RECONNECTING:
            _log.info("the connection to NATS is back")
            self.enter(ConnectionState.CONNECTED)

    def _ended(self) -> None:
        if self._client is not None and self._state is not ConnectionState.CLOSED:
            _log.error("no more attempts to connect to NATS: %s", self._last_error)
            self.enter(ConnectionState.CLOSED)

    def _complained(self, error: Exception) -> None:
        self._last_error = error
        text = str(error).lower()
        if isinstance(error, (errors.SecureConnWantedError, ssl.SSLCertVerificationError)) or any(
            word in text for word in _REFUSALS
        ):
            self._refusal = error
            self._refused.set()
        self._complaints.append(text)
        # Attempts to reconnect fail by the dozen; what a connected server complains of is news.
        level = logging.WARNING if self._state is ConnectionState.CONNECTED else logging.DEBUG
        _log.log(level, "NATS: %s", str(error) or type(error).__name__)
        _, found, rest = text.partition(_PERMISSION_PUBLISH)
        if found and self._replies is not None:
            self._replies.give_up(NoReply.FORBIDDEN, subject=rest.partition('"')[0])
