"""The interpreter as an engine."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from maqd.graph import interpreter
from maqd.runtime.engine import BaseEngine, Codes
from maqd.runtime.inputs import Prepared


class NumpyEngine(BaseEngine):
    """A graph in NumPy.

    Args:
        graph: A valid graph.
    """

    name = "numpy"

    def compute(self, prepared: Prepared) -> tuple[Codes, ...]:
        return tuple(codes.astype(np.int32) for codes in interpreter.run(self.graph, *prepared.codes))

    def tensors(self, prepared: Prepared) -> Iterator[tuple[str, NDArray[np.int64]]]:
        return interpreter.layers(self.graph, *prepared.codes)
