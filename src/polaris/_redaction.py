"""Keeps secrets out of everything that is written down: bounded, JSON-safe, redacted copies of arbitrary values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from enum import Enum
from pathlib import PurePath
from uuid import UUID

from polaris._secret_names import (
    DOUBTFUL,
    WORDS,
    asks_for_secret,
    is_doubtful_key,
    is_secret_key,
    may_be_secret,
    names_secret,
)

REDACTED = "[redacted]"
TRUNCATED = "[truncated]"

DEPTH_MAX = 6
ITEMS_MAX = 64
NODES_MAX = 512
TEXT_CHARS_MAX = 2048
KEY_CHARS_MAX = 128
_INT_MAX = 2**63 - 1
_CONTAINERS = frozenset({dict, list, tuple, set, frozenset})

_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{0,64}-----.*?(?:-----END [A-Z0-9 ]{0,64}-----|\Z)", re.DOTALL)
# user:password@ in a URL; the user may be a token, so both go. The password may hold an unescaped "@", ...
_URL = re.compile(r"(?i)([a-z][a-z0-9+.-]{0,31}://)[^\s/?#]{0,1024}@")
# ... or an unescaped "/", which is told from a port and a path by what follows the colon.
_URL_WITH_SLASH = re.compile(
    r"(?i)([a-z][a-z0-9+.-]{0,31}://)[^\s/@:]{0,256}:(?!\d{1,5}(?:[/?#,\s\"']|\Z))[^\s@\"'<>]{1,512}@"
)
# JSON Web Tokens (RFC 7519 compact form).
_JWT = re.compile(r"\beyJ[A-Za-z0-9_-]{4,2048}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?")
_AUTHORIZATION = re.compile(r"(?i)\b(bearer|basic|digest)\s{1,8}[A-Za-z0-9+/._~=-]{6,}")
# user:password@host:port without a scheme.
_LOGIN = re.compile(
    r"(?:(?<![\w.+/-])|(?<=//))[\w.+-]{1,64}:[^\s/@:\"'<>]{1,256}@(?=[\w.-]{1,253}(?::\d{1,5}(?!\w)|/))"
)
# A header, to the end of its line.
_HEADER = re.compile(
    r"(?i)((?:authorization|cookie)\s{0,8}:\s{0,8})(?!\s{0,8}(?:(?:bearer|basic|digest) )?\[redacted\])"
    r"(?:=\"[^\r\n\"]{0,4096}\"?|[^\r\n\"'])+"
)
# key=value and "key": "value" with a telling key, of the words above; in a text "token" is one wherever it stands.
_VALUE = r"(?:\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?|[^\s,;&}\]\)]+)"
_IS = r"\\{0,8}[\"']?\s{0,8}[=:]\s{0,8}"
_CERTAIN = rf"(?:{WORDS}|token|signature|nkey)[\w-]{{0,64}}|(?<![^\W_])jwt"
_TELLING = rf"{_CERTAIN}|(?<![^\W_])dsn"
_WHOLE = rf"(?<![^\W_])(?:(?:db|user|my)?pass|{DOUBTFUL})"
_PLAIN = r"(?!(?:\d{1,12}(?:\.\d{1,12})?|true|false|none|null|ok|on|off|yes|no)(?!\w)|[/~{\[])"
# What follows in a sentence about a setting, such as "store.dsn: is missing".
_SENTENCE = r"(?!-|\[redacted|(?:or|and|to|is|in|for|with|from|of|the|an?|as|was|must|needs|cannot|may|has|nor)(?!\w))"
_PAIR = re.compile(
    rf"(?i)((?:{_CERTAIN}){_IS}(?!\[redacted\]|(?:bearer|basic|digest) \[)"
    rf"|{_WHOLE}{_IS}{_PLAIN}|(?<![^\W_])dsn{_IS}{_SENTENCE}){_VALUE}"
)
# --password value, and the same as a list is written.
_ARGUMENT = re.compile(
    rf"(?i)((?<![\w-])--[\w-]{{0,64}}(?:(?:{WORDS}|token)[\w-]{{0,64}}|(?<=-)(?:pass|{DOUBTFUL}))"
    rf"(?<!file)(?<!path)[\"']?,?\s{{1,8}}){_SENTENCE}{_VALUE}"
)
_MAY_TELL = re.compile(rf"(?i){_TELLING}|{_WHOLE}(?![a-z0-9])")
# What holds whole trees of values, of which a text does not tell the end.
_TREE = re.compile(rf"(?i)(?:{_TELLING}|{_WHOLE}){_IS}[{{\[](?!redacted)")
_NKEY_SEED = re.compile(r"\bS[OACUNX][A-Z2-7]{54,58}\b")

# Every repetition in the patterns is bounded, so that no text, however hostile, makes one run in quadratic time.
_NKEY_SEED_CHARS = 56
_SCAN_CHARS_MAX = 16_384
_SCAN_MARGIN_CHARS = 2_048


class CleanTexts(dict[str, str]):
    """Texts that were found to hold no secret. `clean_texts[text]` is `redact_text(text)`; a known one costs a look.

    Names, states, topics and fixed messages come again and again. What holds a secret is never kept. Bounded: full, it
    starts anew.
    """

    LENGTH_MAX = 2_048
    TEXT_CHARS_MAX = 128

    def __missing__(self, text: str) -> str:
        return redact_text(text)

    def keep(self, text: str) -> None:
        """Remember a clean text, unless it is long."""
        if len(text) <= self.TEXT_CHARS_MAX:
            if len(self) >= self.LENGTH_MAX:
                self.clear()
            self[text] = text


clean_texts = CleanTexts()


def tells_of_secrets(text: str) -> bool:
    """Whether a word in it may name a secret."""
    return _MAY_TELL.search(text) is not None


def without_trees(text: str) -> str:
    """`text` up to the first list or map that stands under a telling key."""
    found = _TREE.search(text)
    return text if found is None else text[: found.end() - 1] + REDACTED


def redact_text(text: str, *, chars_max: int = TEXT_CHARS_MAX) -> str:
    """`text` with secrets replaced by a marker, cut to `chars_max` characters.

    Secrets are removed before the cut, so that a cut never hides the end of a secret from the patterns. Of a text over
    16 384 characters only the beginning is looked at, and what stands close to that end is left out as well.
    """
    known = clean_texts.get(text)
    if known is not None and len(known) <= chars_max:
        return known
    exact = text if type(text) is str else _exact_text(text)
    redacted = _redacted(exact, chars_max)
    if redacted == exact:
        clean_texts.keep(exact)
    return redacted


def _exact_text(text: object) -> str:
    """A subclass of `str` may carry anything and print as it likes; what is no text at all is made one."""
    return str.__str__(text if isinstance(text, str) else as_text(text))


def _redacted(text: str, chars_max: int) -> str:
    if len(text) < _NKEY_SEED_CHARS and text.isidentifier() and len(text) <= chars_max:
        return text  # A word: no pattern but that of the seeds can match without punctuation.
    scan_max = max(_SCAN_CHARS_MAX, 4 * chars_max)
    cut = len(text) > scan_max
    if cut:
        text = text[:scan_max]
    text = _without_secrets(text)
    if cut:
        text = text[:-_SCAN_MARGIN_CHARS]
    if cut or len(text) > chars_max:
        text = text[: max(0, chars_max - len(TRUNCATED))] + TRUNCATED
    # Lone surrogates cannot be written as UTF-8.
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _without_secrets(text: str) -> str:
    # Substrings are found many times faster than expressions, and nearly all text holds no secret.
    folded = text.lower()
    if "-----begin " in folded:
        text = _PEM.sub(REDACTED, text)
    separated = ":" in folded or "=" in folded
    if separated and "://" in folded and "@" in folded:
        text = _URL_WITH_SLASH.sub(rf"\1{REDACTED}@", _URL.sub(rf"\1{REDACTED}@", text))
    if "@" in folded and ":" in folded:
        text = _LOGIN.sub(f"{REDACTED}@", text)
    if "eyj" in folded:
        text = _JWT.sub(REDACTED, text)
    if "bearer" in folded or "basic" in folded or "digest" in folded:
        text = _AUTHORIZATION.sub(rf"\1 {REDACTED}", text)
    if (separated or "--" in folded) and (
        "pass" in folded
        or "secret" in folded
        or "token" in folded
        or "key" in folded
        or "auth" in folded
        or "cookie" in folded
        or "credential" in folded
        or "session" in folded
        or "bearer" in folded
        or "sig" in folded
        or "dsn" in folded
        or "jwt" in folded
        or "pwd" in folded
    ):
        if ":" in folded:
            text = _HEADER.sub(rf"\1{REDACTED}", text)
        text = _PAIR.sub(rf"\1{REDACTED}", text)
        if "--" in folded:
            text = _ARGUMENT.sub(rf"\1{REDACTED}", text)
    if len(text) >= _NKEY_SEED_CHARS and "S" in text:
        text = _NKEY_SEED.sub(REDACTED, text)
    return text


class _Copier:
    """Copies one value; counts its nodes so that wide and deep structures end."""

    __slots__ = ("_nodes", "_path")

    def __init__(self) -> None:
        self._nodes = 0
        self._path: set[int] = set()

    def copy(self, value: object, depth: int) -> object:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            return TRUNCATED
        try:
            scalar = _scalar(value)
        except Exception as error:  # boundary: user code in properties, conversions and time zones
            return f"[unreadable {type(value).__name__}: {type(error).__name__}]"
        if scalar is not _NOT_SCALAR:
            return scalar
        if depth >= DEPTH_MAX:
            return TRUNCATED
        if id(value) in self._path:
            return "[cycle]"
        self._path.add(id(value))
        try:
            if isinstance(value, Mapping):
                return self._copy_mapping(value, depth)
            if isinstance(value, (Sequence, AbstractSet)):
                return self._copy_items(value, depth)
        except Exception as error:  # boundary: a hostile container must not break the reporting of another error
            return f"[unreadable {type(value).__name__}: {type(error).__name__}]"
        finally:
            self._path.discard(id(value))
        return _safe_repr(value)

    def _copy_mapping(self, value: Mapping[object, object], depth: int) -> dict[str, object]:
        copy: dict[str, object] = {}
        for key, item in value.items():
            if len(copy) >= ITEMS_MAX or self._nodes > NODES_MAX:
                copy["..."] = f"{len(value) - len(copy)} more"
                break
            name, secret = _names[key] if type(key) is str else _judge_name(_key_text(key))
            if secret is None:
                secret = may_be_secret(item)
            copy[name] = REDACTED if secret else self.copy(item, depth + 1)
        if "value" in copy and names_secret(value):
            copy["value"] = REDACTED
        return copy

    def _copy_items(self, value: Sequence[object] | AbstractSet[object], depth: int) -> list[object]:
        copy: list[object] = []
        asked = False
        for item in value:
            if len(copy) >= ITEMS_MAX or self._nodes > NODES_MAX:
                copy.append(f"... {len(value) - len(copy)} more")
                break
            copy.append(REDACTED if asked and isinstance(item, str) else self.copy(item, depth + 1))
            asked = asks_for_secret(item)
        return copy


_NOT_SCALAR = object()


class _Names(dict[str, tuple[str, bool | None]]):
    """The judgement on each field name, None where its value decides: few, they come again, so it is kept. Full, it
    starts anew.

    Not kept is a name that is over 128 characters long or holds a secret itself.
    """

    LENGTH_MAX = 2_048

    def __missing__(self, key: str) -> tuple[str, bool | None]:
        judged = _judge_name(key)
        if judged[0] == key:
            if len(self) >= self.LENGTH_MAX:
                self.clear()
            self[key] = judged
        return judged


_names = _Names()


def _judge_name(key: str) -> tuple[str, bool | None]:
    name = redact_text(key, chars_max=KEY_CHARS_MAX)
    if is_secret_key(name):
        return name, True
    return name, None if is_doubtful_key(name) else False


def _key_text(key: object) -> str:
    if isinstance(key, str):
        return str(key.value) if isinstance(key, Enum) else str.__str__(key)
    return _safe_repr(key)


def _scalar(value: object) -> object:
    # The exact types of nearly all fields first.
    kind = type(value)
    if kind is str:
        return redact_text(value)  # type: ignore[arg-type]
    if kind is int and -_INT_MAX <= value <= _INT_MAX:  # type: ignore[operator]
        return value
    if kind in _CONTAINERS:
        return _NOT_SCALAR
    if value is None or value is True or value is False:
        return value
    if kind is float and math.isfinite(value):  # type: ignore[arg-type]
        return value
    if isinstance(value, str):
        return redact_text(str(value.value) if isinstance(value, Enum) else str.__str__(value))
    if isinstance(value, Enum):
        return redact_text(str(value.value))
    if isinstance(value, int):
        return int(value) if -_INT_MAX <= value <= _INT_MAX else f"[integer of {value.bit_length()} bits]"
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else repr(float(value))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"[{len(value)} bytes]"
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (UUID, PurePath)):
        return redact_text(str(value))
    if isinstance(value, type):
        return value.__qualname__
    if isinstance(value, BaseException):
        return redact_text(f"{type(value).__name__}: {as_text(value)}")
    return _NOT_SCALAR


def as_text(value: object) -> str:
    """`str(value)`, or a marker when that fails. Not redacted."""
    try:
        return str(value)
    except Exception as error:  # boundary: user code in __str__
        return f"[unprintable {type(value).__name__}: {type(error).__name__}]"


def _safe_repr(value: object) -> str:
    try:
        return redact_text(repr(value), chars_max=256)
    except Exception as error:  # boundary: user code in __repr__
        return f"[unprintable {type(value).__name__}: {type(error).__name__}]"


def redact(value: object) -> object:
    """A JSON-safe copy of any value: secrets out, cycles cut, depth, width and length bounded. Never raises.

    Bounds: depth 6, 64 items per container, 512 nodes in all, 2 048 characters per text. Non-finite numbers become
    their names, bytes their length, unknown objects their redacted `repr`.
    """
    return _Copier().copy(value, 0)


def redact_fields(fields: Mapping[str, object]) -> dict[str, object]:
    """`redact` for the fields of one record; a field with a telling name loses its value whatever that is."""
    if type(fields) is dict and len(fields) <= ITEMS_MAX:
        flat = _flat_copy(fields)
        if flat is not None:
            return flat
    copy = _Copier().copy(fields, 0)
    return copy if isinstance(copy, dict) else {"fields": copy}


def _flat_copy(fields: dict[str, object]) -> dict[str, object] | None:
    """What `_Copier` makes of nearly all records, many times faster: of texts and numbers. None if this is another."""
    copy: dict[str, object] = {}
    try:
        for key, value in fields.items():
            if type(key) is not str:
                return None
            name, secret = _names[key]
            kind = type(value)
            if secret is None:
                secret = may_be_secret(value)
            if secret:
                copy[name] = REDACTED
            elif kind is str:
                copy[name] = clean_texts[value]  # type: ignore[index] # the type is known
            elif value is None or kind is int or kind is float or kind is bool:
                copy[name] = _scalar(value)
            else:
                return None
    except RuntimeError:  # another thread changed it meanwhile
        return None
    if "value" in copy and names_secret(fields):
        copy["value"] = REDACTED
    return copy
