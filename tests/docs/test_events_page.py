"""The page on events and schemas is a program, and what it says of the JSON forms of a reading is true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.docs.test_pages_run import DOCS, wrong_with

from polaris.domain import MetricValue, Quality

PAGE = DOCS / "concepts" / "events-and-schemas.md"


def test_every_block_of_the_page_runs_and_prints_what_the_page_says(tmp_path: Path) -> None:
    wrong = wrong_with(PAGE, tmp_path)
    assert wrong == [], "\n".join(wrong)


def test_the_forms_of_a_reading_mean_what_the_page_says() -> None:
    meanings: dict[str, Any] = {
        "measured, and it was 0": (0.0, Quality.OK),
        "not measured": (None, Quality.MISSING),
        "measured earlier": (3.5, Quality.STALE),
    }
    rows = re.findall(r"^\| (`\{.*\}`) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    assert [meaning for _, meaning in rows] == [*meanings, "refused: it cannot be both"]
    for forms, meaning in rows:
        for form in re.findall(r"`(\{.*?\})`", forms):
            if meaning in meanings:
                reading = msgspec.json.decode(form, type=MetricValue)
                assert (reading.value, reading.quality) == meanings[meaning]
            else:
                with pytest.raises(msgspec.ValidationError, match="None for a reading of quality missing"):
                    msgspec.json.decode(form, type=MetricValue)
