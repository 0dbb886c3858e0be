"""Reading graphs that commands name."""

from pathlib import Path

from maqd.errors import FormatError
from maqd.graph import Graph, container
from maqd.graph.envelope import Reader, open_reader


def load_graph(path: Path) -> Graph:
    """The graph of a .maqd file.

    Raises:
        FormatError: As `maqd.load`; or the path is that of a run, which has to be lowered first.
    """
    return container.graph_of(open_file(path))


def open_file(path: Path) -> Reader:
    """The reader of a .maqd file.

    Raises:
        FormatError: As `load_graph`, but for what the file holds.
    """
    if (path / "checkpoints").is_dir():
        raise FormatError(f"{path} is a run, not a .maqd file; lower it first: maqd lower {path} -o {path.name}.maqd")
    return open_reader(path)
