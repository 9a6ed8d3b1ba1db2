"""Questions to the running node over HTTP, with its token: a node that others can reach asks everybody for it."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from polaris.runtime import NodeFile

TIMEOUT_S = 5.0


def ask(node: NodeFile, path: str) -> bytes | None:
    """What the node answers at `path`, also an answer that says no; None when it does not answer."""
    headers = {} if node.http_token is None else {"Authorization": f"Bearer {node.http_token}"}
    request = urllib.request.Request(f"{node.http_url}{path}", headers=headers)  # noqa: S310 - the node's own address
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - as above
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.read()
    except OSError:
        return None


def ask_json(node: NodeFile, path: str) -> Any:
    """The same as JSON; None also for what is none."""
    answer = ask(node, path)
    try:
        return None if answer is None else msgspec.json.decode(answer)
    except msgspec.DecodeError:
        return None
