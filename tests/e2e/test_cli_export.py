"""`polaris export`: the documents for those who take part in any language, with no node and no server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.commands import ROOT, Polaris
from tests.event_schemas import Schemas

from polaris.domain import HealthEvent, HealthStatus
from polaris.messaging import EventCodec

GOLDEN = ROOT / "docs" / "reference" / "asyncapi.json"
OVENS = """
from polaris.domain import PolarisEvent, event_type

@event_type("acme.oven.measured", version=2)
class OvenMeasured(PolarisEvent, frozen=True):
    celsius: float
"""


@pytest.fixture
def polaris(tmp_path: Path) -> Polaris:
    return Polaris(tmp_path)


def test_the_committed_document_is_what_the_command_prints(polaris: Polaris) -> None:
    ended = polaris("export", "asyncapi")
    assert (ended.code, ended.complaint) == (0, "")
    assert ended.output == GOLDEN.read_text(), "run: polaris export asyncapi --output docs/reference/asyncapi.json"
    assert list(polaris.folder.iterdir()) == [], "a document needs no file"


def test_the_servers_of_the_configuration_are_told_without_their_secrets(polaris: Polaris) -> None:
    settings = '[nats]\nservers = ["nats://anna:hunter2@one.example:4222", "tls://two.example:4222"]\n'
    (polaris.folder / "polaris.toml").write_text(settings)
    ended = polaris("export", "asyncapi")
    assert {name: server["host"] for name, server in ended.json["servers"].items()} == {
        "nats-1": "one.example:4222",
        "nats-2": "two.example:4222",
    }
    assert "hunter2" not in ended.output


def test_the_schemas_are_all_in_one_object_and_a_message_can_be_checked_with_them(polaris: Polaris) -> None:
    ended = polaris("export", "schemas")
    assert (ended.code, ended.complaint) == (0, "")
    schemas = Schemas(ended.json)
    good = EventCodec().encode(HealthEvent("store", HealthStatus.HEALTHY))
    assert schemas.problems(good) == []
    assert schemas.problems(good.replace(b'"healthy"', b'"splendid"')) != []
    assert {uri.split(":")[3] for uri in ended.json} >= {"polaris.telemetry", "polaris.dead_letter"}


@pytest.mark.parametrize("document", ["asyncapi", "schemas"])
def test_a_file_gets_what_would_be_printed_with_the_types_of_other_modules(document: str, polaris: Polaris) -> None:
    (polaris.folder / "ovens.py").write_text(OVENS)
    printed = polaris("export", document, "--module", "ovens")
    written = polaris("export", document, "-m", "ovens", "--output", "there.json")
    assert (written.code, written.output, written.complaint) == (0, "", "")
    assert (polaris.folder / "there.json").read_text() == printed.output
    assert "urn:polaris:schema:acme.oven.measured:2" in printed.output
    json.loads(printed.output)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["schemas", "--module", "nobody.knows"], "--module: expected a module that can be imported"),
        (["schemas", "--output", "missing/there.json"], "--output: expected a file that can be written"),
        (["schemas", "--output", "."], "--output: expected a file that can be written"),
        (["asyncapi", "--config", "missing.toml"], "missing.toml"),
        (["nothing"], "nothing"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(polaris: Polaris, arguments: list[str], complaint: str) -> None:
    ended = polaris("export", *arguments)
    assert ended.code in (2, 78)
    assert complaint in ended.complaint
    assert ended.output == ""
