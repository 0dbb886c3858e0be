"""Makes the layers of a network from its configuration, by name."""

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from maqd.errors import ConfigError
from maqd.nn.activation import NormActivation
from maqd.nn.baselines import ACTIVATIONS, WEIGHTS
from maqd.nn.input_grid import Values
from maqd.nn.layers import QuantConv2d, QuantLinear
from maqd.nn.norm import Normalization, make_norm
from maqd.nn.quantizers import RoundClip, WeightQuantizer
from maqd.numerics.states import Grid, States, weight_states
from maqd.settings.quantization import UNCHANGED, ActMethod, Affine, QuantConfig, Quantizer, WeightMethod


@dataclass(frozen=True, kw_only=True)
class LayerFactory:
    """Makes the layers of one network; each asks for its states under its own dotted name.

    Args:
        quant: The network's quantization.

    The grids that its methods take are those of `grid_of`: None for inputs in float.
    """

    quant: QuantConfig

    def weight_quantizer(self, name: str) -> WeightQuantizer | None:
        """How the weights of the layer `name` are quantized, after overrides; None in float."""
        quant = self.quant
        states, method = quant.weight_states, quant.weight_method
        for override in quant.overrides:
            if override.weight_states != UNCHANGED and fnmatchcase(name, override.pattern):
                states, method = override.weight_states, WeightMethod.MAQD
        if states is None:
            return None
        if method in WEIGHTS:
            return WEIGHTS[method](states)
        return RoundClip(states=weight_states(states), step=quant.weight_step)

    def quantizer(self, name: str) -> Quantizer | None:
        """The activation `name` after overrides; None for ReLU."""
        quant = self.quant
        states, method, step = quant.act_states, quant.act_method, quant.act_step
        for override in quant.overrides:
            if not fnmatchcase(name, override.pattern):
                continue
            if override.act_states != UNCHANGED:
                states, method = override.act_states, ActMethod.MAQD
            if override.act_step is not None:
                step = override.act_step
        if states is None:
            return None
        if method in ACTIVATIONS:
            return ACTIVATIONS[method](states, step)
        return Quantizer(states=States(count=states, signed=False), step=step, surrogate=quant.surrogate)

    def conv(
        self,
        name: str,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        grid: Grid | None,
        *,
        stride: int = 1,
        padding: tuple[int, int] | None = None,
        groups: int = 1,
        gain: float = 1,
    ) -> QuantConv2d:
        """A convolution; without `padding`, one that keeps the image's size but for its stride."""
        height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        return QuantConv2d(
            inputs,
            outputs,
            kernel,
            stride=stride,
            padding=((height - 1) // 2, (width - 1) // 2) if padding is None else padding,
            groups=groups,
            states=self.weight_quantizer(name),
            input_grid=_input(grid),
            gain=gain,
        )

    def activation(self, name: str, channels: int) -> NormActivation:
        """Normalization and activation."""
        norm = make_norm(self.quant.norm, channels, affine=self.quant.affine)
        return NormActivation(norm, self.quantizer(name))

    def bottleneck(self, channels: int, *, states: int = 255) -> NormActivation:
        """A normalization with no activation after it: a linear bottleneck.

        Args:
            channels: C.
            states: M, signed and odd: they cover 4 standard deviations. More than 256 are 16-bit codes.
        """
        norm = make_norm(self.quant.norm, channels, affine=self.quant.affine)
        return NormActivation(norm, linear_quantizer(states))

    def gate(self, channels: int) -> NormActivation:
        """A hard-sigmoid gate; see `hard_sigmoid`."""
        return hard_sigmoid(make_norm(self.quant.norm, channels, affine=Affine.CHANNEL))

    def linear(self, name: str, inputs: int, outputs: int, grid: Grid | None) -> QuantLinear:
        """A linear map without bias."""
        return QuantLinear(inputs, outputs, states=self.weight_quantizer(name), input_grid=_input(grid))

    def head(self, name: str, inputs: int, classes: int, grid: Grid | None, *, positions: int = 1) -> QuantLinear:
        """The classifier: integer logits with a bias on their grid.

        Standardized weights cannot grow, so the scale that the loss needs is built in. A mean over n positions varies
        up to sqrt(n) times less than its terms; the gain of the layer makes up for that.
        """
        return QuantLinear(
            inputs,
            classes,
            bias=True,
            states=self.weight_quantizer(name),
            input_grid=_input(grid),
            gain=math.sqrt(positions),
        )


def linear_quantizer(states: int) -> Quantizer:
    """A signed quantizer that stands in for no activation at all: its states cover 4 standard deviations.

    Args:
        states: M, odd, so that there is a state at zero; 255 fit a byte.
    """
    return Quantizer(states=States(count=states, signed=True), step=2.0 ** math.ceil(math.log2(8 / states)))


def hard_sigmoid(norm: Normalization, *, bits: int = 4) -> NormActivation:
    """A gate: clip(y / 6 + 1/2, 0, 1) of the normalized value y, rounded to multiples of 2**-bits.

    Multiply its output with the tensor that it gates. The 1/6 and 1/2 are the first weights and biases of the
    normalization, which training may change; they fold into thresholds, exactly.

    Args:
        norm: With a weight and a bias, a channel or one for all; both are overwritten.
        bits: The gate has the 2**bits + 1 values 0, 2**-bits, .., 1.

    Raises:
        ConfigError: The normalization has no weight or no bias.
    """
    if norm.weight is None or norm.bias is None:
        raise ConfigError(f"a gate needs a normalization with weight and bias, got {norm}; use affine=Affine.CHANNEL")
    nn.init.constant_(norm.weight, 1 / 6)
    nn.init.constant_(norm.bias, 1 / 2)
    return NormActivation(norm, Quantizer(states=States(count=2**bits + 1, signed=False), step=2.0**-bits))


def _input(grid: Grid | None) -> Grid | Values:
    """A layer's input: None stands for an activation in float, as in `grid_of`."""
    return Values.FLOAT if grid is None else grid


def grid_of(activation: NormActivation) -> Grid | None:
    """Where an activation's output lies, None in float."""
    return None if activation.quantizer is None else activation.quantizer.grid
