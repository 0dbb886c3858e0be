"""Activations on their own, and their thresholds wherever they are computed."""

import numpy as np

from maqd.errors import EngineError
from maqd.graph import Activation, FixedPoint, channel_interval
from maqd.graph.rules import Table
from maqd.numerics.limits import INT32_LIMIT
from maqd.plan.builder import Builder, axis_of
from maqd.plan.steps import Buffer, FixedPointStep, Quantization, QuantizeStep


def quantize(b: Builder, node: Activation) -> None:
    """A step of its own."""
    links, output = b.single(node.name, b.buffers[node.inputs[0]])
    axis = axis_of(b.types[node.name].shape, node.axis)
    if isinstance(node, FixedPoint) and not node.states.few:
        states = node.states
        b.steps.append(
            FixedPointStep(
                links=links,
                affine=node.affine(channel_interval(b.types[node.inputs[0]], node.axis)),
                last=states.count - 1,
                spacing=states.spacing,
                low=states.low,
                axis=axis,
            )
        )
        return
    b.steps.append(QuantizeStep(links=links, quantization=quantization(b, node, output), axis=axis))


def quantization(b: Builder, node: Activation, output: Buffer) -> Quantization:
    """Thresholds on the integers of the channel, whatever form the graph has."""
    interval = channel_interval(b.types[node.inputs[0]], node.axis)
    if interval.magnitude >= INT32_LIMIT:
        raise EngineError(
            f"activation {node.name!r}: its input can reach {INT32_LIMIT}, and thresholds must be able to exceed "
            "it; use the numpy engine"
        )
    cuts, signs = node.cuts(interval)
    return Quantization(
        thresholds=np.ascontiguousarray(cuts, np.int32),
        signs=signs,
        spacing=node.states.spacing,
        base=node.states.low + output.zero,
        affine=node.affine(interval) if isinstance(node, FixedPoint) else None,
    )


PLAN: Table = {Activation: quantize}
