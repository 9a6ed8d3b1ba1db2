"""A small web service with real work per request: it "generates" text, token by token, by hashing.

    GET /generate?context=374&generated=44&seed=17   the text: deterministic for its parameters
    GET /health                                      ok

Like a language model it reads the context quickly and then generates slowly, each token depending on the one before.
A context token costs `ROUNDS / 25` and a generated token `ROUNDS` rounds of SHA-256 (PBKDF2), so the processor time
of a request is proportional to its tokens. `ROUNDS` comes from the environment; `run.py` measures the machine to
choose it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from urllib.parse import parse_qs

ROUNDS = int(os.environ.get("ROUNDS_PER_TOKEN", "60"))
CONTEXT_TOKENS_PER_ROUNDS = 25
TOKENS_MAX = 10_000
SYLLABLES = ("ka", "lo", "mi", "ne", "po", "ra", "su", "te", "vi", "zo", "da", "fe", "gi", "hu", "jo", "be")

StartResponse = Callable[[str, list[tuple[str, str]]], object]


def generate(context: int, generated: int, seed: int, *, rounds: int = ROUNDS) -> str:
    """`generated` words that depend on all parameters."""
    prompt = f"{seed}:{context}".encode()
    state = hashlib.pbkdf2_hmac("sha256", prompt, b"context", max(1, context * rounds // CONTEXT_TOKENS_PER_ROUNDS))
    words = []
    for _ in range(generated):
        state = hashlib.pbkdf2_hmac("sha256", state, b"token", rounds)
        words.append("".join(SYLLABLES[byte & 15] for byte in state[: 2 + state[31] % 3]))
    return " ".join(words)


def number(query: dict[str, list[str]], name: str, default: int) -> int:
    """A parameter from 0 to `TOKENS_MAX`. Raises ValueError."""
    value = int(query.get(name, [str(default)])[0])
    if not 0 <= value <= TOKENS_MAX:
        raise ValueError(f"{name} must be from 0 to {TOKENS_MAX}")
    return value


def application(environ: dict[str, str], start_response: StartResponse) -> Iterable[bytes]:
    """The WSGI application."""
    status, body = "200 OK", "ok"
    if environ["PATH_INFO"] == "/generate":
        try:
            query = parse_qs(environ.get("QUERY_STRING", ""))
            parameters = number(query, "context", 0), number(query, "generated", 1), number(query, "seed", 0)
        except ValueError as error:
            status, body = "400 Bad Request", f"{error}\n"
        else:
            body = generate(*parameters)
    elif environ["PATH_INFO"] != "/health":
        status, body = "404 Not Found", "see /generate\n"
    payload = body.encode()
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(payload)))])
    return [payload]
