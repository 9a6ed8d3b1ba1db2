"""Ids become tokens and topics; nothing that comes from outside can widen a subscription."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from polaris.domain import (
    AdaptationAction,
    AdaptationEvent,
    ConfigChangedEvent,
    ExecutionResult,
    ExecutionResultEvent,
    ExecutionStatus,
    HealthEvent,
    HealthStatus,
    SystemState,
    TelemetryBatch,
    TelemetryEvent,
)
from polaris.exceptions import InvalidTopicError, InvalidValueError
from polaris.messaging import (
    adaptation_topic,
    dead_letter_topic,
    decode_token,
    encode_token,
    execution_topic,
    health_topic,
    telemetry_topic,
    topic_of,
    topic_pattern,
)
from polaris.messaging._patterns import covers, matches, overlap
from polaris.messaging._subjects import check_pattern, check_topic

HOSTILE_IDS = [
    "a.b",
    "*",
    ">",
    "a b",
    "a\tb",
    "..",
    "%",
    "%2E",
    "é",
    "日本",
    "a/b\\c",
    "$SYS",
    '"',
    "\u2028",
    "x" * 256,
]


@pytest.mark.parametrize("system_id", HOSTILE_IDS)
def test_an_id_is_one_token_and_comes_back(system_id: str) -> None:
    token = encode_token(system_id)
    assert not set(token) & set(".*> \t\r\n")
    assert token.isascii()
    assert token.isprintable()
    assert decode_token(token) == system_id


@pytest.mark.parametrize("system_id", HOSTILE_IDS)
def test_the_topic_of_any_id_is_legal_and_matches_itself_alone(system_id: str) -> None:
    topic = telemetry_topic(system_id)
    assert check_topic(topic) == topic
    assert matches("polaris.telemetry.*", topic)
    assert not matches(topic, telemetry_topic("other"))


def test_readable_ids_stay_readable() -> None:
    assert telemetry_topic("web-1") == "polaris.telemetry.web-1"
    assert adaptation_topic("host:9090") == "polaris.adaptations.host:9090"
    assert execution_topic("db_1") == "polaris.executions.db_1"
    assert health_topic("store") == "polaris.health.store"
    assert dead_letter_topic("polaris.telemetry.web-1") == "polaris.dead_letter.polaris.telemetry.web-1"


@pytest.mark.parametrize("system_id", ["", "x" * 257, "x" * 10_000, "\ud800", 7, None, []])
def test_an_id_that_cannot_be_a_token_is_refused(system_id: Any) -> None:
    for encode in (encode_token, telemetry_topic):
        with pytest.raises(InvalidTopicError):
            encode(system_id)


@pytest.mark.parametrize("token", ["", "%", "%2", "%zz", "a%", "%FF", "x" * 257, "%ED%A0%80", "\ud800%41"])
def test_a_token_that_is_no_encoded_id_is_refused(token: str) -> None:
    with pytest.raises(InvalidTopicError):
        decode_token(token)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a b",
        "a\n",
        "a.*",
        "a.>",
        ">",
        "*",
        "a*b",
        "é.a",
        "$JS.API.x",
        "a\x00",
        "x" * 3501,
        7,
    ],
)
def test_an_illegal_topic_is_refused(topic: object) -> None:
    with pytest.raises(InvalidTopicError) as caught:
        check_topic(topic)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("pattern", ["a", "a.b", "*", ">", "a.*", "a.*.c", "a.>", "*.>", "*.*"])
def test_a_legal_pattern_is_taken(pattern: str) -> None:
    assert check_pattern(pattern) == pattern


@pytest.mark.parametrize("pattern", ["", "a.>.b", ">.a", "a*", "a.b>", "a..>", ".>", "$SYS.>", "a .*", 7, "a.>\n"])
def test_an_illegal_pattern_is_refused(pattern: object) -> None:
    with pytest.raises(InvalidTopicError):
        check_pattern(pattern)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("a.>", "a", False),
        ("a.>", "a.b.c", True),
        (">", "a", True),
        ("*.b", "a.b", True),
        ("*.b", "a.c", False),
        ("a.b", "a.b.c", False),
        ("a.b.c", "a.b", False),
    ],
)
def test_patterns_match_as_nats_defines_them(pattern: str, subject: str, expected: bool) -> None:
    assert matches(pattern, subject) is expected


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("a.>", "a.*", True),
        ("a.>", "a.b.>", True),
        ("a.*", "a.>", False),
        ("a.*", "a.b", True),
        ("a.b", "a.*", False),
        ("a.>", "a", False),
        ("*.b", "a.*", False),
        (">", ">", True),
        ("a.*.c", "a.b.c", True),
    ],
)
def test_a_pattern_covers_what_matches_inside_it(wide: str, narrow: str, expected: bool) -> None:
    assert covers(wide, narrow) is expected
    if expected:
        assert overlap(wide, narrow)


def test_patterns_without_a_common_subject_do_not_overlap() -> None:
    assert not overlap("a.b", "a.c")
    assert not overlap("a.*", "a")
    assert not overlap("a.>", "b.>")
    assert overlap("a.*", "*.b")


def test_the_label_of_a_topic_is_its_family() -> None:
    assert topic_pattern("polaris.telemetry.web-1") == "polaris.telemetry.*"
    assert topic_pattern("polaris.config.updates") == "polaris.config.updates"
    assert topic_pattern("polaris.dead_letter.polaris.telemetry.x") == "polaris.dead_letter.>"
    assert topic_pattern("acme.orders.17.lines") == "acme.orders.>"
    assert topic_pattern("acme.orders") == "acme.orders"
    assert topic_pattern("_INBOX.abc.1") == "_INBOX.>"


def test_events_that_name_their_system_have_a_topic_of_their_own() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert topic_of(TelemetryEvent(SystemState("a.b", now))) == "polaris.telemetry.a%2Eb"
    assert topic_of(TelemetryBatch("s", (), {})) == "polaris.telemetry.s"
    assert topic_of(AdaptationEvent(AdaptationAction("1", "scale", "s"))) == "polaris.adaptations.s"
    assert topic_of(HealthEvent("store", HealthStatus.HEALTHY)) == "polaris.health.store"
    for event in (ConfigChangedEvent({}), ExecutionResultEvent(ExecutionResult("1", ExecutionStatus.SUCCESS))):
        with pytest.raises(InvalidTopicError):
            topic_of(event)


@pytest.mark.parametrize("found", [None, {}, "web"], ids=["none", "mapping", "text"])
def test_an_event_that_holds_no_state_or_action_is_refused_by_name(found: Any) -> None:
    for event, field in ((TelemetryEvent(found), "system_state"), (AdaptationEvent(found), "action")):
        with pytest.raises(InvalidValueError, match=field):
            topic_of(event)
