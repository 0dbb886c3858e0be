"""Activations on their own, and their thresholds wherever they are computed."""

import numpy as np

from maqd.errors import EngineError
from maqd.graph import Activation, FixedPoint, Thresholds, channel_interval
from maqd.graph.rules import Table
from maqd.numerics.fixedpoint import FixedAffine, affine_thresholds, clip_thresholds
from maqd.numerics.limits import INT32_LIMIT
from maqd.plan.builder import Builder, axis_of
from maqd.plan.steps import Buffer, Quantization, QuantizeStep


def quantize(b: Builder, node: Activation) -> None:
    """A step of its own."""
    links, output = b.single(node.name, b.buffers[node.inputs[0]])
    axis = axis_of(b.types[node.name].shape, node.axis)
    b.steps.append(QuantizeStep(links=links, quantization=quantization(b, node, output), axis=axis))


def quantization(b: Builder, node: Activation, output: Buffer) -> Quantization:
    """Thresholds on the integers of the channel, whatever form the graph has."""
    interval, affine = channel_interval(b.types[node.inputs[0]], node.axis), None
    if interval.magnitude >= INT32_LIMIT:
        raise EngineError(
            f"activation {node.name!r}: its input can reach {INT32_LIMIT}, and thresholds must be able to exceed "
            "it; use the numpy engine"
        )
    if isinstance(node, Thresholds):
        cuts, signs = clip_thresholds(node.thresholds, node.signs, interval.low, interval.high), node.signs
    elif isinstance(node, FixedPoint):
        affine = FixedAffine(
            multiplier=node.multiplier.astype(np.int64), offset=node.offset.astype(np.int64), shift=node.shift
        )
        cuts, signs = affine_thresholds(affine, node.states.count, interval.low, interval.high)
    else:
        raise EngineError(f"the engine does not know {node.operation} node {node.name!r}")
    return Quantization(
        thresholds=np.ascontiguousarray(cuts, np.int32),
        signs=signs,
        spacing=node.states.spacing,
        base=node.states.low + output.zero,
        affine=affine,
    )


PLAN: Table = {Activation: quantize}
