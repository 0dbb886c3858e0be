"""The exceptions of the package.

Every message names the layer or file, the invariant, the value received and the remedy.
"""

import errno


def advice(error: OSError, otherwise: str) -> str:
    """What to do about a failure of the system: of a full disk always the same.

    Args:
        error: The failure.
        otherwise: What to do about any other one.
    """
    return "free some space" if disk_is_full(error) else otherwise


def disk_is_full(error: OSError) -> bool:
    """Whether a failure of the system is a full disk, or a quota or a size of files that is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class MaqdError(Exception):
    """Base of every error that the package raises on purpose.

    Attributes:
        details: Where several things are wrong, each in one line; the message is their headline and all of them.
    """

    details: tuple[str, ...] = ()


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


class GraphError(MaqdError, ValueError):
    """An integer graph is inconsistent, or a number in it would not fit."""


class LoweringError(MaqdError, ValueError):
    """A network cannot be turned into an integer graph that gives the same integers."""


class FormatError(MaqdError, ValueError):
    """A .maqd file is damaged, malformed or of a newer schema."""


class ExportError(MaqdError, ValueError):
    """An export format cannot express a graph."""


class SpikingError(MaqdError, ValueError):
    """A graph cannot run as a spiking network, or the number of steps is out of range."""


class OutputError(MaqdError, ValueError):
    """What a command is to write cannot be written, or would replace something else."""


class EngineError(MaqdError, RuntimeError):
    """An engine is missing, or was given an input that the network does not take."""
