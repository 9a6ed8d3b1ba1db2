"""Options and discovery: every mistake in one report, near names, nothing imported before it is asked for."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from polaris.connectors import ConnectorSpec, ManagedSystemConnector, _discovery, connector_names, find_connector
from polaris.connectors.gunicorn import GunicornOptions
from polaris.connectors.host import HostOptions
from polaris.exceptions import ConfigurationError


def problems_of(spec: ConnectorSpec) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        spec.build()
    return caught.value.problems


def test_every_mistake_is_reported_in_one_go() -> None:
    options = {"pid": "one", "worker_max": 3, "workers_min": 0, "window_s": float("nan"), "statsd_port": 70_000}
    problems = problems_of(ConnectorSpec(system_id="web", connector="gunicorn", options=options))
    assert {problem.split(":")[0] for problem in problems} == set(options)
    assert any("did you mean 'workers_max'" in problem for problem in problems)


def test_mistakes_that_only_several_options_show_are_reported_together() -> None:
    options = {"workers_min": 5, "workers_max": 2, "latency_warning_s": 2.0, "latency_critical_s": 1.0}
    problems = problems_of(ConnectorSpec(system_id="web", connector="gunicorn", options=options))
    assert [problem.split(":")[0] for problem in problems] == ["pidfile", "workers_min", "latency_warning_s"]


def test_numbers_may_be_given_as_text_because_environment_variables_are() -> None:
    options = GunicornOptions.read({"pid": "4711", "statsd_port": "8125", "window_s": "2.5"})
    assert (options.pid, options.statsd_port, options.window_s) == (4711, 8125, 2.5)


def test_a_threshold_that_warns_later_than_it_alarms_is_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        HostOptions.read({"cpu_warning": 0.99, "cpu_critical": 0.5})
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["cpu_warning"]


def test_options_that_are_no_table_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="table"):
        HostOptions.read(["filesystems"])  # type: ignore[arg-type]


def test_the_shipped_connectors_are_found_by_name() -> None:
    assert {"host", "gunicorn"} <= set(connector_names())
    assert find_connector("host").options_type is HostOptions
    built = ConnectorSpec(system_id="machine", connector="host").build()
    assert isinstance(built, ManagedSystemConnector)
    assert built.system_id == "machine"


def test_an_unknown_connector_is_refused_with_a_near_name() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'gunicorn'"):
        find_connector("unicorn")


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (["no.such.module:Thing"], "cannot be loaded"),
        (["polaris.connectors:NoSuchName"], "cannot be loaded"),
        (["polaris.connectors:ConnectorSpec"], "has no from_options"),
        (["polaris.connectors.host:HostConnector", "elsewhere:HostConnector"], "several packages"),
    ],
)
def test_a_broken_plugin_is_named(points: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = EntryPoints(EntryPoint("broken", value, _discovery.CONNECTOR_GROUP) for value in points)
    monkeypatch.setattr(_discovery, "entry_points", lambda **params: installed.select(**params))
    with pytest.raises(ConfigurationError, match=message):
        find_connector("broken")


def test_importing_the_room_loads_no_library_that_only_one_connector_needs() -> None:
    code = "import sys, polaris.connectors; print(sorted({'psutil', 'gunicorn', 'msgspec'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "['msgspec']"
