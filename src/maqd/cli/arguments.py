"""The command line of a configuration: dotted options and YAML files, parsed by jsonargparse."""

import enum
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml

from maqd.cli.options import UsageError
from maqd.errors import ConfigError, MaqdError
from maqd.settings.data import Source
from maqd.settings.model import Architecture
from maqd.settings.quantization import Affine, Norm, Profile
from maqd.settings.training import Device, Optimizer, Schedule
from maqd.settings.tree import check_keys, dotted_keys, from_plain, parse_member, unknown_key

# Newer versions warn of methods that are the only ones in older versions.
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

from jsonargparse import SUPPRESS, ArgumentParser, Namespace
from jsonargparse.typing import register_type

T = TypeVar("T")

_ENUMS: tuple[type[enum.Enum], ...] = (Affine, Architecture, Device, Norm, Optimizer, Profile, Schedule, Source)


def _member(cls: type[enum.Enum], value: object) -> enum.Enum:
    try:
        return parse_member(cls, value, cls.__name__.lower())
    except ConfigError as error:
        raise ValueError(str(error)) from error


for _enum in _ENUMS:
    # Members by their values, "adamw", not by their Python names, as jsonargparse would have it.
    register_type(
        _enum,
        serializer=lambda member: member.value if isinstance(member, enum.Enum) else member,
        deserializer=partial(_member, _enum),
    )


def read_yaml(path: Path, cls: type) -> Mapping[str, Any]:
    """The tree of a configuration file, its keys checked.

    Raises:
        ConfigError: It cannot be read.
        UsageError: It is no YAML or has an unknown key.
    """
    try:
        tree = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid YAML: {_one_line(str(error))}") from error
    tree = {} if tree is None else tree
    try:
        check_keys(cls, tree, str(path))
    except ConfigError as error:
        raise UsageError(str(error)) from error
    return tree


def parse(
    cls: type[T],
    arguments: Sequence[str],
    *,
    bases: Sequence[Mapping[str, Any]] = (),
    flags: Mapping[str, str],
    usage: str,
    description: str,
) -> T:
    """A configuration from its defaults, trees that override them in turn, and options that override those.

    Args:
        cls: The configuration dataclass.
        arguments: Options such as "--optim.lr", "4e-3".
        bases: Checked trees.
        flags: Further options of the command and their help; they must not be in `arguments`.
        usage: First line of the help.
        description: The line under it.

    Raises:
        UsageError: An option is unknown or cannot be understood.
        ConfigError: A value is out of its range.
        SystemExit: After `--help`.
    """
    valid = list(dotted_keys(cls))
    for argument in arguments:
        if argument.startswith("--"):
            key = argument[2:].partition("=")[0]
            if key.rstrip("+") not in valid and key != "help" and not key.endswith(".help"):
                known = [*valid, *(name[2:].partition(" ")[0] for name in flags)]
                raise UsageError(unknown_key(key, known).replace("'", "'--", 1).replace("mean '", "mean '--"))
    parser = ArgumentParser(exit_on_error=False, usage=usage, description=description, print_config=None)
    parser.add_argument("--config", action="config", help=flags.get("--config FILE", SUPPRESS))
    for flag, text in flags.items():
        name, _, value = flag.partition(" ")
        if name != "--config" and not value:
            parser.add_argument(name, help=text, action="store_true")
        elif name != "--config":
            parser.add_argument(name, help=text, metavar=value)
    parser.add_class_arguments(cls, None)
    for action in parser._actions:
        hint = getattr(action, "_typehint", None)
        if isinstance(hint, type) and issubclass(hint, enum.Enum):
            action.metavar = "{" + ",".join(str(member.value) for member in hint) + "}"
    config_arguments = [part for base in bases for part in ("--config", json.dumps(base))]
    try:
        namespace = parser.parse_args([*config_arguments, *arguments])
    except MaqdError:
        raise
    except Exception as error:
        # jsonargparse raises ArgumentError, TypeError, ValueError or its own, as the case may be.
        raise UsageError(_readable(str(error))) from error
    tree = _tree(namespace)
    return from_plain(cls, {key: value for key, value in tree.items() if key in valid})


def _tree(value: Any) -> Any:
    if isinstance(value, Namespace):
        return {key: _tree(inner) for key, inner in vars(value).items()}
    if isinstance(value, list):
        return [_tree(item) for item in value]
    return value


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _readable(message: str) -> str:
    text = re.sub(r'Parser key "([^"]*)": ', r"--\1: ", _one_line(message))
    text = re.sub(r"<class '([\w.]*)'>", r"\1", text)
    return re.sub(r"Not of type \w+: ", "", text)
