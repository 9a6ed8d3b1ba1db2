"""What may have been meant by an unknown name."""

from __future__ import annotations

from polaris.cli._near import hint, near_names

METRICS = ("system.cpu.utilization", "system.cpu.load_average.1m", "system.memory.usage", "system.uptime")


def test_a_misspelt_name_finds_the_one_that_was_meant() -> None:
    assert near_names("system.memory.usgae", METRICS) == ["system.memory.usage"]
    assert near_names("polaris.healht", ("polaris.health", "polaris.execution")) == ["polaris.health"]


def test_a_part_of_a_name_finds_those_that_have_it() -> None:
    assert set(near_names("cpu", METRICS)) == {"system.cpu.utilization", "system.cpu.load_average.1m"}
    assert near_names("CPU.percen", METRICS)[0].startswith("system.cpu.")
    assert len(near_names("system", [f"system.{number}.x.y.z" for number in range(9)])) == 3


def test_nothing_is_near_to_something_else() -> None:
    assert near_names("elevator", METRICS) == []
    assert near_names("a b", METRICS) == []
    assert near_names("", METRICS) == []
    assert near_names("cpu", []) == []


def test_without_near_names_the_hint_lists_the_first_known_ones() -> None:
    assert hint("elevator", METRICS[:2], "it reports") == f"; it reports {METRICS[0]}, {METRICS[1]}"
    assert hint("elevator", [], "known:") == "; known: none"
    assert hint("zzz", [f"m{number}" for number in range(20)], "known:").endswith("m7 and 12 more")
    assert hint("uptime", METRICS, "known:") == "; did you mean system.uptime?"
