"""`polaris doctor`: what is wrong with the node or its machine, why, and what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from polaris.cli import _doctor_machine as machine
from polaris.cli import _doctor_node as node_checks
from polaris.cli import _exit
from polaris.cli._findings import Finding, fine, problem
from polaris.cli._output import coloured, print_json, print_wrapped
from polaris.cli._store import opened_store, store_file
from polaris.cli._waiting import Doing
from polaris.exceptions import ConfigurationError, PolarisException

if TYPE_CHECKING:
    from collections.abc import Callable

    from polaris.runtime import NodeFile, Settings

STORE_ANSWER_S_MAX = 5.0
INDENT = 9
"""What a mark and the space after it take."""
_MARKS = {
    "ok": ("ok     ", "green"),
    "note": ("note   ", "dim"),
    "warning": ("warning", "yellow"),
    "problem": ("PROBLEM", "red"),
}


def examine(read_settings: Callable[[], Settings], *, as_json: bool) -> int:
    """Look at everything and tell it; 0 when nothing is wrong (warnings may be), else the code of what is."""
    try:
        settings = read_settings()
    except ConfigurationError as error:
        refused = [_refused(text) for text in error.problems or (error.message,)]
        _tell([machine.python_version(), *refused], as_json=as_json)
        return _exit.MISCONFIGURED
    findings = Doing("looking at node and machine").run(_all_of(settings))
    _tell(findings, as_json=as_json)
    wrong = {finding.subject for finding in findings if finding.grade == "problem"}
    if not wrong:
        return _exit.OK
    return _exit.UNAVAILABLE if wrong & {"node", "bus"} else _exit.FAILED


def _refused(text: str) -> Finding:
    return problem("configuration", text, "mend it and look again: polaris check")


async def _all_of(settings: Settings) -> list[Finding]:
    node, at_all = await asyncio.to_thread(node_checks.running, settings)
    asked = asyncio.to_thread(lambda: list(node_checks.answers(node))) if node is not None else None
    bus = node_checks.bus(settings) if node is not None or settings.nats.servers else None
    store, newest = await _store(settings)
    said, of_bus = await asyncio.gather(asked or _nothing(), bus or _nothing())
    local = await asyncio.to_thread(lambda: list(_machine(settings, node, newest)))
    return [at_all, *said, *of_bus, store, *local]


async def _nothing() -> list[Finding]:
    return []


def _machine(settings: Settings, node: NodeFile | None, newest: datetime | None) -> Iterator[Finding]:
    yield fine("configuration", "is read without a mistake")
    yield from machine.secret_files(settings)
    yield machine.data_folder(settings.data_dir)
    yield machine.disk(settings.data_dir)
    if node is None:
        found = machine.port(settings)
        if found is not None:
            yield found
    yield machine.clock(newest_sample=newest)
    yield machine.python_version()
    yield from machine.extras(settings)


async def _store(settings: Settings) -> tuple[Finding, datetime | None]:
    """Whether the store can be read, and the time of the newest sample in it."""
    is_file = settings.store.engine == "sqlite"
    what = "store file" if is_file else "store on the server"
    if is_file and not await asyncio.to_thread(store_file(settings).exists):
        return fine(what, "is made at the first start"), None
    try:
        async with asyncio.timeout(STORE_ANSWER_S_MAX), opened_store(settings) as store:
            states = await store.states.get_current_states()
    except TimeoutError:
        slow = f"does not answer within {STORE_ANSWER_S_MAX:g} s"
        return problem(what, slow, "see whether its disk or database is overloaded"), None
    except PolarisException as error:
        do = "check it from end to end: polaris store verify"
        do += "; a backup: polaris store restore" if is_file else ", once its server answers"
        return problem(what, error.message, do), None
    newest = max((state.timestamp for state in states), default=None)
    return fine(what, f"can be read, {len(states)} systems"), newest


def _tell(findings: list[Finding], *, as_json: bool) -> None:
    if as_json:
        wrong = any(finding.grade == "problem" for finding in findings)
        print_json({"ok": not wrong, "findings": msgspec.to_builtins(findings)})
        return
    for finding in findings:
        mark, colour = _MARKS[finding.grade]
        print_wrapped(f"{finding.subject}: {finding.what}", INDENT, mark=f"{coloured(mark, colour)}  ")
        if finding.do:
            print_wrapped(finding.do, INDENT + 3, mark=f"{'':{INDENT}}-> ")
    counts = {grade: sum(finding.grade == grade for finding in findings) for grade in _MARKS}
    print(f"{counts['problem']} problems, {counts['warning']} warnings, {counts['ok']} well")
