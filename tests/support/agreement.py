"""A network and what it is lowered to: the same integers in every engine and export, and PyTorch's scores."""

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from effort import LONG
from numpy.typing import NDArray
from programs import GCC
from torch import Tensor, nn

from maqd.export.c99 import Strategy
from maqd.export.onnx.integer import Profile
from maqd.export.onnx.qonnx import Flavour, qonnx_model
from maqd.graph import Graph, container
from maqd.lowering import TorchEngine, lower
from maqd.lowering.builder import named_results
from maqd.runtime import NativeEngine, NumpyEngine, inputs
from maqd.runtime.c99 import CEngine
from maqd.runtime.engine import BaseEngine
from maqd.runtime.native import Kernel, isas
from maqd.runtime.onnxruntime import OnnxRuntime
from maqd.runtime.verify import verify

Samples = tuple[NDArray[np.generic], ...]


def lowered(network: nn.Module, *example: Tensor) -> Graph:
    """The graph, all of it proved, written to a file and read again."""
    found = lower(network, example)
    assert all(report.mismatches == 0 for report in found.activations)
    return container.from_bytes(container.to_bytes(found.graph))


def engines(graph: Graph) -> Iterator[BaseEngine]:
    """Every engine on every instruction set of this machine, both profiles of ONNX, and the C99 program; in
    `make test-all` also every kernel and every strategy of the program.
    """
    yield NumpyEngine(graph)
    for isa in isas():
        for kernel in Kernel if LONG else (Kernel.AUTOMATIC,):
            yield NativeEngine(graph, isa=isa, kernel=kernel)
    for profile in Profile:
        yield OnnxRuntime(graph, profile=profile)
    for strategy in Strategy if LONG else (Strategy.BALANCED,):
        yield CEngine(graph, strategy=strategy, flags=("-O2",) if LONG else GCC.flags)


def assert_equal_everywhere(network: nn.Module, graph: Graph, *samples: Tensor, random: int = 3) -> None:
    """Compares every tensor of every engine, and the values of the outputs with the network's own.

    Args:
        network: In evaluation mode.
        graph: What it was lowered to.
        samples: A batch for each input.
        random: How many random samples at the ends of the inputs' ranges to take besides.
    """
    given = tuple(sample.numpy() for sample in samples)
    compared = list(engines(graph))
    result = verify(graph, [TorchEngine(network, graph), *compared], [given, inputs.random(graph, random)])
    assert result.ok, result
    with torch.no_grad():
        wanted = {key: value.float().numpy() for key, value in named_results(network(*samples)).items()}
    for engine in compared:
        found = engine.scores(*given)
        for key, values in (found if isinstance(found, dict) else {graph.output.key: found}).items():
            np.testing.assert_array_equal(values, wanted[key], err_msg=f"{engine.name}, {key}")


def assert_qonnx_equal(graph: Graph, flavour: Flavour, samples: Samples) -> None:
    """Compares the outputs of a QONNX model in the executor of the qonnx package, sample by sample."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.core.onnx_exec import execute_onnx

        wrapper = ModelWrapper(qonnx_model(graph, flavour))
        codes = NumpyEngine(graph).run(*samples)
        for place in range(len(samples[0])):
            given = {
                node.key: values[place][None].astype(np.float32)
                for node, values in zip(graph.inputs, samples, strict=True)
            }
            found = execute_onnx(wrapper, given)
            for key, wanted in (codes if isinstance(codes, dict) else {graph.output.key: codes}).items():
                np.testing.assert_array_equal(found[key][0], wanted[place], err_msg=f"{flavour.value}, {key}")
