"""The settings in effect with where each comes from, and facts about the process: for the API and the page."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping

from polaris._redaction import redact_text
from polaris.api._inspection_view import ConfigurationView, SettingView
from polaris.runtime._settings import Settings
from polaris.runtime._settings_said import descriptions
from polaris.runtime._settings_walk import (
    OF_A_PROGRAM,
    Origin,
    Origination,
    Path,
    Setting,
    Source,
    dotted,
    every_setting,
)

__all__ = ["OF_A_PROGRAM", "Origination", "configuration_of"]

SETTINGS_SHOWN_MAX = 5_000
_DEFAULT, _PROGRAM = Origin(Source.DEFAULT), Origin(Source.PROGRAM)


def configuration_of(settings: Settings, origination: Origination) -> ConfigurationView:
    """The first `SETTINGS_SHOWN_MAX` settings. Reads a file of the package once; not for the event loop."""
    found = list(every_setting(settings))
    defaults = {setting.path: setting.value for setting in every_setting(Settings())}
    said = descriptions()
    shown = [_view_of(one, _origin_of(one, origination.origins, defaults), said) for one in found[:SETTINGS_SHOWN_MAX]]
    return ConfigurationView(
        settings=tuple(shown),
        left_out=len(found) - len(shown),
        file=origination.file and redact_text(origination.file),
        facts=_facts(settings),
    )


def _origin_of(setting: Setting, origins: Mapping[Path, Origin] | None, defaults: Mapping[Path, object]) -> Origin:
    if origins is None:
        same = setting.value in (setting.default, defaults.get(setting.path, setting.default))
        return _DEFAULT if same else _PROGRAM
    return origins.get(setting.path, _DEFAULT)


def _view_of(setting: Setting, origin: Origin, said: Mapping[str, Mapping[str, str]]) -> SettingView:
    return SettingView(
        key=redact_text(dotted(setting.path)),
        value=setting.value,
        source=origin.source.value,
        origin=redact_text(origin.name),
        default=setting.default,
        is_secret=setting.is_secret,
        description=said.get(setting.section.__name__, {}).get(setting.field, ""),
    )


def _facts(settings: Settings) -> dict[str, str]:
    store = settings.store
    where = str(settings.store_path) if store.engine == "sqlite" else f"PostgreSQL, schema {store.schema}"
    return {
        "data folder": redact_text(str(settings.data_dir)),
        "store": redact_text(where),
        "bus server": "not of this node" if settings.nats.servers else "embedded in this node",
        "process": str(os.getpid()),
        "Python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
