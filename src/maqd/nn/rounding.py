"""A network of few states without its rounding: a float network."""

from torch import nn

from maqd.nn.activation import NormActivation, QuantActivation
from maqd.nn.layers import QuantLayer
from maqd.nn.transformer import TokenActivation


def set_rounding(network: nn.Module, rounding: bool) -> None:
    """Switches the rounding of all weights and activations of a network on or off, in place.

    Without rounding a network is in float, with the same parameters and gains: weights are standardized per filter
    and scaled as their codes would be, activations are clipped to the range of their states. This is the network with
    infinitely many states in the same ranges, so training goes on with few states without a jump: the branches of a
    residual stream keep their proportions. They lose them when the weights of an ordinary float network become codes
    (docs/recipes.md).

    Args:
        network: Any network; layers without a quantizer are not changed.
        rounding: Whether to round.

    Raises:
        ConfigError: In the next forward pass, if the weights' method has no float phase.
    """
    for module in network.modules():
        if isinstance(module, QuantLayer | NormActivation | QuantActivation | TokenActivation):
            module.rounding = rounding
