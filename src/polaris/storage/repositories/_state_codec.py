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
from polaris.domain._frozen import EMPTY
from polaris.exceptions import StoreCorruptError
from polaris.storage._points import check_value, valid_point
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
_NO_REST = _Rest()
_OK, _STALE = Quality.OK, Quality.STALE
_TEXT_OF = {status: status.value for status in HealthStatus}
_HEALTH_OF: dict[FieldValue, HealthStatus] = {status.value: status for status in HealthStatus}


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
        fields: dict[str, FieldValue] = {HEALTH: _TEXT_OF[state.health_status]}
        rest: _Rest | None = None
        plain = True
        units: list[tuple[str, Text]] = []
        for key, metric in state.metrics.items():
            value = metric.value
            field = key if key[0] != "@" else "@" + key
            if value.__class__ is not float and isinstance(value, str):
                check_value(f"fields.{field}", value)  # of texts, states take more than points do
            fields[field] = value
            units.append((key, metric.unit))
            if metric.tags or metric.name != key:
                plain = False
            if metric.quality is _STALE or metric.timestamp is not None:
                rest = rest or _Rest(stale=[], stamps={})
                if metric.quality is _STALE:
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
            check_value(f"fields.{REST}", fields[REST])
        # A state was checked when it was made, and what is allowed in it is allowed in a point, but for those texts.
        return valid_point(state.timestamp, {SYSTEM_TAG: state.system_id}, fields), digest, text

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
        rest = _rest_of(text) if isinstance(text, str) else _NO_REST
        stamps, stale = rest.stamps, rest.stale
        metrics: dict[str, MetricValue] = {}
        for field, value in fields.items():
            key = field if field[0] != "@" else key_of(field)
            if key is None:
                continue
            noted = form.get(key, _NO_FORM)
            metrics[key] = MetricValue(
                noted.name or key,
                value,
                noted.unit,
                stamps.get(key),
                noted.tags or EMPTY,
                _STALE if key in stale else _OK,
            )
        return SystemState(point.tags[SYSTEM_TAG], point.timestamp, metrics, health_of(fields), rest.metadata or EMPTY)


def health_of(fields: Mapping[str, FieldValue]) -> HealthStatus:
    """The health in the fields of a state's point, unknown when there is none.

    Raises `StoreCorruptError` for what is no health.
    """
    health = _HEALTH_OF.get(fields.get(HEALTH, HealthStatus.UNKNOWN.value))
    if health is None:
        raise StoreCorruptError("the health of a stored state is damaged")
    return health


def _rest_of(text: str) -> _Rest:
    try:
        return _decode_rest(text)
    except msgspec.MsgspecError as error:
        raise StoreCorruptError("the rest of a stored state is damaged") from error


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
