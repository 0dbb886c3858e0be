"""Frames one after another, with what a graph remembers between them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maqd.errors import EngineError
from maqd.runtime.engine import BaseEngine, Codes
from maqd.runtime.inputs import prepare


class Session:
    """An engine whose graph has memories, frame by frame.

    Args:
        engine: Any engine.
        count: How many streams run side by side: samples of each frame.

    Raises:
        EngineError: The graph remembers nothing, or there is no stream.
    """

    def __init__(self, engine: BaseEngine, count: int = 1) -> None:
        graph = engine.graph
        if not graph.metadata.memories:
            raise EngineError("the graph has no memories; call the engine's run for each frame")
        if count < 1:
            raise EngineError(f"a session needs at least 1 stream, got {count}")
        self.engine, self.count = engine, count
        self._memories = {memory.input: memory for memory in graph.metadata.memories}
        self._inputs = {node.key: node for node in graph.inputs}
        self.keys = tuple(key for key in self._inputs if key not in self._memories)
        """Keys of the inputs that a frame has; the others are remembered."""
        self.state: dict[str, NDArray[np.generic]] = {}
        """What is remembered: by the input's key, of its storage type, count x its shape."""
        self.reset()

    def reset(self) -> None:
        """Begin anew: every memory has its first code."""
        for key, memory in self._memories.items():
            node = self._inputs[key]
            stored = memory.initial + node.zero
            self.state[key] = np.full((self.count, *node.shape), stored, node.storage.dtype)

    def step(self, *inputs: Any) -> dict[str, Codes]:
        """Compute a frame and remember what the next one needs.

        Args:
            inputs: An array for each of `keys`, or one mapping from them to arrays: count x the input's shape, as
                `maqd.runtime.inputs.prepare` takes them.

        Returns:
            The codes of every output by its key, int32, count x its shape; those that are remembered are among them.

        Raises:
            EngineError: The inputs do not fit.
        """
        given = inputs[0] if len(inputs) == 1 and isinstance(inputs[0], Mapping) else None
        if given is None and len(inputs) != len(self.keys):
            raise EngineError(f"a frame has the inputs {', '.join(self.keys)}, got {len(inputs)}")
        frame = dict(zip(self.keys, inputs, strict=True)) if given is None else dict(given)
        if frame.keys() != set(self.keys):
            raise EngineError(f"a frame has the inputs {', '.join(self.keys)}, got {', '.join(map(str, frame))}")
        prepared = prepare(self.engine.graph, {**frame, **self.state})
        if prepared.count != self.count:
            raise EngineError(f"the session has {self.count} streams, got {prepared.count} samples")
        found = self.engine.compute(prepared)
        outputs = {node.key: codes for node, codes in zip(self.engine.graph.outputs, found, strict=True)}
        for key, memory in self._memories.items():
            node = self._inputs[key]
            self.state[key] = (outputs[memory.output] + node.zero).astype(node.storage.dtype)
        return outputs
