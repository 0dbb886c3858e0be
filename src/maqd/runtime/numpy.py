"""The interpreter as an engine."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maqd.graph import Graph, interpreter


@dataclass(frozen=True)
class NumpyEngine:
    """A graph in NumPy.

    Args:
        graph: A valid graph.
    """

    graph: Graph
    name = "numpy"

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.int32]:
        """The logits, int32, N x classes; see `maqd.graph.interpreter.run`."""
        return interpreter.run(self.graph, images)

    def layers(self, images: NDArray[np.uint8]) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Every tensor; see `maqd.graph.interpreter.layers`."""
        return interpreter.layers(self.graph, images)
