"""PyTorch as an engine: the network itself, call by call, as integers."""

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from maqd.errors import LoweringError
from maqd.graph import Flatten, Gather, GlobalSum, Graph, MaxPool, Permute, Reshape, SumPool, TensorType
from maqd.lowering.builder import named_results
from maqd.nn.folding import Folded
from maqd.nn.tracing import Traced, changes_its_input, evaluation, plain, trace
from maqd.runtime.inputs import prepare


class TorchEngine:
    """The network itself in evaluation mode, to compare engines with.

    Its modules' training modes and the caller's grad mode are left as they are.

    Args:
        model: The network that was lowered.
        graph: Its graph.
    """

    name = "pytorch"

    def __init__(self, model: nn.Module, graph: Graph) -> None:
        if graph.metadata.memories:
            raise LoweringError(
                "the network remembers from frame to frame, and PyTorch computes all frames at once; compare sequences "
                "with maqd.runtime.Session (docs/spiking.md)"
            )
        self.graph = graph
        self.averages = averages(graph)
        self.model = plain(model)
        examples = tuple(torch.from_numpy(np.zeros((1, *node.shape), node.storage.dtype)) for node in graph.inputs)
        self.traced = trace(self.model, examples)
        for module in self.model.modules():
            if isinstance(module, Folded):
                module.refold()
        self.device = next((value.device for value in model.parameters()), torch.device("cpu"))

    def layers(self, *inputs: Any) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """Every tensor of the graph that the network computes, but for averages, which it has divided already.

        Args:
            inputs: As engines take them; see `maqd.runtime.inputs.prepare`.

        Yields:
            Name and codes, int64, N x the tensor's shape.

        Raises:
            EngineError: The inputs have other types or shapes.
            LoweringError: A value is no multiple of its tensor's unit: this is not the network that was lowered.
        """
        prepared = prepare(self.graph, *inputs)
        types = self.graph.types
        run = _Recorder(self.traced, types)
        with evaluation(self.model), torch.no_grad():  # left before anything is yielded
            result = run.run(*(torch.from_numpy(one.array).to(self.device) for one in prepared.samples))
        for name, value in run.values.items():
            if name not in self.averages:
                yield name, _codes(name, value, types[name])
        results = named_results(result)
        for node in self.graph.outputs:
            yield node.name, _codes(node.name, results[node.key], types[node.name], node.divisor)


class _Recorder(fx.Interpreter):
    """Runs the calls of a network and keeps the tensors that a graph has."""

    def __init__(self, traced: Traced, types: dict[str, TensorType]) -> None:
        super().__init__(traced.model)
        self.values: dict[str, Tensor] = {}
        self._names = {node: name for node, name in traced.names.items() if name in types}
        # A call that changes its input would change what was recorded of it.
        self._copies = any(changes_its_input(traced.model, node) for node in traced.names)

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n in self._names and isinstance(result, Tensor):
            self.values[self._names[n]] = result.clone() if self._copies else result
        return result


def averages(graph: Graph) -> set[str]:
    """Sums over a number of positions that is no power of two, and what only moves them: PyTorch may have divided."""
    found: set[str] = set()
    for node in graph.nodes:
        if isinstance(node, SumPool | GlobalSum):
            count = prod(node.kernel if isinstance(node, SumPool) else graph.types[node.inputs[0]].shape[1:])
            if count & (count - 1) and node.shift == 0:
                found.add(node.name)
        elif isinstance(node, Flatten | Reshape | Permute | Gather | MaxPool) and node.inputs[0] in found:
            found.add(node.name)
    return found


def _codes(name: str, value: Tensor, kind: TensorType, divisor: int = 1) -> NDArray[np.int64]:
    array = value.detach().cpu().numpy()
    scaled = np.ldexp(array.astype(np.float64), -kind.exponent) * divisor
    codes = np.rint(scaled).astype(np.int64)
    again = np.ldexp(codes.astype(array.dtype), kind.exponent) / array.dtype.type(divisor)
    if not np.array_equal(again, array) or codes[0].size != kind.size:
        raise LoweringError(
            f"{name}: PyTorch computes {tuple(value.shape)} values that are not multiples of 2^{kind.exponent} of "
            f"shape {kind.shape}; compare with the network that was lowered"
        )
    return codes.reshape(len(codes), *kind.shape)
