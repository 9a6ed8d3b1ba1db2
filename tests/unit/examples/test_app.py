"""The example's application: deterministic, with work in proportion to the tokens, and safe against bad requests."""

from __future__ import annotations

import hashlib

import app
import pytest


def ask(path: str, query: str = "") -> tuple[str, str]:
    answers: list[str] = []

    def start_response(status: str, headers: list[tuple[str, str]]) -> None:
        answers.append(status)

    body = b"".join(app.application({"PATH_INFO": path, "QUERY_STRING": query}, start_response))
    return answers[0], body.decode()


def test_the_same_request_gives_the_same_text() -> None:
    query = "context=374&generated=44&seed=17"
    assert ask("/generate", query) == ask("/generate", query)
    assert len(ask("/generate", query)[1].split()) == 44


def test_the_text_is_the_one_it_has_always_been() -> None:
    assert app.generate(10, 3, 1, rounds=2) == "fevine zohu karajo"


@pytest.mark.parametrize("other", ["context=375&generated=44&seed=17", "context=374&generated=44&seed=18"])
def test_every_parameter_matters(other: str) -> None:
    assert ask("/generate", other)[1] != ask("/generate", "context=374&generated=44&seed=17")[1]


def test_the_work_is_in_proportion_to_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    spent: list[int] = []

    def count(name: str, password: bytes, salt: bytes, rounds: int) -> bytes:
        spent.append(rounds)
        return hashlib.sha256(password + salt).digest()

    monkeypatch.setattr(hashlib, "pbkdf2_hmac", count)
    app.generate(1_000, 50, 0, rounds=100)
    assert sum(spent) == 1_000 * 100 // app.CONTEXT_TOKENS_PER_ROUNDS + 50 * 100


@pytest.mark.parametrize("query", ["generated=-1", "generated=10001", "generated=many", "context=1e3", "seed=%00"])
def test_a_bad_parameter_is_refused_without_work(query: str) -> None:
    assert ask("/generate", query)[0].startswith("400")


def test_other_paths() -> None:
    assert ask("/health") == ("200 OK", "ok")
    assert ask("/nothing")[0].startswith("404")
