"""Which port page and API take."""

from __future__ import annotations

import socket

from polaris.exceptions import ConfigurationError
from polaris.runtime._settings import HttpSettings

HTTP_PORT_PREFERRED = 8642


def require_free_port(http: HttpSettings) -> None:
    """Raise `ConfigurationError` when the port that is asked for is in use."""
    if http.enabled and http.port and not _is_free(http.host, http.port):
        problem = f"http.port = {http.port}: is in use on {http.host}; choose another, or 0 for any free one"
        raise ConfigurationError(problems=[problem])


def port_of(http: HttpSettings) -> int:
    """The port to listen on; 0 for any free one."""
    if http.port is not None:
        return http.port
    return HTTP_PORT_PREFERRED if _is_free(http.host, HTTP_PORT_PREFERRED) else 0


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex((host, port)) != 0
