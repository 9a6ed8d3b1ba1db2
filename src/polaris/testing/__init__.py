"""What tests of POLARIS and of code built on it need: virtual time, a bus that tells, faults, the suites of the ports.

Nothing in the package imports this room. Names are loaded when first used, so importing one suite does not pull in the
libraries of another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polaris._lazy import lazy_names

if TYPE_CHECKING:
    from polaris.testing._faults import Fault, FaultPlan, Injection
    from polaris.testing._faulty_broker import FaultyBroker
    from polaris.testing._happenings import Happening, HappeningKind
    from polaris.testing._harness import BusHarness
    from polaris.testing._instant import InstantClock
    from polaris.testing._virtual_clock import VirtualClock
    from polaris.testing._virtual_loop import VirtualTimeDeadlock, VirtualTimeLoop, run_virtual, running_clock

_HOMES = {
    "BusHarness": "_harness",
    "Fault": "_faults",
    "FaultPlan": "_faults",
    "FaultyBroker": "_faulty_broker",
    "Happening": "_happenings",
    "HappeningKind": "_happenings",
    "Injection": "_faults",
    "InstantClock": "_instant",
    "VirtualClock": "_virtual_clock",
    "VirtualTimeDeadlock": "_virtual_loop",
    "VirtualTimeLoop": "_virtual_loop",
    "run_virtual": "_virtual_loop",
    "running_clock": "_virtual_loop",
}

__all__ = [
    "BusHarness",
    "Happening",
    "HappeningKind",
    "FaultyBroker",
    "FaultPlan",
    "Fault",
    "Injection",
    "InstantClock",
    "VirtualClock",
    "VirtualTimeDeadlock",
    "VirtualTimeLoop",
    "run_virtual",
    "running_clock",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
