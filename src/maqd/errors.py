"""The exceptions of the package.

Every message names the layer or file, the invariant, the value received and the remedy.
"""


class MaqdError(Exception):
    """Base of every error that the package raises on purpose."""


class ConfigError(MaqdError, ValueError):
    """An option or argument is out of its range, or two of them do not go together."""


class DataError(MaqdError, ValueError):
    """A data set, a cache of one or an input image is not what it should be."""


class CheckpointError(MaqdError, RuntimeError):
    """A checkpoint is damaged, belongs to another model, or has another schema version."""


class NonFiniteError(MaqdError, ArithmeticError):
    """A loss, activation or parameter became infinite or not-a-number."""


class MissingDependencyError(MaqdError, ImportError):
    """An optional dependency is not installed."""
