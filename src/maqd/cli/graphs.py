"""Reading graphs that commands name."""

from pathlib import Path

from maqd.errors import FormatError
from maqd.graph import Graph, container


def load_graph(path: Path) -> Graph:
    """The graph of a .maqd file.

    Raises:
        FormatError: As `maqd.load`; or the path is that of a run, which has to be lowered first.
    """
    if (path / "checkpoints").is_dir():
        raise FormatError(f"{path} is a run, not a .maqd file; lower it first: maqd lower {path} -o {path.name}.maqd")
    return container.load(path)
