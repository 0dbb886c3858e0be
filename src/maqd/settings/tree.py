"""Configurations as plain trees of mappings, lists, strings, numbers and None: what YAML files and checkpoints hold."""

import dataclasses
import difflib
import enum
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from maqd.errors import ConfigError
from maqd.optional import require

T = TypeVar("T")


def to_plain(value: object) -> Any:
    """The plain tree of a configuration: enums become their values, dataclasses mappings in order of their fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def from_plain(cls: type[T], tree: object, *, where: str = "") -> T:
    """The configuration that a plain tree describes; fields that the tree lacks take their defaults.

    Args:
        cls: A configuration dataclass.
        tree: Its plain tree. Enum members and dataclasses are accepted where they are expected, too.
        where: Dotted key of the tree, for messages.

    Raises:
        ConfigError: A key is unknown, or a value has the wrong type or is out of range.
    """
    if isinstance(tree, cls):
        tree = {field.name: getattr(tree, field.name) for field in dataclasses.fields(tree)}  # pyright: ignore[reportArgumentType]
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{where or 'the configuration'} must be a mapping of options, got {tree!r}")
    hints = typing.get_type_hints(cls)
    prefix = f"{where}." if where else ""
    for key in tree:
        if key not in hints:
            raise ConfigError(unknown_key(f"{prefix}{key}", [f"{prefix}{name}" for name in hints]))
    return cls(**{key: _convert(hints[key], value, f"{prefix}{key}") for key, value in tree.items()})


def _convert(hint: Any, value: object, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in typing.get_args(hint):
            return None
        (inner,) = (arg for arg in typing.get_args(hint) if arg is not type(None))
        return _convert(inner, value, where)
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} must be a list, got {value!r}")
        inner = typing.get_args(hint)[0]
        return origin(_convert(inner, item, f"{where}[{index}]") for index, item in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return from_plain(typing.cast("type[Any]", hint), value, where=where)
    if issubclass(hint, enum.Enum):
        return parse_member(hint, value, where)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        # YAML 1.1 reads 4e-3, without a dot, as a string.
        try:
            return float(value)
        except ValueError:
            pass
    if hint in (str, Path) and isinstance(value, str | Path):
        return hint(value)
    raise ConfigError(f"{where} must be of type {hint.__name__}, got {value!r}")


E_ = TypeVar("E_", bound=enum.Enum)


def parse_member(cls: type[E_], value: object, where: str) -> E_:
    """The member of an enum with this value or name.

    Raises:
        ConfigError: There is none; `where` names the option in the message.
    """
    for member in cls:
        if value is member or value in (member.value, member.name):
            return member
    choices = [str(member.value) for member in cls]
    raise ConfigError(f"{where} must be one of {', '.join(choices)}, got {value!r}{_hint(str(value), choices)}")


def dotted_keys(cls: type) -> Iterator[str]:
    """Every option of a configuration, sections included, such as "optim" and "optim.lr"."""
    for key, hint in typing.get_type_hints(cls).items():
        yield key
        if dataclasses.is_dataclass(hint):
            yield from (f"{key}.{inner}" for inner in dotted_keys(typing.cast("type", hint)))


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """A plain tree with the leaves of two; the second one's are taken where both have one."""
    both = {key for key in first.keys() & second.keys() if isinstance(first[key], Mapping)}
    both = {key for key in both if isinstance(second[key], Mapping)}
    return {**first, **second, **{key: merged(first[key], second[key]) for key in both}}


def read_tree(path: Path, cls: type, also: Sequence[str] = ()) -> dict[str, Any]:
    """The plain tree of a YAML file, its keys checked, but for what is below those in `also`.

    Raises:
        ConfigError: It cannot be read, is no YAML, or has a key that the configuration `cls` lacks.
    """
    yaml = require("yaml", "reading configuration files")
    try:
        tree = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}; pass a YAML file of options") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    tree = {} if tree is None else tree
    checked = {key: value for key, value in tree.items() if key not in also} if isinstance(tree, Mapping) else tree
    check_keys(cls, checked, str(path))
    return dict(tree)


def read_config(path: Path, cls: type[T]) -> T:
    """The configuration in a YAML file.

    Raises:
        ConfigError: As `read_tree`, or a value is out of its range; the message names the file.
    """
    tree = read_tree(path, cls)
    try:
        return from_plain(cls, tree)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}; correct the file") from error


def parse_option(cls: type, key: str, text: str) -> dict[str, Any]:
    """The plain tree of one option of the command line.

    Args:
        cls: The configuration.
        key: Dotted name of the option, one of `dotted_keys(cls)`.
        text: Its value: YAML, or plain text where the option is text; "null" for None.

    Raises:
        ConfigError: The value is not valid YAML.
    """
    yaml = require("yaml", "reading options")
    kind: Any = cls
    for part in key.split("."):
        kind = typing.get_type_hints(kind)[part]
    alternatives = typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else (kind,)
    try:
        plain = str in alternatives and text != "null"
        value: Any = text if plain else yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--{key} is not valid YAML: {' '.join(str(error).split())}") from error
    *sections, leaf = key.split(".")
    tree = {leaf: value}
    for section in reversed(sections):
        tree = {section: tree}
    return tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """An option of a configuration, for its help.

    Args:
        key: Dotted name.
        values: What it takes.
        default: Its value if nothing is said, as YAML.
        text: What it means.
    """

    key: str
    values: str
    default: str
    text: str


def options(cls: type, prefix: str = "") -> Iterator[Option]:
    """Every option of a configuration but its sections, with what the docstrings say of it."""
    texts = _arguments(cls.__doc__ or "")
    for field in dataclasses.fields(cls):
        hint, key = typing.get_type_hints(cls)[field.name], f"{prefix}{field.name}"
        if dataclasses.is_dataclass(hint):
            yield from options(typing.cast("type", hint), f"{key}.")
            continue
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        yield Option(key=key, values=_values(hint), default=_shown(default), text=texts.get(field.name, ""))


def _values(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return "|".join("null" if kind is type(None) else _values(kind) for kind in inner)
    if origin in (list, tuple):
        return "LIST"
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return "{" + ",".join(str(member.value) for member in hint) + "}"
    return {int: "N", float: "X", bool: "{true,false}"}.get(hint, "TEXT")


def _shown(value: object) -> str:
    plain = to_plain(value)
    return plain if isinstance(plain, str) else json.dumps(plain)


def _arguments(docstring: str) -> dict[str, str]:
    """The texts of a docstring's section "Args", by name; several names may share one."""
    found: dict[str, str] = {}
    names: list[str] = []
    section = docstring.partition("Args:")[2]
    for line in section.splitlines():
        entry = re.fullmatch(r" {8}([a-z_0-9, ]+): (.*)", line)
        if entry is not None:
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        elif line.startswith(" " * 9):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        elif line.strip():
            break
    return found


def check_keys(cls: type, tree: object, source: str) -> None:
    """Check that a file's tree has only keys of a configuration.

    Raises:
        ConfigError: It has another; the message names it, the file and the closest key.
    """
    valid = list(dotted_keys(cls))
    sections = {key.rpartition(".")[0] for key in valid}

    def check(tree: object, prefix: str) -> None:
        if not isinstance(tree, Mapping):
            raise ConfigError(f"{source}: {prefix or 'the file'} must be a mapping of options, got {tree!r}")
        for key, value in tree.items():
            dotted = f"{prefix}.{key}" if prefix else str(key)
            if dotted not in valid:
                raise ConfigError(f"{source}: {unknown_key(dotted, valid)}")
            if dotted in sections:
                check(value, dotted)

    check(tree, "")


def unknown_key(key: str, valid: list[str], *, mark: str = "", what: str = "option") -> str:
    """One line that names an unknown key and the closest valid one.

    Args:
        key: The key, without the mark.
        valid: All valid ones.
        mark: Written before keys, such as "--".
        what: What the keys are.
    """
    # Most typos keep the section; a forgotten section shows as an equal last part.
    section, _, leaf = key.rpartition(".")
    same_leaf = [name for name in valid if name.rpartition(".")[2] == leaf]
    siblings = [name for name in valid if name.rpartition(".")[0] == section]
    close = (
        same_leaf
        or difflib.get_close_matches(key, siblings, n=1)
        or difflib.get_close_matches(key, valid, n=1)
        or difflib.get_close_matches(key, siblings or valid, n=1, cutoff=0.0)
    )
    return f"unknown {what} {mark + key!r}" + (f"; did you mean {mark + close[0]!r}?" if close else "")


def _hint(value: str, choices: list[str]) -> str:
    close = difflib.get_close_matches(value, choices, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def flatten(tree: object, prefix: str = "") -> dict[str, Any]:
    """The leaves of a plain tree by dotted key; a list is a leaf."""
    if isinstance(tree, Mapping):
        leaves: dict[str, Any] = {}
        for key, value in tree.items():
            leaves |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
        return leaves
    return {prefix: tree}


def differences(first: object, second: object) -> dict[str, tuple[Any, Any]]:
    """Leaves in which two plain trees differ: dotted key -> (value in the first, value in the second)."""
    one, two = flatten(first), flatten(second)
    return {key: (one.get(key), two.get(key)) for key in one | two if one.get(key) != two.get(key)}
