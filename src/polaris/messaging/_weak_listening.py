"""Listening to a connection without being kept alive by it: a broker may outlive many that use it."""

from __future__ import annotations

from weakref import WeakMethod

from polaris.messaging._broker import ConnectionState, MessageBroker, StateListener


def listen_weakly(broker: MessageBroker, method: StateListener) -> None:
    """Call `method`, bound to an object, at every change of state for as long as somebody else holds that object."""

    def tell(state: ConnectionState) -> None:
        listener = held()
        if listener is not None:
            listener(state)

    # What forgets `tell` is reached through a cell: the object may be gone before there is anything to forget.
    held = WeakMethod(method, lambda _: forget())
    forget = broker.on_state(tell)
