"""Options of the command line, in plain Python: some commands have no other package to rely on."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from maqd.settings.tree import unknown_key


class UsageError(Exception):
    """The command line or a configuration file has something the command does not know: exit status 2."""


class Options(argparse.ArgumentParser):
    """A parser of options that raises instead of leaving the program.

    Args:
        usage: First line of the help.
        description: The line under it.
        epilog: Text below the options.
        known: Further options of the command, which were taken out before; only for messages.
    """

    def __init__(self, *, usage: str, description: str, epilog: str | None = None, known: Sequence[str] = ()) -> None:
        self.flags: list[str] = []
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(
            usage=usage, description=description, epilog=epilog, allow_abbrev=False, formatter_class=formatter
        )
        self.known = known

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        """As in the base class; notes the names for messages."""
        self.flags += names
        return super().add_argument(*names, **options)

    def add_allow_import(self) -> None:
        """The option of commands that open runs."""
        self.add_argument(
            "--allow-import",
            action="store_true",
            help="import the functions that the run names (package.module:function), which runs their code",
        )

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
            key = unknown[0].partition("=")[0].lstrip("-")
            own = [option for option in self.flags if option.startswith("--")]
            raise UsageError(unknown_key(key, [*(option[2:] for option in own), *self.known], mark="--"))
        if unknown:
            raise UsageError(f"unexpected argument {unknown[0]!r}")
        return options


def some_path(text: str) -> Path:
    """The type of an argument that names a file or directory.

    Raises:
        argparse.ArgumentTypeError: It names none.
    """
    if not text:
        raise argparse.ArgumentTypeError("must name a file or directory, got an empty text")
    return Path(text)


def whole(text: str) -> int:
    """The type of an argument that is a whole number; no machine counts beyond 63 bits.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    try:
        number = int(text)
    except ValueError:
        number = 2**63
    if abs(number) >= 2**63:
        raise argparse.ArgumentTypeError(f"must be a whole number below 2^63, got {text!r}")
    return number


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
