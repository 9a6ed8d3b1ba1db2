"""How a system's state becomes a point and comes back equal.

A state is one point of the series {system_id}: each metric a field of its own, with its value, so that series and
aggregates reach it by name. What is left is split by how often it changes. The *form* (units, tags, names that differ
from their keys) hardly ever does: it is kept once, in a collection of its own, under a digest of its text, and the
point names the digest. The *rest* (metadata, qualities, own timestamps) is JSON in the point, and only where there is
any. Fields of the state as a whole begin with `@`; a metric's key that does so as well gets one `@` more.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Any

import msgspec

from polaris.domain import HealthStatus, MetricValue, Quality, SystemState
from polaris.storage._ranges import EPOCH
from polaris.storage._timeseries import FieldValue, TimeSeriesPoint

SYSTEM_TAG = "system_id"
FORM_TAG = "form"
HEALTH = "@health"
FORM = "@form"
REST = "@rest"

Text = str | None


class MetricForm(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True):
    """What hardly changes about one metric."""

    unit: str | None = None
    name: str | None = None
    tags: dict[str, str] | None = None


class _Rest(msgspec.Struct, omit_defaults=True):
    """What belongs to one state alone."""

    metadata: dict[str, Any] = {}
    stale: list[str] = []
    stamps: dict[str, datetime] = {}


Form = dict[str, MetricForm]

_encode = msgspec.json.Encoder().encode
_encode_form = msgspec.json.Encoder(order="sorted").encode
_decode_form = msgspec.json.Decoder(Form).decode
_decode_rest = msgspec.json.Decoder(_Rest).decode
_NO_FORM = MetricForm()


def field_of(key: str) -> str:
    """The field that holds the value of the metric with this key."""
    return "@" + key if key.startswith("@") else key


def key_of(field: str) -> str | None:
    """The inverse; None for a field of the state as a whole."""
    if not field.startswith("@"):
        return field
    return field[1:] if field.startswith("@@") else None


class StateCodec:
    """States to points and back. Remembers forms it has met, at most `FORMS_MAX`; full, it starts anew."""

    FORMS_MAX = 4_096

    def __init__(self) -> None:
        self._digests: dict[tuple[tuple[str, Text], ...], tuple[str, str]] = {}
        self._forms: dict[str, Form] = {}

    def encode(self, state: SystemState) -> tuple[TimeSeriesPoint, str, str]:
        """The point of a state, and the digest and text of its form; both are empty when there is nothing to note."""
        fields: dict[str, FieldValue] = {HEALTH: state.health_status.value}
        rest: _Rest | None = None
        plain = True
        units: list[tuple[str, Text]] = []
        for key, metric in state.metrics.items():
            fields[key if key[0] != "@" else "@" + key] = metric.value
            units.append((key, metric.unit))
            if metric.tags or metric.name != key:
                plain = False
            if metric.quality is Quality.STALE or metric.timestamp is not None:
                rest = rest or _Rest(stale=[], stamps={})
                if metric.quality is Quality.STALE:
                    rest.stale.append(key)
                if metric.timestamp is not None:
                    rest.stamps[key] = metric.timestamp
        if state.metadata:
            rest = rest or _Rest()
            rest.metadata = state.metadata
        digest, text = self._plain_form(tuple(units)) if plain else _form_of(state)
        if digest:
            fields[FORM] = digest
        if rest is not None:
            fields[REST] = _encode(rest).decode()
        return TimeSeriesPoint(state.timestamp, {SYSTEM_TAG: state.system_id}, fields), digest, text

    def _plain_form(self, units: tuple[tuple[str, Text], ...]) -> tuple[str, str]:
        known = self._digests.get(units)
        if known is None:
            if len(self._digests) >= self.FORMS_MAX:
                self._digests.clear()
            known = self._digests[units] = _digest({key: MetricForm(unit) for key, unit in units if unit is not None})
        return known

    def learn(self, digest: str, text: str) -> Form:
        """The form that was read from the store, remembered."""
        if len(self._forms) >= self.FORMS_MAX:
            self._forms.clear()
        form = self._forms[digest] = _decode_form(text)
        return form

    def known(self, digest: str) -> Form | None:
        """The form, or None when it has to be read."""
        return self._forms.get(digest)

    @staticmethod
    def decode(point: TimeSeriesPoint, forms: Mapping[str, Form]) -> SystemState:
        """The state of a point, whose form is among `forms` unless it is empty."""
        fields = point.fields
        digest = fields.get(FORM)
        form = forms[digest] if isinstance(digest, str) else {}
        text = fields.get(REST)
        rest = _decode_rest(text) if isinstance(text, str) else _Rest()
        metrics: dict[str, MetricValue] = {}
        for field, value in fields.items():
            key = key_of(field)
            if key is None:
                continue
            noted = form.get(key, _NO_FORM)
            metrics[key] = MetricValue(
                noted.name or key,
                value,
                noted.unit,
                rest.stamps.get(key),
                noted.tags or {},
                Quality.STALE if key in rest.stale else Quality.OK,
            )
        return SystemState(
            point.tags[SYSTEM_TAG],
            point.timestamp,
            metrics,
            HealthStatus(str(fields.get(HEALTH, HealthStatus.UNKNOWN.value))),
            rest.metadata,
        )


def form_point(digest: str, text: str) -> TimeSeriesPoint:
    """The point that keeps a form; the same form is the same point, whoever writes it."""
    return TimeSeriesPoint(EPOCH, {FORM_TAG: digest}, {"text": text})


def _form_of(state: SystemState) -> tuple[str, str]:
    form: Form = {}
    for key, metric in state.metrics.items():
        noted = MetricForm(metric.unit, metric.name if metric.name != key else None, dict(metric.tags) or None)
        if noted != _NO_FORM:
            form[key] = noted
    return _digest(form)


def _digest(form: Form) -> tuple[str, str]:
    if not form:
        return "", ""
    text = _encode_form(form)
    return blake2b(text, digest_size=16).hexdigest(), text.decode()
