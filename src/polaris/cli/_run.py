"""`polaris run`: a node in the foreground. One Ctrl-C drains and stops it, a second one leaves at once.

Leaving at once loses nothing: what was not acknowledged comes again at the next start, and the bus server ends by
itself when the node is gone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from polaris._redaction import redact_text
from polaris.cli import _exit
from polaris.cli._output import coloured
from polaris.runtime import Node
from polaris.runtime._assembly import BREAK_OFF_S

if TYPE_CHECKING:
    from polaris.runtime import Settings
    from polaris.runtime._configuration import Configuration


def run_node(configuration: Configuration) -> int:
    """Run until SIGINT or SIGTERM; the exit code."""
    os.umask(0o077)  # what the node writes is its user's own: telemetry, actions, the token
    settings = configuration.settings
    _configure_logging(settings)
    return asyncio.run(_run(Node(settings, origination=configuration.origination), settings.node.shutdown_grace_s))


def _configure_logging(settings: Settings) -> None:
    from pathlib import Path

    from polaris.observability import LoggingConfig, configure_logging

    chosen = settings.logging
    configure_logging(
        LoggingConfig(
            level=chosen.level,
            console_format=chosen.format,
            console_level=chosen.console_level,
            file_enabled=chosen.file is not None,
            file_path=Path(chosen.file) if chosen.file else None,
            max_file_size=chosen.max_file_size,
            backup_count=chosen.backup_count,
        )
    )


async def _run(node: Node, grace_s: float) -> int:
    asked_to_stop = asyncio.Event()
    _on_signal(asked_to_stop)
    starting = asyncio.ensure_future(node.start())
    stopping = asyncio.ensure_future(asked_to_stop.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    limit_s = grace_s + BREAK_OFF_S
    if not starting.done():
        # Cancelling the start rolls back what had begun.
        starting.cancel()
        await _within(limit_s, starting, "rolling the start back")
        return _exit.INTERRUPTED
    try:
        await starting
    except BaseException:  # boundary: undone, then raised again
        stopping.cancel()
        raise
    _say_where(node)
    await asked_to_stop.wait()
    print(f"stopping, at most {limit_s:g} s; Ctrl-C again leaves at once", file=sys.stderr, flush=True)
    end = asyncio.ensure_future(node.stop())
    await _within(limit_s, end, "the stop")
    await end
    print("stopped", file=sys.stderr, flush=True)
    return _exit.OK


async def _within(limit_s: float, work: asyncio.Future[None], what: str) -> None:
    """Wait until `work` has ended, however; leave when it takes too long, for whoever asked counts on the end."""
    _, late = await asyncio.wait((work,), timeout=limit_s)
    if late:
        _exit.complain(
            f"{what} takes longer than {limit_s:g} s and is broken off; the next start takes up what is left"
        )
        _leave(_exit.FAILED)
    if not work.cancelled():
        work.exception()  # seen: whoever wants it awaits the work


def _on_signal(asked_to_stop: asyncio.Event) -> None:
    def ask() -> None:
        if asked_to_stop.is_set():
            _leave(_exit.INTERRUPTED)
        asked_to_stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask)


def _leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _say_where(node: Node) -> None:
    print(coloured(f"POLARIS node {node.settings.node.name} is running", "bold"))
    if node.http_url is not None:
        print(f"  page     {node.http_url}")
        print(f"  metrics  {node.http_url}metrics")
    if node.http_token_file is not None:
        print(f"  changes  need the token in {node.http_token_file}")
    print(f"  bus      {redact_text(node.bus_url or '')}")
    if node.bus_token_file is not None:
        print(f"  token    in {node.bus_token_file}")
    print(f"  data     {node.settings.data_dir}")
    print("Ctrl-C stops it.", flush=True)
