"""Optional dependencies, imported where they are needed."""

import importlib
from types import ModuleType

from maqd.errors import MissingDependencyError


def require(module: str, what: str) -> ModuleType:
    """Imports `module`.

    Raises:
        MissingDependencyError: It is not installed; `what` names the feature that needs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name != package:
            raise
        raise missing(package, what) from error


def missing(module: str, what: str) -> MissingDependencyError:
    """The error that says how to install `module`."""
    return MissingDependencyError(f'{what} needs {module}, which is not installed; pip install "maqd[train]"')
