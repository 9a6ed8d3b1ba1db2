"""The board: readiness follows essential components, and times of change are kept."""

from __future__ import annotations

from polaris.domain import HealthStatus
from polaris.runtime._health import HealthBoard
from polaris.runtime._remedies import remedy_for
from polaris.testing import VirtualClock


def test_the_node_is_not_ready_before_every_essential_component_has_reported_well() -> None:
    board = HealthBoard(clock=VirtualClock())
    board.expect(["bus", "store"])
    assert not board.readiness().ok
    board.report("bus", HealthStatus.HEALTHY)
    assert [check.component for check in board.readiness().checks if not check.ok] == ["store"]
    board.report("store", HealthStatus.WARNING, "slow")
    assert board.readiness().ok
    assert board.overall() == (HealthStatus.WARNING, "store: slow")


def test_what_is_not_well_says_what_to_do_and_what_is_well_does_not() -> None:
    board = HealthBoard(clock=VirtualClock())
    board.expect(["bus storage", "bus"])
    board.report("connector:web", HealthStatus.UNHEALTHY, "gone")
    board.report("bus storage", HealthStatus.WARNING, "full")
    said = {view.name: (view.essential, view.remedy) for view in board.components()}
    assert said["bus"] == (True, ""), "what has not reported yet is not known to be in trouble"
    assert said["bus storage"] == (True, "make room on the disk of the bus; storing begins again by itself")
    assert said["connector:web"] == (False, remedy_for("connector:web"))
    board.report("bus storage", HealthStatus.HEALTHY)
    assert [view.remedy for view in board.components()].count("") == 2
    assert remedy_for("something new") == "look at the node's log"


def test_a_managed_system_in_trouble_is_shown_but_does_not_decide_on_readiness() -> None:
    board = HealthBoard(clock=VirtualClock())
    board.expect(["bus"])
    board.report("bus", HealthStatus.HEALTHY)
    board.report("connector:web", HealthStatus.UNHEALTHY, "gone")
    assert board.readiness().ok
    assert board.overall() == (HealthStatus.WARNING, "connector:web: gone")


def test_an_essential_component_in_trouble_decides_with_its_reason() -> None:
    board = HealthBoard(clock=VirtualClock())
    board.expect(["bus"])
    board.report("bus", HealthStatus.UNHEALTHY, "connection lost")
    assert board.overall() == (HealthStatus.UNHEALTHY, "bus: connection lost")
    assert board.readiness().checks[0].reason == "connection lost"


def test_the_time_moves_with_the_status_and_listeners_hear_of_changes_only() -> None:
    clock = VirtualClock()
    board = HealthBoard(clock=clock)
    heard: list[str] = []
    board.on_change(lambda view: heard.append(f"{view.status}:{view.message}"))
    board.report("bus", HealthStatus.HEALTHY, details={"n": 1})
    begun = clock.now()
    clock.advance(5)
    board.report("bus", HealthStatus.HEALTHY)
    view = board.get("bus")
    assert view is not None
    assert view.since == begun
    assert view.details == {"n": 1}
    board.report("bus", HealthStatus.UNHEALTHY, "lost")
    board.report("bus", HealthStatus.UNHEALTHY, "still lost")
    assert heard == ["healthy:", "unhealthy:lost", "unhealthy:still lost"]
    changed = board.get("bus")
    assert changed is not None
    assert changed.since == clock.now()
