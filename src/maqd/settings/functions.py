"""Functions of one's own on the command line, as package.module:function."""

import importlib
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from maqd.errors import ConfigError


def check_imports(functions: Mapping[str, str], typed: Collection[str], *, where: str, allow: bool) -> None:
    """Check that functions which a file names may be imported: that runs their modules' code.

    Args:
        functions: The functions by the option that names them.
        typed: Those that the caller named.
        where: The file, for the message.
        allow: Whether the caller allows all.

    Raises:
        ConfigError: One may not.
    """
    for option, place in functions.items():
        if not allow and place not in typed:
            raise ConfigError(
                f"{where} names a function to import, {option} {place}, which runs its code; pass --allow-import "
                "(allow_import=True in Python) if you trust it"
            )


def split_name(place: str) -> tuple[str, str]:
    """The module and the function of package.module:function.

    Raises:
        ConfigError: It is no such name.
    """
    module, colon, name = place.partition(":")
    if not (module and colon and name.isidentifier()):
        raise ConfigError(f"a function is named as package.module:function, got {place!r}; name one")
    return module, name


def import_function(place: str) -> Callable[..., Any]:
    """The function that package.module:function names; the working directory counts as a place of modules.

    Importing runs the module's code, so the name must come from the caller, not from a file (`check_imports`).

    Raises:
        ConfigError: There is no such module or function, or the module fails to import.
    """
    module, name = split_name(place)
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        function = getattr(importlib.import_module(module), name, None)
    except (Exception, SystemExit) as error:  # whatever the module's own code raises: scripts end themselves
        raise ConfigError(
            f"{place}: importing {module!r} fails: {type(error).__name__}: {error}; check its name, or mend it"
        ) from error
    finally:
        sys.path.remove(here)
    if not callable(function):
        raise ConfigError(f"{place}: module {module!r} has no function {name!r}; check the name")
    return function
