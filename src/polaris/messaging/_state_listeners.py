"""Those who want to know where a connection stands: told in turn, and forgotten when they ask for it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from polaris.messaging._broker import ConnectionState, StateListener

_log = logging.getLogger(__name__)


class StateListeners:
    """The listeners of one broker. A listener that raises is reported and keeps no other from being told."""

    def __init__(self) -> None:
        self._listeners: dict[object, StateListener] = {}

    def __len__(self) -> int:
        return len(self._listeners)

    def add(self, listener: StateListener) -> Callable[[], None]:
        """Tell `listener` from now on; what is returned ends that, and may be called more than once."""
        place = object()
        self._listeners[place] = listener

        def forget() -> None:
            self._listeners.pop(place, None)

        return forget

    def tell(self, state: ConnectionState) -> None:
        """Tell everybody who listens now; one whom another has just removed is not told any more."""
        for place in list(self._listeners):
            listener = self._listeners.get(place)
            if listener is None:
                continue
            try:
                listener(state)
            except Exception:  # boundary: a listener is foreign code and changes nothing for the connection
                _log.exception("a listener for the state of the connection failed")
