"""Connections on which nothing goes on are ended, and no others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from polaris.api._idle import HEAD_WAIT_S, TAKE_WAIT_S, IdleWatch


class Connection:
    """As the server has them: a cycle for each request, and a transport."""

    def __init__(self) -> None:
        self.cycle: Any = None
        self.transport = self
        self.unsent_bytes = 0
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def abort(self) -> None:
        self.aborted = True

    def ask(self) -> None:
        self.cycle = SimpleNamespace(response_complete=False)

    def answer(self) -> None:
        self.cycle.response_complete = True


def looks(watch: IdleWatch, connection: Connection, seconds: float, *, begin_s: float = 0.0) -> None:
    for step in range(int(seconds) + 1):
        if not connection.aborted:
            watch.look([connection], begin_s + step)


def test_a_head_that_does_not_come_ends_the_connection() -> None:
    watch, connection = IdleWatch(), Connection()
    looks(watch, connection, HEAD_WAIT_S - 1)
    assert not connection.aborted
    looks(watch, connection, 1, begin_s=HEAD_WAIT_S)
    assert connection.aborted


def test_a_request_may_take_as_long_as_it_takes() -> None:
    watch, connection = IdleWatch(), Connection()
    connection.ask()
    looks(watch, connection, 100 * HEAD_WAIT_S)
    assert not connection.aborted
    connection.answer()
    looks(watch, connection, HEAD_WAIT_S - 1, begin_s=100 * HEAD_WAIT_S)
    assert not connection.aborted
    looks(watch, connection, 2, begin_s=101 * HEAD_WAIT_S)
    assert connection.aborted


def test_a_client_that_asks_between_the_looks_is_not_idle() -> None:
    watch, connection = IdleWatch(), Connection()
    for second in range(100):
        connection.ask()
        connection.answer()
        watch.look([connection], float(second))
    assert not connection.aborted


def test_an_answer_that_is_taken_slowly_may_take_its_time_and_one_that_is_not_taken_may_not() -> None:
    watch, connection = IdleWatch(), Connection()
    connection.ask()
    connection.answer()
    for second in range(100):
        connection.unsent_bytes = 1_000_000 - second
        watch.look([connection], float(second))
    assert not connection.aborted
    looks(watch, connection, TAKE_WAIT_S - 2, begin_s=100.0)
    assert not connection.aborted
    looks(watch, connection, 1, begin_s=99.0 + TAKE_WAIT_S)
    assert connection.aborted


def test_an_answer_without_an_end_may_say_nothing_but_not_lie_there_untaken() -> None:
    watch, connection = IdleWatch(), Connection()
    connection.ask()
    looks(watch, connection, 100 * TAKE_WAIT_S)
    for second in range(100):
        connection.unsent_bytes = 5_000 - second
        watch.look([connection], 100 * TAKE_WAIT_S + second)
    assert not connection.aborted
    looks(watch, connection, TAKE_WAIT_S, begin_s=100 * TAKE_WAIT_S + 100)
    assert connection.aborted


def test_connections_that_are_gone_are_forgotten() -> None:
    watch = IdleWatch()
    watch.look([Connection() for _ in range(10)], 0.0)
    watch.look([], 1.0)
    assert watch._waiting == {}
