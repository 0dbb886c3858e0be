"""Options of the command line, in plain Python: what commands share that may have nothing else to stand on."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from maqd.settings.tree import unknown_key


class UsageError(Exception):
    """The command line or a configuration file has something the command does not know: exit status 2."""


class Options(argparse.ArgumentParser):
    """A parser of options that raises instead of leaving the program.

    Args:
        usage: First line of the help.
        description: The line under it.
    """

    def __init__(self, *, usage: str, description: str) -> None:
        super().__init__(usage=usage, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raises UsageError."""
        raise UsageError(message)

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The options.

        Raises:
            UsageError: One is unknown, missing or cannot be understood.
            SystemExit: After `--help`.
        """
        options, unknown = self.parse_known_args(arguments)
        if unknown and unknown[0].startswith("-"):
            known = [text for action in self._actions for text in action.option_strings if text.startswith("--")]
            raise UsageError(unknown_key(unknown[0].partition("=")[0], known))
        if unknown:
            raise UsageError(f"unexpected argument {unknown[0]!r}")
        return options


def take_flag(arguments: list[str], flag: str) -> bool:
    """Remove a flag without a value; whether it was there."""
    found = flag in arguments
    while flag in arguments:
        arguments.remove(flag)
    return found


def take_values(arguments: list[str], option: str) -> list[str]:
    """Remove an option wherever it is, as "--option value" or "--option=value"; its values in turn.

    Raises:
        UsageError: A value is missing.
    """
    values: list[str] = []
    index = 0
    while index < len(arguments):
        argument = arguments[index]
        if argument == option:
            if index + 1 == len(arguments) or arguments[index + 1].startswith("--"):
                raise UsageError(f"{option} needs a value")
            values.append(arguments[index + 1])
            del arguments[index : index + 2]
        elif argument.startswith(f"{option}="):
            values.append(argument.partition("=")[2])
            del arguments[index]
        else:
            index += 1
    return values


def take_positional(arguments: list[str]) -> str | None:
    """Remove the first argument that is neither an option nor its value, and return it."""
    index = 0
    while index < len(arguments):
        if not arguments[index].startswith("-"):
            return arguments.pop(index)
        index += 1 if "=" in arguments[index] or arguments[index] in ("-h", "--help") else 2
    return None


def take_prefixed(arguments: list[str], prefix: str) -> list[str]:
    """Remove all options that begin with `prefix`, with their values, and return them.

    Raises:
        UsageError: A value is missing.
    """
    taken: list[str] = []
    for option in [argument.partition("=")[0] for argument in arguments if argument.startswith(prefix)]:
        for value in take_values(arguments, option):
            taken += [option, value]
    return taken
