"""What engines differ in is data, and the documentation says just that."""

from __future__ import annotations

from pathlib import Path

from polaris.storage import PolarisDataStore
from polaris.storage._capabilities import CAPABILITIES, capabilities_table

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "store-capabilities.md"


def test_the_page_holds_the_table_of_the_engines() -> None:
    assert capabilities_table() in PAGE.read_text()


def test_every_engine_has_its_capabilities_under_its_name(tmp_path: Path) -> None:
    stores = [
        PolarisDataStore.memory(),
        PolarisDataStore.sqlite(tmp_path / "store.db"),
        PolarisDataStore.postgresql("postgresql://host/database"),
    ]
    assert [store.engines[0].name for store in stores] == list(CAPABILITIES)


def test_a_line_of_the_table_stands_for_each_difference() -> None:
    lines = capabilities_table().splitlines()
    assert lines[0] == "| | memory | sqlite | postgresql |"
    assert "| `durable` | no | yes | yes |" in lines
    assert "| `isolation` | serial | serial | serializable |" in lines
