"""What a node's operator writes into files of others: the systemd unit, the compose file, the OpenAPI document."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

import msgspec

from polaris import __version__
from polaris.cli._templates import template
from polaris.exceptions import InvalidValueError
from polaris.runtime._assembly import BREAK_OFF_S
from polaris.runtime._http_port import HTTP_PORT_PREFERRED

if TYPE_CHECKING:
    from polaris.runtime import Settings

STOP_MARGIN_S = 5
"""What a supervisor leaves a node beyond its own limit, before it kills."""
CONTENT_INDENT = " " * 6


def stop_limit_s(settings: Settings) -> int:
    """Seconds after which a node that was asked to stop has stopped or will not."""
    return round(settings.node.shutdown_grace_s + BREAK_OFF_S) + STOP_MARGIN_S


def systemd_unit(settings: Settings, *, config: Path | None, user: str) -> str:
    """A unit for this installation, this configuration file and this data folder, all by absolute paths.

    Raises `InvalidValueError` for a path that a unit cannot hold.
    """
    found = shutil.which(sys.argv[0]) if Path(sys.argv[0]).name == "polaris" else None
    program = [str(Path(found).absolute())] if found else [sys.executable, "-m", "polaris"]
    arguments = [*program, "run", "--data-dir", str(settings.data_dir)]
    if config is not None:
        arguments += ["--config", str(config.absolute())]
    folder = config.absolute().parent if config is not None else settings.data_dir.parent
    writable = [str(settings.data_dir), *([str(settings.store_path.parent)] if settings.store.path else [])]
    if settings.logging.file:
        writable.append(str(Path(settings.logging.file).expanduser().absolute().parent))
    return template(
        "polaris.service",
        {
            "name": _plain(settings.node.name),
            "user": _plain(user),
            "folder": _escaped(str(folder)),
            "command": " ".join(_quoted(argument) for argument in arguments),
            "stop_s": str(stop_limit_s(settings)),
            # A folder that is not there yet is made by the node, in the first of these that exists.
            "writable": " ".join(_quoted(str(_existing(Path(path)))) for path in dict.fromkeys(writable)),
        },
    )


def _existing(path: Path) -> Path:
    return next((one for one in (path, *path.parents) if one.exists()), path)


def _escaped(text: str) -> str:
    """`text` as a whole value of a unit; percent signs begin specifiers there."""
    if not text.isprintable():
        raise InvalidValueError("path", "a path of printable characters", text)
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    """`text` as one word of a unit's command line, where dollars stand for variables."""
    plain = _escaped(text)
    if shlex.quote(text) == text:
        return plain
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{escaped}"'


def _plain(text: str) -> str:
    return _escaped(text).replace("\\", "\\\\")


def compose_file(settings: Settings) -> str:
    """A compose file that holds all it needs, Prometheus with the alert rules and Grafana with the dashboard too."""
    from polaris.cli._grafana import dashboard

    port = str(settings.http.port or HTTP_PORT_PREFERRED)
    contents = {
        "prometheus": template("prometheus.yml", {"port": port}),
        "alerts": template("alerts.yaml"),
        "dashboard": _json(dashboard()),
    }
    # Compose puts values in place of dollars.
    embedded = {name: indent(text.rstrip().replace("$", "$$"), CONTENT_INDENT) for name, text in contents.items()}
    values = {"port": port, "version": __version__, "stop_s": str(stop_limit_s(settings))}
    return template("compose.yaml", {**values, **embedded})


def openapi() -> dict[str, Any]:
    """The document that a node answers at `/openapi.json`."""
    from polaris.api._app import ALL_ENDPOINTS
    from polaris.api._openapi import openapi_document

    return openapi_document(ALL_ENDPOINTS)


def _json(document: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
