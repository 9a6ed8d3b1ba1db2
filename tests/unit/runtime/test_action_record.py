"""What the API shows of an action in the ledger."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from polaris.domain import AdaptationAction, ExecutionResult, ExecutionStatus
from polaris.runtime._ledger import LedgerEntry
from polaris.runtime._view import record_of
from polaris.testing import VirtualClock


def entry(**fields: object) -> LedgerEntry:
    now = VirtualClock().now()
    running = LedgerEntry(
        action=AdaptationAction("a-1", "scale", "web", created_at=now),
        status=ExecutionStatus.RUNNING,
        taken_by="boot",
        taken_at=now + timedelta(seconds=1),
    )
    return msgspec.structs.replace(running, **fields)


def test_an_action_says_by_which_id_its_story_is_found_and_which_sample_it_began_with() -> None:
    sampled_at = VirtualClock().now() - timedelta(seconds=2)
    record = record_of(entry(correlation_id="one loop", caused_at=sampled_at, source="rule"))
    assert (record.correlation_id, record.caused_at, record.source) == ("one loop", sampled_at, "rule")


def test_an_action_that_nobody_knows_the_cause_of_says_nothing_of_it() -> None:
    record = record_of(entry())
    assert (record.correlation_id, record.caused_at, record.source) == (None, None, None)


def test_a_secret_in_an_id_from_outside_is_not_shown() -> None:
    record = record_of(entry(correlation_id="password=hunter2"))
    assert record.correlation_id is not None
    assert "hunter2" not in record.correlation_id


def test_an_action_without_a_result_began_when_it_was_taken() -> None:
    running = entry()
    assert record_of(running).started_at == running.taken_at
    ended = entry(status=ExecutionStatus.SUCCESS, result=ExecutionResult("a-1", ExecutionStatus.SUCCESS))
    assert record_of(ended).started_at is None
