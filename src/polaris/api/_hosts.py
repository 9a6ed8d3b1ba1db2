"""Under which names a node answers. Loads no web framework."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


def hosts_for(bound_to: str, extra: Iterable[str] = ()) -> frozenset[str] | None:
    """The host names that a server bound to `bound_to` answers for; None means any.

    On loopback these are the loopback names only. A page of a foreign site whose name an attacker's resolver points at
    127.0.0.1 ("DNS rebinding") still sends its own name and is turned away. Bound to anything else, the names under
    which the machine is known cannot be told from here, so all are accepted unless `extra` lists them.
    """
    names = frozenset(name.lower() for name in extra)
    if is_loopback(bound_to):
        return LOOPBACK_HOSTS | {bound_to.lower()} | names
    return names | {bound_to.lower()} if names else None


def is_loopback(host: str) -> bool:
    """Whether the name or address means this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_name(header: str) -> str | None:
    """The name in a `Host` header without its port, None when it is not one."""
    text = header.strip().lower()
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        well_formed = bool(bracket) and (not port or (port[0] == ":" and port[1:].isdigit()))
    else:
        name, colon, port = text.partition(":")
        well_formed = not colon or port.isdigit()
    return name if name and well_formed else None
