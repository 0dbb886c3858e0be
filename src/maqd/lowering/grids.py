"""Where the inputs of layers lie that were built without saying so."""

from torch import nn

from maqd.lowering.builder import Builder
from maqd.lowering.rules import RULES
from maqd.nn.layers import QuantLayer
from maqd.nn.tracing import Traced
from maqd.numerics.fixedpoint import AffineForm


def find_grids(model: nn.Module, traced: Traced) -> None:
    """Gives every layer without `input_grid` that of its input, by following the network from its inputs.

    The ranges are those that hold whatever the weights become in training: the states of activations, and the largest
    sums that the weights' quantizer allows. Layers after a call that has no integer form keep no grid.

    Args:
        model: The network.
        traced: Its calls.
    """
    layers = [module for module in model.modules() if isinstance(module, QuantLayer) and module.quantizer is not None]
    if any(layer.find_grid() is None for layer in layers):
        Builder(traced, RULES, AffineForm.AUTO, sketch=True).build()
