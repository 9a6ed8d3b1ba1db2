"""A function becomes a command by its annotations: what it is called with, what its help says, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
from click.testing import CliRunner

from polaris.cli._commands import Argument, Commands, Option

called: list[dict[str, Any]] = []


def make() -> Commands:
    app = Commands("tool", about="Does things.")

    @app.add(short_help="Does one thing.", epilog="Nothing else.")
    def work(
        name: Annotated[str, Argument(metavar="NAME", about="Whose.", show_default=False)],
        numbers: Annotated[list[int] | None, Argument(metavar="NUMBER", at_least=1, about="Which.")] = None,
        file: Annotated[Path | None, Option("--file", "-f", about="Where to.", show_default=False)] = None,
        count: Annotated[int, Option("--count", at_least=1, at_most=9, about="How many.")] = 3,
        share: Annotated[float, Option("--share", about="How much.")] = 0.5,
        tag: Annotated[list[str], Option("--tag", about="May be repeated.", show_default=False)] = [],  # noqa: B006
        wait: Annotated[bool, Option("--wait/--no-wait", about="Whether to wait.")] = True,
        sure: Annotated[bool | None, Option("--sure/--unsure", about="As you like.", show_default=False)] = None,
        as_json: Annotated[bool, Option("--json", about="For programs.")] = False,
    ) -> None:
        """Does one thing, at length."""
        called.append(dict(locals()))

    @app.add("list")
    def list_command(to: Annotated[str, Option("--to", metavar="WHERE", about="Whither.", show_default=False)]) -> None:
        """All of them. In their order."""
        called.append({"to": to})

    return app


@pytest.fixture
def ask() -> Any:
    called.clear()
    app = make()
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_what_is_not_given_has_its_default(ask: Any) -> None:
    assert ask("work", "web").exit_code == 0
    assert called == [
        {
            "name": "web",
            "numbers": [],
            "file": None,
            "count": 3,
            "share": 0.5,
            "tag": [],
            "wait": True,
            "sure": None,
            "as_json": False,
        }
    ]


def test_what_is_given_comes_in_the_type_of_its_annotation(ask: Any) -> None:
    told = ask("work", "web", "4", "5", "-f", "a/b", "--count", "9", "--share", "1", "--tag", "x", "--tag", "y",
               "--no-wait", "--unsure", "--json")  # fmt: skip
    assert told.exit_code == 0, told.output
    assert called == [
        {
            "name": "web",
            "numbers": [4, 5],
            "file": Path("a/b"),
            "count": 9,
            "share": 1.0,
            "tag": ["x", "y"],
            "wait": False,
            "sure": False,
            "as_json": True,
        }
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("work",), "Missing argument 'NAME'"),
        (("work", "web", "0"), "0 is not in the range x>=1"),
        (("work", "web", "--count", "10"), "10 is not in the range 1<=x<=9"),
        (("work", "web", "--count", "many"), "Invalid value for '--count': 'many' is not a valid integer"),
        (("work", "web", "--shar", "1"), "Did you mean one of: '--share', '--sure'?"),
        (("wrok",), "Did you mean 'work'?"),
        (("list",), "Missing option '--to'"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_done(ask: Any, arguments: tuple[str, ...], complaint: str) -> None:
    refused = ask(*arguments)
    assert (refused.exit_code, called) == (2, [])
    assert complaint in refused.output


def test_the_help_tells_arguments_options_defaults_and_bounds(ask: Any) -> None:
    assert ask("work", "-h").output == (
        "Usage: tool work [OPTIONS] NAME [NUMBER]...\n\n"
        "  Does one thing, at length.\n\n"
        "Arguments:\n"
        "  NAME    Whose.\n"
        "  NUMBER  Which.\n\n"
        "Options:\n"
        "  -f, --file PATH     Where to.\n"
        "  --count NUMBER      How many.  [default: 3; 1<=x<=9]\n"
        "  --share NUMBER      How much.  [default: 0.5]\n"
        "  --tag TEXT          May be repeated.\n"
        "  --wait / --no-wait  Whether to wait.  [default: wait]\n"
        "  --sure / --unsure   As you like.\n"
        "  --json              For programs.\n"
        "  -h, --help          Show this message and exit.\n\n"
        "  Nothing else.\n"
    )
    assert "  --to WHERE  Whither.  [required]\n" in ask("list", "-h").output


def test_without_a_command_there_is_a_list_of_them(ask: Any) -> None:
    listed = ask()
    assert listed.exit_code == 2
    assert listed.output.endswith("Commands:\n  work  Does one thing.\n  list  All of them.\n")


def test_what_a_command_takes_is_looked_at_only_when_it_is_asked_for() -> None:
    app = Commands("tool", about="Does things.")

    @app.add(short_help="Cannot be called.")
    def broken(what: Annotated[Nowhere, Option("--what", about="?")]) -> None:  # type: ignore[name-defined] # noqa: F821
        """Its annotation cannot be read."""

    @app.add(short_help="Can be called.")
    def whole() -> None:
        """Nothing to take."""

    assert CliRunner().invoke(app, ["--help"]).exit_code == 0
    assert CliRunner().invoke(app, ["whole"]).exit_code == 0
    assert isinstance(CliRunner().invoke(app, ["broken"]).exception, NameError)
