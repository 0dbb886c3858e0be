"""Layers with weights of a few states."""

from typing import Any

import numpy as np

from maqd.graph import Conv, Linear
from maqd.lowering.builder import Codes, Raw, Rules, Step
from maqd.lowering.rules.shape import gathered
from maqd.nn import (
    QuantConv1d,
    QuantConv2d,
    QuantConv3d,
    QuantConvTranspose1d,
    QuantConvTranspose2d,
    QuantConvTranspose3d,
    QuantLinear,
)
from maqd.nn.input_grid import describe_grid, fits
from maqd.numerics.packing import PackedCodes
from maqd.numerics.states import Grid

Transposed = QuantConvTranspose1d | QuantConvTranspose2d | QuantConvTranspose3d
Layer = QuantConv1d | QuantConv2d | QuantConv3d | Transposed | QuantLinear


def weighted(step: Step, x: Codes | Raw, module: Layer) -> Codes:
    """`QuantConv1d`, `QuantConv2d`, `QuantLinear` and their like: sums of products of codes, plus the bias."""
    source = step.codes(x)
    if module.quantizer is None or module.states is None:
        step.refuse("its weights are in float", "give it states and train again")
    if module.find_grid() is None and source.known:
        module.set_input_grid(source.type.grid)
    if module.input_grid is None or module.exponent is None:
        return step.builder.stand_in(step.call.meta["value"])
    exponent = module.exponent
    if step.builder.sketch:
        # Bounds for any weights; a bias can double them.
        largest = module.quantizer.largest_sum(module.weight[0].numel()) * source.type.grid.magnitude
        largest *= 1 if module.bias is None else 2
        grid = Grid(low=-largest, high=largest, exponent=source.type.exponent + exponent)
        return step.on_grid(grid, known=source.known)
    if source.known and module.float_input:
        step.refuse("it was built for an input in float", "build it without input_grid and train again")
    if source.known and not fits(source.type.grid, module.input_grid):
        step.refuse(
            f"its input has {describe_grid(source.type.grid)}, and it was built for {describe_grid(module.input_grid)}",
            "build it without input_grid, or with that of its input, and train again",
        )
    module.refold()
    codes = module.weight_codes()
    if isinstance(module, Transposed):
        codes = codes.flip(tuple(range(2, codes.ndim)))
    weight = PackedCodes.pack(codes.contiguous().numpy(), module.states)
    bias = None
    if module.bias is not None and source.known:
        units = np.ldexp(module.eval_bias.cpu().double().numpy(), -(source.type.exponent + exponent))
        bias = units.astype(np.int32)
        if not np.array_equal(bias, units):
            step.refuse(
                "its bias is not on the grid of its accumulator",
                "call the layer with inputs of one unit only",
            )
    common: dict[str, Any] = {
        "name": step.name,
        "inputs": (source.source,),
        "weight": weight,
        "exponent": exponent,
        "bias": bias,
    }
    if isinstance(module, QuantLinear):
        return step.put(Linear(**common), source, wide=module.wide)
    if isinstance(module, Transposed):
        spread, padding, trailing = _spread(step, source, module)
        common["inputs"] = (spread.source,)
        node = Conv(**common, stride=(1,) * module.dims, padding=padding, trailing=trailing, dilation=module.dilation,
                    groups=module.groups)  # fmt: skip
        return step.put(node, spread, wide=module.wide)
    geometry: dict[str, Any] = {"stride": module.stride, "padding": module.padding, "dilation": module.dilation}
    node = Conv(**common, **geometry, trailing=module.trailing, groups=module.groups)
    return step.put(node, source, wide=module.wide)


def _spread(step: Step, source: Codes, module: Transposed) -> tuple[Codes, tuple[int, ...], tuple[int, ...]]:
    """A transposed convolution is one of the inputs with zeros between them: those, and the padding around them."""
    front, end = [], []
    for axis, (s, p, d, k, more) in enumerate(
        zip(module.stride, module.padding, module.dilation, module.kernel_size, module.output_padding, strict=True), 1
    ):
        size = source.type.shape[axis]
        places = [at // s if at % s == 0 else -1 for at in range((size - 1) * s + 1)]
        before, after = d * (k - 1) - p, d * (k - 1) - p + more
        places = places[max(-before, 0) : len(places) - max(-after, 0)]
        source = gathered(step, source, axis, places, step.builder.free(f"{step.name}.zeros{axis}"))
        front.append(max(before, 0))
        end.append(max(after, 0))
    return source, tuple(front), tuple(end)


RULES = Rules(
    modules=dict.fromkeys(
        (
            QuantConv1d,
            QuantConv2d,
            QuantConv3d,
            QuantConvTranspose1d,
            QuantConvTranspose2d,
            QuantConvTranspose3d,
            QuantLinear,
        ),
        weighted,
    ),
    functions={},
)
