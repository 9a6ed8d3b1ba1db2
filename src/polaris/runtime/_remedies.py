"""What to do about a part of the node that is not well: for the page, the API and `polaris doctor`."""

from __future__ import annotations

CONNECTOR = "connector:"

# By the beginning of the name: the longer ones first.
_OF_COMPONENTS = {
    "bus server": "look at the room on the disk and at the node's log; it is started again by itself",
    "bus storage": "make room on the disk of the bus; storing begins again by itself",
    "bus": "check that the NATS server runs and answers: polaris check",
    "store": "make room on its disk, or bring the database back; telemetry waits in the stream until then",
    "telemetry ingest": "see whether the store is slow (polaris bench) or the machine overloaded; the log says more",
    "action path": "the node's log names what the actions wait for; their outcome: polaris tail 'polaris.executions.>'",
    CONNECTOR: "check that the managed system runs, and the options of its connector: polaris check",
    "event loop": "a handler or connector blocks the node: look at what was added last",
}
OF_SYSTEMS = "look at its charts and adaptations; an action may help: polaris act"
OF_SILENCE = "check that it runs and publishes, or that its connector does: polaris check"
OF_BREAKERS = "mend what it guards; it tries again after actions.breaker_open_s by itself"
OF_ISOLATED = "it was isolated by hand, and stays so until it is closed by hand"
_OTHERWISE = "look at the node's log"


def remedy_for(component: str) -> str:
    """What to do about the component."""
    return next((text for begin, text in _OF_COMPONENTS.items() if component.startswith(begin)), _OTHERWISE)
