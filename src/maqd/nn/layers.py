"""Layers whose weights have a few states: convolutions and linear maps."""

import math
from abc import abstractmethod
from collections.abc import Hashable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maqd.errors import ConfigError
from maqd.nn.folding import Folded, versions
from maqd.nn.functional import quantize_bias, with_gradient_of
from maqd.nn.quantizers import RoundClip, WeightQuantizer
from maqd.numerics.limits import EXACT_LIMIT
from maqd.numerics.states import Grid, States

UNIT_INPUT = Grid(low=0, high=1, exponent=0)
"""What a layer assumes of its input when it is not told."""


class QuantLayer(Folded):
    """What convolutions and linear layers share: a weight of a few states, and a bias on the accumulator's grid.

    Training quantizes the weight in every step. Evaluation uses codes computed once, in float64 on the CPU, and
    accumulates in float32, where sums of codes are exact.

    Args:
        shape: Of the weight: outputs first, then fan-in.
        bias: Whether to add a bias, rounded to the accumulator's unit.
        states: M_w, for MaQD's `RoundClip`; or another `WeightQuantizer`; None for a float layer.
        step: Of `RoundClip`: distance of neighbouring states, in standard deviations of a filter; None takes the best
            uniform step for a unit Gaussian.
        input_grid: Where the input lies: sets the power-of-two gain and the accumulator's unit.
        gain: Wanted standard deviation of the output for inputs that fill their range, up to a factor sqrt(2).
    """

    eval_weight: Tensor
    eval_bias: Tensor
    learned: nn.ParameterList | None

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        bias: bool,
        states: int | WeightQuantizer | None,
        step: float | None,
        input_grid: Grid | None,
        gain: float,
    ) -> None:
        super().__init__()
        if min(shape) < 1:
            raise ConfigError(f"{type(self).__name__} needs positive sizes, got a weight of shape {shape}")
        if not 0 < gain < math.inf:
            raise ConfigError(f"{type(self).__name__} needs a finite gain > 0, got {gain}")
        if isinstance(states, WeightQuantizer) and step is not None:
            raise ConfigError(f"{type(self).__name__} takes a step beside a number of states; give it to {states}")
        if states is None or isinstance(states, WeightQuantizer):
            self.quantizer = states
        else:
            self.quantizer = RoundClip(states=States(count=states, signed=True), step=step)
        self.input_grid = UNIT_INPUT if input_grid is None else input_grid
        self.rounding = True
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None
        # PyTorch's own initialization. Standardization makes its scale a matter of the learning rate alone: Adam moves
        # every weight by about the learning rate, so weights 2.4 times larger turned 2.4 times more slowly.
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.register_buffer("eval_weight", torch.empty(0), persistent=False)
        self.register_buffer("eval_bias", torch.empty(0), persistent=False)
        learned = () if self.quantizer is None else self.quantizer.initial(self.weight.detach())
        self.learned = nn.ParameterList([nn.Parameter(value) for value in learned]) if learned else None
        self.exponent = None
        if self.quantizer is None:
            return
        fan_in = math.prod(shape[1:])
        scale = gain / (math.sqrt(fan_in) * self.input_grid.magnitude * self.input_grid.unit)
        self.exponent = round(math.log2(scale * self.quantizer.code_scale))
        count, high = self.quantizer.states.count, self.quantizer.states.high
        largest = self.largest_product_sum = fan_in * high * self.input_grid.magnitude
        if largest >= EXACT_LIMIT:
            raise ConfigError(
                f"{type(self).__name__} with fan-in {fan_in}, {count} weight states and input codes up to "
                f"{self.input_grid.magnitude} can accumulate {largest} >= 2**24, which float32 does not hold exactly; "
                "use fewer states or a smaller fan-in"
            )

    @property
    def states(self) -> States | None:
        """The codes of the weights; None in float."""
        return None if self.quantizer is None else self.quantizer.states

    @property
    def _learned(self) -> tuple[Tensor, ...]:
        """What the quantizer learns beside the weights."""
        return () if self.learned is None else tuple(self.learned)

    @property
    def accumulator_unit(self) -> float:
        """Value of 1 in the integer accumulator: unit of the weights times unit of the input."""
        if self.exponent is None:
            raise ConfigError(f"{type(self).__name__} has float weights, and so no integer accumulator; set its states")
        return math.ldexp(1.0, self.exponent + self.input_grid.exponent)

    def weight_codes(self) -> Tensor:
        """The weight's codes, int16 on the CPU, shaped like the weight.

        Raises:
            ConfigError: The weight is in float.
        """
        if self.quantizer is None:
            raise ConfigError(f"{type(self).__name__} has float weights, and so no codes; set its states")
        with torch.no_grad():
            return self.quantizer.codes(self.weight, self._learned)

    def state_key(self) -> Hashable:
        """Of weight, bias and what the quantizer learns, if they are quantized."""
        return None if self.exponent is None else versions(self.weight, self.bias, *self._learned)

    def compute_integers(self) -> None:
        """The codes that evaluation uses.

        Raises:
            ConfigError: The bias takes the accumulator out of the range that float32 holds exactly.
        """
        if self.exponent is None:
            return
        codes = self.weight_codes().to(self.weight.device, torch.float32)
        # With the strides of the weight: they decide the memory format of the output, as in training.
        self.eval_weight = torch.empty_like(self.weight, dtype=torch.float32)
        self.eval_weight.copy_(codes * math.ldexp(1.0, self.exponent))
        if self.bias is not None:
            self.eval_bias = quantize_bias(self.bias.double(), self.accumulator_unit).float()
            largest = self.largest_product_sum + float(self.eval_bias.abs().max()) / self.accumulator_unit
            if not largest < EXACT_LIMIT:
                raise ConfigError(
                    f"{type(self).__name__} with its bias can accumulate {largest:g} >= 2**24, which float32 does not "
                    "hold exactly; keep the bias smaller or use a coarser input grid"
                )

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output; in evaluation exact integers times `accumulator_unit`, in float32."""
        if self.quantizer is None or self.exponent is None:
            return self._apply_weight(_same_type(x, self.weight), self.weight, self.bias)
        if not self.rounding:
            weight = self.quantizer.unrounded(self.weight, math.ldexp(1.0, self.exponent), self._learned)
            return self._apply_weight(x, weight, self.bias)
        if self.training:
            weight, bias = self._values()
            bias = None if bias is None else _same_type(bias, x)
            return self._apply_weight(x, _same_type(weight, x), bias)
        if not torch.compiler.is_compiling():
            self.fold()
        weight, bias = self.eval_weight, None if self.bias is None else self.eval_bias
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.parameters()):
            values, bias_values = self._values()
            weight = with_gradient_of(weight, values)
            bias = bias if bias is None or bias_values is None else with_gradient_of(bias, bias_values)
        with torch.autocast(x.device.type, enabled=False):
            if not x.is_cuda or torch.compiler.is_compiling():
                return self._apply_weight(x.float(), weight, bias)
            # Some of cuDNN's algorithms (Winograd, FFT, TF32) are not exact on integers; the plain ones are.
            with torch.backends.cudnn.flags(enabled=False, allow_tf32=False):
                return self._apply_weight(x.float(), weight, bias)

    def _values(self) -> tuple[Tensor, Tensor | None]:
        """Quantized weight and bias with gradients."""
        if self.quantizer is None or self.exponent is None:
            return self.weight, self.bias
        values = self.quantizer.values(self.weight, math.ldexp(1.0, self.exponent), self._learned)
        return values, None if self.bias is None else quantize_bias(self.bias, self.accumulator_unit)

    def outline(self, x: Tensor) -> Tensor:
        """What `forward` returns in evaluation for a tensor on the meta device: shape and dtype alone."""
        bias = None if self.bias is None else torch.empty_like(self.bias, dtype=torch.float32, device="meta")
        return self._apply_weight(x.float(), torch.empty_like(self.weight, dtype=torch.float32, device="meta"), bias)

    @abstractmethod
    def _apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The linear operation itself."""

    def _describe_states(self) -> str:
        return "float" if self.quantizer is None else self.quantizer.describe()


def _same_type(x: Tensor, like: Tensor) -> Tensor:
    """X in the dtype of another tensor, unless autocast decides about types."""
    return x if x.dtype == like.dtype or torch.is_autocast_enabled(x.device.type) else x.to(like.dtype)


def _whole_numbers(name: str, value: int | tuple[int, ...], dims: int, least: int) -> tuple[int, ...]:
    """One number per spatial dimension."""
    values = value if isinstance(value, tuple) else (value,) * dims
    if len(values) != dims or not all(isinstance(v, int) and v >= least for v in values):
        raise ConfigError(f"a {dims}-d convolution needs whole numbers >= {least} for its {name}, got {value!r}")
    return values


class _QuantConv(QuantLayer):
    """Convolutions of any number of spatial dimensions; the arguments are documented in `QuantConv2d`."""

    dims: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = False,
        *,
        states: int | WeightQuantizer | None = 3,
        step: float | None = None,
        input_grid: Grid | None = None,
        gain: float = 1.0,
    ) -> None:
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ConfigError(
                f"{type(self).__name__} needs groups that divide both channel counts, got {groups} groups of "
                f"{in_channels} -> {out_channels} channels"
            )
        kernel = _whole_numbers("kernel size", kernel_size, self.dims, 1)
        super().__init__(
            (out_channels, in_channels // groups, *kernel),
            bias=bias,
            states=states,
            step=step,
            input_grid=input_grid,
            gain=gain,
        )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = kernel
        self.stride = _whole_numbers("stride", stride, self.dims, 1)
        self.padding = _whole_numbers("padding", padding, self.dims, 0)
        self.dilation = _whole_numbers("dilation", dilation, self.dims, 1)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}, {self._describe_states()}"
        )


class QuantConv2d(_QuantConv):
    """2-d convolution with weights of M_w states: N x C x H x W -> N x O x H' x W'. Padding is code 0.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: As in `torch.nn.Conv2d`.
        states: M_w >= 2; or a `WeightQuantizer` other than MaQD's; or None for float weights.
        step: Distance of neighbouring states in standard deviations; None: best uniform step for a Gaussian.
        input_grid: Where the input lies (`Quantizer.grid`, `maqd.numerics.states.PIXELS`); codes 0 and 1 by default.
        gain: Wanted standard deviation of the output for inputs that fill their range.
    """

    dims = 2

    def _apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        stride = self.stride
        if self.kernel_size == (1, 1) and self.padding == (0, 0):
            # The same sums. oneDNN's weight gradient of a strided 1x1 convolution of few channels overruns its buffer
            # (PyTorch 2.13, channels_last, 4 channels on 56 x 56: a crash within some 25 steps).
            x, stride = x[:, :, :: stride[0], :: stride[1]], (1, 1)
        return F.conv2d(x, weight, bias, stride, self.padding, self.dilation, self.groups)


class QuantConv1d(_QuantConv):
    """1-d convolution with weights of M_w states: N x C x L -> N x O x L'. Padding is code 0.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: As in `torch.nn.Conv1d`.
        states, step, input_grid, gain: As in `QuantConv2d`.
    """

    dims = 1

    def _apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv1d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


class QuantLinear(QuantLayer):
    """Linear map with weights of M_w states: ... x I -> ... x O. With a bias it is a network's integer head.

    Its outputs are integers times `accumulator_unit`; the bias lies on the same grid, so argmax needs no float.

    Args:
        in_features, out_features, bias: As in `torch.nn.Linear`.
        states, step, input_grid, gain: As in `QuantConv2d`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        *,
        states: int | WeightQuantizer | None = 3,
        step: float | None = None,
        input_grid: Grid | None = None,
        gain: float = 1.0,
    ) -> None:
        super().__init__(
            (out_features, in_features), bias=bias, states=states, step=step, input_grid=input_grid, gain=gain
        )
        self.in_features, self.out_features = in_features, out_features

    def _apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, {self._describe_states()}"
