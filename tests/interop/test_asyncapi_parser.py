"""The AsyncAPI document is one in the eyes of the AsyncAPI initiative's own parser."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.interop import packages

from polaris.domain import EVENTS, EventRegistry, PolarisEvent
from polaris.messaging import STANDARD_STREAMS, StreamSpec, asyncapi_document

# The first test may have to install the packages.
# One worker waits for the packages, not all of them.
pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("npm")]
# Documents of 3.0 are what most tools read.
TOLERATED = {"asyncapi-latest-version"}


class OvenMeasured(PolarisEvent, frozen=True):
    celsius: float | None
    corner: tuple[int, str] = (0, "")


def checked(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What the parser says of a document."""
    path = folder / "asyncapi.json"
    path.write_text(json.dumps(document))
    ended = subprocess.run(
        packages.command("check_document.mjs", path), capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_the_document_of_a_node_has_no_finding(tmp_path: Path) -> None:
    found = checked(asyncapi_document(servers={"node": "nats://127.0.0.1:4222"}), tmp_path)
    assert found["valid"]
    assert found["version"] == "3.0.0"
    assert [one for one in found["findings"] if one["code"] not in TOLERATED] == []
    assert set(found["messages"]) >= {entry.name for entry in EVENTS if entry.name.startswith("polaris.")}
    assert "polaris.telemetry.{system_id}" in found["channels"]


def test_the_document_with_types_topics_and_streams_of_ones_own_has_no_finding(tmp_path: Path) -> None:
    registry = EventRegistry(parent=EVENTS)
    registry.register(OvenMeasured, "acme.oven.measured", version=2)
    document = asyncapi_document(
        registry,
        (*STANDARD_STREAMS, StreamSpec(name="OVENS", subjects=("acme.>",))),
        {"one": "tls://nats.example:4222", "two": "nats://[::1]:4222"},
        topics={"acme.ovens.{site}.{oven}": [OvenMeasured]},
        title="Ovens",
    )
    found = checked(document, tmp_path)
    assert [one for one in found["findings"] if one["code"] not in TOLERATED] == []
    assert "acme.ovens.{site}.{oven}" in found["channels"]


def without_an_action(document: dict[str, Any]) -> None:
    del document["operations"]["receiveTelemetry"]["action"]


def with_a_parameter_too_many(document: dict[str, Any]) -> None:
    document["channels"]["telemetry"]["parameters"]["colour"] = {}


@pytest.mark.parametrize(
    ("spoil", "place"),
    [
        (without_an_action, "operations.receiveTelemetry"),
        (with_a_parameter_too_many, "channels.telemetry.parameters"),
    ],
)
def test_a_document_that_is_wrong_is_found_out(
    spoil: Callable[[dict[str, Any]], None], place: str, tmp_path: Path
) -> None:
    document = asyncapi_document()
    spoil(document)
    found = checked(document, tmp_path)
    assert not found["valid"]
    assert any(place in one["path"] for one in found["findings"] if one["severity"] == "error"), found["findings"]


def test_the_locked_packages_have_hashes_and_no_addresses() -> None:
    text = packages.LOCK.read_text()
    assert "://" not in text
    assert '"resolved"' not in text
    assert text.count('"integrity"') == text.count('"node_modules/')
