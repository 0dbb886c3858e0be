"""The graph in NumPy: clear rather than fast, the oracle that every engine is compared with.

All tensors are int64, samples first.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from maqd.graph import Graph, Input

Codes = NDArray[np.int64]


def layers(graph: Graph, *codes: Codes) -> Iterator[tuple[str, Codes]]:
    """Every tensor of the graph as it is computed.

    Args:
        graph: A valid graph.
        codes: One array an input, int64, N x its shape, as `maqd.runtime.inputs.prepare` makes them.

    Yields:
        Name and codes, int64, N x the tensor's shape.
    """
    values: dict[str, Codes] = {}
    given = iter(codes)
    for node in graph.nodes:
        value = node.compute(*([next(given)] if isinstance(node, Input) else [values[name] for name in node.inputs]))
        yield node.name, value
        values[node.name] = value
        for name in node.inputs:
            if graph.readers[name][-1] is node:
                values.pop(name, None)


def run(graph: Graph, *codes: Codes) -> tuple[Codes, ...]:
    """The codes of each output, int64, N x its shape; arguments as in `layers`."""
    wanted = {node.name for node in graph.outputs}
    found = {name: value for name, value in layers(graph, *codes) if name in wanted}
    return tuple(found[node.name] for node in graph.outputs)
