"""nats-py's connection without the defects that cost messages or hang it.

Kept of nats-py: the handshake, authentication, TLS, the pool of servers, the pings, the replay of subscriptions after a
reconnect. Replaced, with the reason at each place: everything that let a message, a cancellation or a frozen peer take
the connection down or hang it, and how bytes are read and written (`_nats_socket`). The overridden names are private to
nats-py, hence its narrow version range; `tests/integration/messaging` fails for each when an upgrade changes them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from nats import errors
from nats.aio.client import Client, Server, Srv
from nats.aio.subscription import Subscription
from nats.protocol.parser import AUTHORIZATION_VIOLATION

from polaris.messaging.brokers._nats_config import NATSConfig
from polaris.messaging.brokers._nats_keys import read_credentials, read_seed
from polaris.messaging.brokers._nats_lame_duck import address_of, leave
from polaris.messaging.brokers._nats_protocol import FrameParser
from polaris.messaging.brokers._nats_socket import Transport, Wire
from polaris.messaging.brokers._tasks import end
from polaris.resilience import Backoff

Receive = Callable[[str, str, bytes, bytes | None], None]
"""Takes subject, reply subject, payload and raw header block of a message, at once and without raising."""

_log = logging.getLogger(__name__)

_CRLF = b"\r\n"
_CLOSING_S = 1.0
"""How long a peer that does not read can delay closing; before that a flush has had its own time."""


class HardenedClient(Client):
    """One connection of `NATSMessageBroker`. Use from one event loop; `close` ends it for good.

    `on_lost(error)` is called at once when a connection breaks, before anything else is tried; `on_back()` when one is
    made again and the server has all subscriptions; `on_end()` when no more attempts will be made; `on_error(error)`
    for what the server or the network complain of meanwhile. `on_leaving()` is awaited before the connection is given
    up for one to another server, so that what is under way can end; False keeps it. They must not raise.
    """

    def __init__(
        self,
        config: NATSConfig,
        *,
        on_lost: Callable[[Exception], None],
        on_back: Callable[[], None],
        on_end: Callable[[], None],
        on_error: Callable[[Exception], None],
        on_leaving: Callable[[], Awaitable[bool]],
    ) -> None:
        super().__init__()
        self._ps = FrameParser(self)
        self._socket = Transport()
        self._transport = self._socket
        self._wire = Wire(self._ps.parse, on_end=self._broke)
        self._config = config
        self._receivers: dict[int, Receive] = {}
        self._on_lost = on_lost
        self._on_back = on_back
        self._on_end = on_end
        self._on_error = on_error
        self._on_leaving = on_leaving
        self._leaving: asyncio.Task[None] | None = None
        self._rounds = 0
        self._tried: set[str] = set()
        self._backoff = Backoff(config.reconnect_time_wait, config.reconnect_time_wait_max_s, jitter="equal")
        self._abandoned = False

    async def open(self) -> None:
        """Try to connect until it succeeds; the caller bounds and cancels it, then calls `close`.

        Raises `ConfigurationError` for a key file that holds no key.
        """
        config = self._config
        if config.nkey is not None:
            read_seed(config.nkey)
        if config.credentials is not None:
            read_credentials(config.credentials)
        # nats-py declares whole seconds, and takes fractions.
        optional: dict[str, Any] = {
            "connect_timeout": config.attempt_timeout_s,
            "reconnect_time_wait": config.reconnect_time_wait,
            "ping_interval": config.ping_interval_s,
        }
        if config.tls is not None:
            optional |= {"tls": config.tls.context(), "tls_handshake_first": config.tls.handshake_first}
            if config.tls.hostname is not None:
                optional["tls_hostname"] = config.tls.hostname
        await self.connect(
            servers=list(config.servers),
            name=config.name,
            token=config.token,
            user=config.user,
            password=config.password,
            user_credentials=config.credentials,
            nkeys_seed=config.nkey,
            allow_reconnect=config.max_reconnect_attempts != 0,
            max_reconnect_attempts=config.max_reconnect_attempts,
            reconnect_to_server_handler=self._next_server,
            # One unanswered ping is enough: silence is noticed after one to two intervals.
            max_outstanding_pings=1,
            # Back-pressure and refusal while disconnected are decided before anything is buffered.
            pending_size=1 << 40,
            inbox_prefix=config.inbox_prefix,
            error_cb=self._report,
            reconnected_cb=self._came_back,
            closed_cb=self._ended,
            **optional,
        )

    async def shut(self) -> None:
        """Close for good, whatever state the connection is in; all tasks of the client have ended afterwards."""
        self.abandon()
        patience = asyncio.get_running_loop().call_later(_CLOSING_S, self._socket.abort)
        try:
            if self.is_connected:
                await self._wire.room()
            self._wire.let_go()
            await self.close()
        except Exception as error:  # boundary: nats-py's way of closing a broken connection may fail anywhere
            self._on_error(error)
        finally:
            patience.cancel()
            self._wire.let_go()
            self._socket.abort()
        tasks = (self._reading_task, self._flusher_task, self._ping_interval_task, self._reconnection_task)
        await end(self._leaving, self._wire.ending, *tasks)

    def abandon(self) -> None:
        """Let no further attempt to connect succeed, whoever makes it."""
        self._abandoned = True

    # Sending

    @property
    def congested(self) -> bool:
        """More bytes than allowed wait for the socket."""
        return self._wire.waiting_bytes > self._config.send_buffer_bytes_max

    async def room(self) -> None:
        """Wait until the socket has taken what waits for it now."""
        await self._wire.room()

    def send(self, subject: str, reply: str, headers: bytes | None, payload: bytes) -> None:
        """Put one message behind all that were sent before. The caller has checked subject, size and state."""
        if headers is None:
            frame = b"".join((f"PUB {subject} {reply} {len(payload)}\r\n".encode(), payload, _CRLF))
        else:
            head = f"HPUB {subject} {reply} {len(headers)} {len(headers) + len(payload)}\r\n"
            frame = b"".join((head.encode(), headers, payload, _CRLF))
        self._wire.write(frame)

    def offer(self, head: bytes, payload: bytes) -> bool:
        """As `send` without headers, unless that is too much at once: then it does nothing and says False.

        `head` is the line before the payload up to its length, which the caller has checked as for `send`.
        """
        if len(payload) > self._max_payload:
            return False
        return self._wire.offer(head, payload, self._config.send_buffer_bytes_max)

    async def flush(self, timeout: float = 10.0) -> None:
        """Wait until the server has handled all that was sent. nats-py's does not when one of its tasks has ended."""
        if self.is_closed:
            raise errors.ConnectionClosedError
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        await self._send_ping(answer)
        try:
            async with asyncio.timeout(timeout):
                await answer
        except TimeoutError as error:
            raise errors.FlushTimeoutError from error

    # Receiving

    async def listen(self, pattern: str, receive: Receive, *, group: str = "") -> Subscription:
        """Hand what arrives on `pattern` to `receive`. The server knows of it after the next `flush`."""
        # With a future nats-py makes neither queue nor task for the subscription; the future is never used.
        subscription = await self.subscribe(pattern, queue=group, future=asyncio.get_running_loop().create_future())
        self._receivers[subscription._id] = receive  # noqa: SLF001
        return subscription

    def mute(self, subscription: Subscription) -> None:
        """Ask the server for no more; what it has sent already still arrives until `forget`."""
        if self.is_connected:
            self._wire.write(b"UNSUB %d\r\n" % subscription._id)  # noqa: SLF001

    def forget(self, subscription: Subscription) -> None:
        """Drop what still arrives; nothing is replayed after a reconnect."""
        self._receivers.pop(subscription._id, None)  # noqa: SLF001
        self._remove_sub(subscription._id)  # noqa: SLF001

    def dispatch(self, sid: int, subject: bytes, reply: bytes, payload: bytes, headers: bytes | None) -> None:
        """Take a message from the parser, past nats-py's queue and task per subscription."""
        receive = self._receivers.get(sid)
        if receive is None:
            return
        try:
            receive(
                subject.decode("utf-8", "backslashreplace"),
                reply.decode("utf-8", "backslashreplace") if reply else "",
                payload,
                headers,
            )
        except Exception:  # boundary: one receiver's failure must not cost the others their messages
            _log.exception("a message on %s could not be taken", subject)

    # Losing the connection and coming back

    def _next_server(self, servers: list[Server], _info: dict[str, Any]) -> tuple[Server, float]:
        """A server not yet tried in this round, and a wait: nats-py's own is fixed, and before every attempt.

        Waits grow, with jitter, from one round through all servers to the next. Within a round there is none: the
        server that is back must not wait for those that are not.
        """
        left = [server for server in servers if server.uri.netloc not in self._tried]
        begins = not left or not self._tried
        if begins:
            self._tried.clear()
        server = random.choice(left or servers)  # noqa: S311
        self._tried.add(server.uri.netloc)
        if not begins:
            return server, 0.0
        self._rounds += 1
        if self._rounds == 1:
            return server, random.uniform(0.0, self._config.reconnect_time_wait)  # noqa: S311
        return server, self._backoff.delay_s(self._rounds - 1)

    async def _process_op_err(self, e: Exception) -> None:
        """The connection broke: say so at once, and give the socket up.

        nats-py waits for the transport to close, which a peer that is frozen with a full socket delays for minutes; and
        it sends after the reconnect, however late, what had not been written, although those who waited for it were
        told.
        """
        if not (self.is_closed or self.is_reconnecting):
            self._wire.let_go()
            self._socket.abort()
            self._rounds = 0
            self._tried.clear()
            for server in self._server_pool:
                # Failures of an earlier outage are no reason to give a server up in this one.
                server.reconnects = 0
            if self._leaving is not None and self._leaving is not asyncio.current_task():
                self._leaving.cancel()
            self._on_lost(e)
        await super()._process_op_err(e)

    async def _broke(self, error: Exception) -> None:
        """The connection has ended by itself, or cannot be read any further."""
        if isinstance(error, errors.UnexpectedEOF):
            self._on_error(error)
        await self._process_op_err(error)

    # Leaving a server that will end

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """Leave a server that says it will end. nats-py tells of it and does nothing."""
        await super()._process_info(info, initial_connection)
        if initial_connection or info.get("ldm") is not True or not self.options["allow_reconnect"]:
            return
        # It says so again whenever something changes in the cluster.
        if self._current_server is not None and (self._leaving is None or self._leaving.done()):
            announced = frozenset(info.get("connect_urls") or ())
            going = leave(self, announced, address_of(self._current_server), self._config)
            self._leaving = asyncio.create_task(going, name="nats-lame-duck")

    def others(self, announced: Collection[str]) -> list[Srv]:
        """The servers of the configuration and those that the present one announces, but not itself.

        What was discovered and is not announced any more is the present server under another name, or gone.
        """
        return [
            server
            for server in self._server_pool
            if server is not self._current_server and (not server.discovered or server.uri.netloc in announced)
        ]

    async def move_to(self, server: Srv) -> None:
        """Give the connection up for one to `server`, with nothing left on the way, if `on_leaving` agrees."""
        if not await self._on_leaving():
            return
        for sid in self._subs:
            # What the server sent after the answer to the flush would be lost; it has all of them again afterwards.
            self._wire.write(b"UNSUB %d\r\n" % sid)
        try:
            async with asyncio.timeout(self._config.attempt_timeout_s):
                await self.flush()
        except (errors.Error, OSError, TimeoutError) as error:
            self._on_error(error)
        await self._process_op_err(errors.ConnectionClosedError())
        self._tried = {other.uri.netloc for other in self._server_pool if other is not server}

    async def _process_err(self, err_msg: str) -> None:
        """The server complains. nats-py then closes for good; the server itself hangs up when it is that bad."""
        message = err_msg.strip("'")
        self._err = errors.AuthorizationError() if AUTHORIZATION_VIOLATION in message else errors.Error(message)
        self._on_error(self._err)

    async def _connect_to_server(self, s: Srv) -> None:
        """One attempt. An abandoned client makes none: nats-py's loops lose cancellations, see `end`.

        One that failed after its handshake leaves its socket open in nats-py.
        """
        if self._abandoned:
            raise asyncio.CancelledError
        self._give_up_handshake()
        await super()._connect_to_server(s)

    async def _process_connect_init(self) -> None:
        """The handshake. A failed one closes its socket, and always counts as an attempt that failed.

        nats-py leaks the socket; takes a peer that hangs up for connected; and dies of exceptions it does not expect.
        """
        try:
            if self._abandoned:
                raise asyncio.CancelledError
            await super()._process_connect_init()
            if not self.is_connected:
                raise errors.Error("the server hung up during the handshake")
            self._ps.reset()
            self._wire.take_over(self._socket)
        except (OSError, errors.Error, TimeoutError):
            self._give_up_handshake()
            raise
        except Exception as error:  # boundary: bytes of an unknown peer, key files of the user
            self._give_up_handshake()
            raise errors.Error(f"the handshake failed: {error}") from error
        except BaseException:  # boundary: undone, then raised again
            self._give_up_handshake()
            raise

    def _give_up_handshake(self) -> None:
        self._wire.let_go(keep=True)
        self._socket.abort()
        if self._ping_interval_task is not None:
            self._ping_interval_task.cancel()

    def _connect_command(self) -> bytes:
        """Send no secret in the clear when encryption was asked for: nats-py leaves the choice to the server."""
        wanted = self._config.tls is not None or (self._current_server and self._current_server.uri.scheme == "tls")
        if wanted and not self._socket.encrypted:
            raise errors.SecureConnWantedError
        return bytes(super()._connect_command())

    def _read_creds_user_jwt(self, creds: Any) -> bytearray:
        """The token in a credentials file: of one without, nats-py's reader never comes back."""
        return bytearray(read_credentials(creds).token)

    def _read_creds_user_nkey(self, creds: Any) -> bytearray:
        """The seed in a credentials file, read as it was when it was checked."""
        return bytearray(read_credentials(creds).seed)

    async def _process_pong(self) -> None:
        """A `flush` that was cancelled or timed out has a late answer: nats-py's reader dies of it."""
        if self._pongs and self._pongs[0].done():
            self._pongs.pop(0)
            self._pongs_received += 1
            self._pings_outstanding = 0
        else:
            await super()._process_pong()

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        """Ping behind everything that was sent before. nats-py's overtakes it, so that its flush proves nothing."""
        self._pongs.append(future or asyncio.get_running_loop().create_future())
        self._wire.write(b"PING\r\n")
        await self._flush_pending()

    async def _send_command(self, cmd: bytes, priority: bool = False) -> None:
        self._wire.write(cmd)

    async def _flush_pending(self, force_flush: bool = False) -> None:
        """See to it that what was sent is written, without nats-py's flusher; it never waits for that."""
        self._wire.kick()

    async def _read_loop(self) -> None:
        """Nothing: `Wire` reads what arrives and writes what is sent, without tasks that could end."""

    _flusher = _read_loop

    async def _report(self, error: Exception) -> None:
        self._on_error(error)

    async def _came_back(self) -> None:
        # Broken again at the last moment, there is another attempt under way already.
        if self.is_connected:
            self._on_back()

    async def _ended(self) -> None:
        self._on_end()
