"""Commands made of functions: the annotations of a function are the options and arguments of its command.

A thin layer over click. What a command takes is looked at when it is called or asked for its help, not when the command
line is loaded: `polaris --help` needs a name and a sentence of each.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import click

Function = TypeVar("Function", bound=Callable[..., None])
Complete = Callable[[str], Sequence[str]]

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_KINDS: dict[type, tuple[click.ParamType[Any], str]] = {
    str: (click.STRING, "TEXT"),
    int: (click.INT, "NUMBER"),
    float: (click.FLOAT, "NUMBER"),
    Path: (click.Path(path_type=Path), "PATH"),
}


class Option:
    """Beside the type in `Annotated`: an option. `at_least` and `at_most` bound a whole number."""

    def __init__(
        self,
        *names: str,
        about: str,
        metavar: str | None = None,
        at_least: int | None = None,
        at_most: int | None = None,
        show_default: bool = True,
    ) -> None:
        self.names = names
        self.about = about
        self.metavar = metavar
        self.bounds = (at_least, at_most)
        self.show_default = show_default


class Argument:
    """Beside the type in `Annotated`: an argument. `complete` tells a shell what may stand there, by its beginning."""

    def __init__(
        self,
        *,
        metavar: str,
        about: str,
        at_least: int | None = None,
        show_default: bool = True,
        complete: Complete | None = None,
    ) -> None:
        self.metavar = metavar
        self.about = about
        self.bounds = (at_least, None)
        self.show_default = show_default
        self.complete = complete


class Taken(NamedTuple):
    """A parameter of a function as it is declared; `inner` is the type of one value."""

    name: str
    default: Any
    inner: type
    many: bool
    declared: Option | Argument

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def value_type(self) -> click.ParamType[Any]:
        low, high = self.declared.bounds
        return _KINDS[self.inner][0] if (low, high) == (None, None) else click.IntRange(low, high)

    @property
    def default_given(self) -> dict[str, Any]:
        """For click, to which None is a default like any other: what is required has none."""
        return {} if self.required or self.many else {"default": self.default}

    @property
    def shown_default(self) -> str | None:
        """What is said of the default in the help."""
        told = self.declared.show_default and not self.required and self.default not in (None, [])
        return str(self.default) if told else None


def taken(function: Callable[..., Any]) -> Iterator[Taken]:
    """What the function takes, in its order."""
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        plain, declared = get_args(hints[name])
        if get_origin(plain) in (Union, UnionType):
            (plain,) = [one for one in get_args(plain) if one is not NoneType]
        many = get_origin(plain) is list
        yield Taken(name, parameter.default, get_args(plain)[0] if many else plain, many, declared)


def _option(one: Taken, declared: Option) -> click.Option:
    names = [one.name, *declared.names]
    if one.inner is bool:
        return click.Option(
            names, is_flag=True, default=one.default, help=declared.about, show_default=declared.show_default
        )
    return click.Option(
        names,
        type=one.value_type,
        metavar=declared.metavar or _KINDS[one.inner][1],
        required=one.required,
        multiple=one.many,
        help=declared.about,
        show_default=one.shown_default is not None,
        **one.default_given,
    )


class _Argument(click.Argument):
    """An argument with a sentence about it."""

    def __init__(self, one: Taken, declared: Argument) -> None:
        self.shown_as = declared.metavar
        shown = one.shown_default
        self.about = declared.about + (f"  [default: {shown}]" if shown else "")
        super().__init__(
            [one.name],
            type=one.value_type,
            required=one.required,
            nargs=-1 if one.many else 1,
            shell_complete=_completing(declared.complete),
            **one.default_given,
        )

    def make_metavar(self, ctx: click.Context) -> str:
        shown = self.shown_as if self.required else f"[{self.shown_as}]"
        return shown if self.nargs == 1 else f"{shown}..."


def _completing(complete: Complete | None) -> Callable[[click.Context, click.Parameter, str], list[str]] | None:
    if complete is None:
        return None
    return lambda context, parameter, begun: list(complete(begun))


class Command(click.Command):
    """A function as a command. It ends the process with its code itself, by `SystemExit`."""

    def __init__(self, name: str, function: Callable[..., None], *, short_help: str | None, epilog: str | None) -> None:
        about = inspect.getdoc(function)
        super().__init__(name, help=about, short_help=short_help, epilog=epilog, context_settings=HELP)
        self._function: Callable[..., None] = function
        self._looked_at = False
        self.callback = self._call

    def _call(self, **values: Any) -> None:
        self._function(**{name: list(value) if isinstance(value, tuple) else value for name, value in values.items()})

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        if not self._looked_at:
            self._looked_at = True
            self.params = [
                _option(one, one.declared) if isinstance(one.declared, Option) else _Argument(one, one.declared)
                for one in taken(self._function)
            ]
        return super().get_params(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        arguments = [one for one in self.get_params(ctx) if isinstance(one, _Argument)]
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl([(one.shown_as, one.about) for one in arguments])
        super().format_options(ctx, formatter)


class Commands(click.Group):
    """Commands by their names, and other groups of them; without a name it shows what there is."""

    def __init__(
        self,
        name: str,
        *,
        about: str,
        epilog: str | None = None,
        short_help: str | None = None,
        options: Sequence[click.Parameter] = (),
    ) -> None:
        super().__init__(
            name,
            help=about,
            epilog=epilog,
            short_help=short_help,
            params=list(options),
            no_args_is_help=True,
            context_settings=HELP,
        )

    def add(
        self, name: str | None = None, *, short_help: str | None = None, epilog: str | None = None
    ) -> Callable[[Function], Function]:
        """Make a function a command; it is called as the function is, unless `name` says otherwise."""

        def made(function: Function) -> Function:
            self.add_command(Command(name or function.__name__, function, short_help=short_help, epilog=epilog))
            return function

        return made

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they were added."""
        return list(self.commands)
