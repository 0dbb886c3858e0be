"""The options of a configuration on the command line: dotted, in any order, over files and recipes."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from maqd.cli.options import UsageError, take_values
from maqd.errors import ConfigError
from maqd.settings.tree import dotted_keys, from_plain, merged, options, parse_option

T = TypeVar("T")

FUNCTION = re.compile(r"[\w.]+:\w+")
"""package.module:function."""

FUNCTIONS = {
    "model": (("model.function", None),),
    "data": (("data.source", "function"), ("data.function", None)),
}
"""Sections in whose place a function may be named, and the options that it becomes: None is the function."""


def take_settings(arguments: list[str], cls: type, section: str = "") -> list[tuple[str, str]]:
    """Remove the options of a configuration from the command line.

    Args:
        arguments: The command line, changed in place.
        cls: The configuration.
        section: Take only options that begin with this, such as "data.".

    Returns:
        Dotted names and values, in order.

    Raises:
        UsageError: A value is missing.
    """
    known = {key for key in dotted_keys(cls) if key.startswith(section)}
    known |= {key for key in FUNCTIONS if f"{key}." == section}
    order = [argument[2:].partition("=")[0] for argument in arguments if argument.startswith("--")]
    values = {key: take_values(arguments, f"--{key}") for key in dict.fromkeys(order) if key in known}
    return [
        pair
        for key, texts in values.items()
        for text in texts
        for pair in (
            [(name, value or text) for name, value in FUNCTIONS[key]]
            if key in FUNCTIONS and FUNCTION.fullmatch(text)
            else [(key, text)]
        )
    ]


def named_functions(chosen: Sequence[tuple[str, str]]) -> set[str]:
    """The functions among the values of options: those that the caller names."""
    return {text for _, text in chosen if FUNCTION.fullmatch(text)}


def configure(cls: type[T], bases: Sequence[Mapping[str, Any]], chosen: Sequence[tuple[str, str]] = ()) -> T:
    """A configuration from its defaults, trees that override them in turn, and options that override those.

    Args:
        cls: The configuration.
        bases: Plain trees.
        chosen: From `take_settings`.

    Raises:
        UsageError: A value has the wrong type or is out of its range, or two of them do not go together.
    """
    tree: dict[str, Any] = {}
    try:
        for base in (*bases, *(parse_option(cls, key, text) for key, text in chosen)):
            tree = merged(tree, base)
        return from_plain(cls, tree)
    except ConfigError as error:
        raise UsageError(str(error)) from error


def help_all(cls: type) -> str:
    """Every option of a configuration: its values, its default and its meaning."""
    lines = []
    for option in options(cls):
        lines.append(f"  --{option.key} {option.values}  ({option.default})")
        lines += textwrap.wrap(option.text, 110, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)
