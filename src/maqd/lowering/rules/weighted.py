"""Layers with weights of a few states."""

from typing import Any

import numpy as np

from maqd.graph import Conv, Linear
from maqd.lowering.builder import Codes, Raw, Rules, Step
from maqd.nn import QuantConv1d, QuantConv2d, QuantLinear
from maqd.numerics.packing import PackedCodes


def weighted(step: Step, x: Codes | Raw, module: QuantConv1d | QuantConv2d | QuantLinear) -> Codes:
    """`QuantConv1d`, `QuantConv2d`, `QuantLinear`: sums of products of codes, plus the bias."""
    source = step.codes(x)
    exponent = module.exponent
    if module.states is None or exponent is None:
        step.refuse("its weights are in float", "give it states and train again")
    module.refold()
    weight = PackedCodes.pack(module.weight_codes().numpy(), module.states)
    bias = None
    if module.bias is not None and source.known:
        units = np.ldexp(module.eval_bias.cpu().double().numpy(), -(source.type.exponent + exponent))
        bias = units.astype(np.int32)
        if not np.array_equal(bias, units):
            step.refuse(
                "its bias is not on the grid of its accumulator",
                "build the layer with the input_grid that its input has",
            )
    common: dict[str, Any] = {
        "name": step.name,
        "inputs": (source.source,),
        "weight": weight,
        "exponent": exponent,
        "bias": bias,
    }
    if isinstance(module, QuantLinear):
        return step.put(Linear(**common), source)
    geometry: dict[str, Any] = {"stride": module.stride, "padding": module.padding, "dilation": module.dilation}
    return step.put(Conv(**common, **geometry, groups=module.groups), source)


RULES = Rules(modules=dict.fromkeys((QuantConv1d, QuantConv2d, QuantLinear), weighted), functions={})
