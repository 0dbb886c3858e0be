"""Layers whose weights have a few states: convolutions and linear maps."""

import math
from abc import abstractmethod
from collections.abc import Hashable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maqd.errors import ConfigError
from maqd.nn.folding import Folded, versions
from maqd.nn.functional import quantize_bias, with_gradient_of
from maqd.nn.input_grid import Values, describe_grid, misfit
from maqd.nn.quantizers import RoundClip, WeightQuantizer
from maqd.numerics.limits import INT32_LIMIT, WIDE_LIMIT
from maqd.numerics.states import Grid, States, weight_states

UNIT = Grid(low=0, high=1, exponent=0)
"""The grid that is assumed of inputs in float, and of layers that were saved without one."""


class QuantLayer(Folded):
    """What convolutions and linear layers share: a weight of a few states, and a bias on the accumulator's grid.

    Training quantizes the weight in every step. Evaluation uses codes computed once, in float64 on the CPU, and
    accumulates in float32, where sums of codes below 2^24 are exact; in float64 where they come near (`wide`).

    The first batch in training and the first in evaluation must lie on `input_grid`.

    Args:
        shape: Of the weight: outputs first, then fan-in.
        bias: Whether to add a bias, rounded to the accumulator's unit.
        states: M_w, for MaQD's `RoundClip`; or another `WeightQuantizer`; None for a float layer.
        step: Of `RoundClip`: distance of neighbouring states, in standard deviations of a filter; None takes the best
            uniform step for a unit Gaussian.
        input_grid: Where the input lies: sets the power-of-two gain and the accumulator's unit. `Values.FLOAT` for
            inputs in float. None leaves it to `maqd.check`, which finds it by following the network, before training.
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
        input_grid: Grid | Values | None,
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
            self.quantizer = RoundClip(states=weight_states(states), step=step)
        self.gain = gain
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
        self.exponent: int | None = None
        self.input_grid: Grid | None = None
        self.float_input = isinstance(input_grid, Values)
        self.wide = False
        self._unseen = {True, False}
        if isinstance(input_grid, Grid):
            self.set_input_grid(input_grid)
        elif self.float_input:
            self.set_input_grid(UNIT)
        elif self.quantizer is not None:
            # Only where it has to be found: the saved states of networks that state their grids keep their names.
            self.register_buffer("input_range", torch.tensor(_UNKNOWN))

    def set_input_grid(self, grid: Grid) -> None:
        """States where the input lies; before training, since it sets the scale of the output.

        Raises:
            ConfigError: Sums may leave 32 bits, whatever the weights become in training.
        """
        if self.quantizer is None:
            self.input_grid = grid
            return
        fan_in = self.weight[0].numel()
        scale = self.gain / (math.sqrt(fan_in) * grid.magnitude * grid.unit)
        largest = self.quantizer.largest_sum(fan_in) * grid.magnitude
        if largest > INT32_LIMIT:
            most = _most_inputs(self.quantizer, grid)
            raise ConfigError(
                f"{type(self).__name__} with fan-in {fan_in}, {self.quantizer.states.count} weight states and input "
                f"codes up to {grid.magnitude} can accumulate {largest}, which does not fit 32 bits; use fewer states "
                f"or a fan-in of at most {most}"
            )
        self.input_grid, self._unseen = grid, {True, False}
        self.exponent = round(math.log2(scale * self.quantizer.code_scale))
        if "input_range" in self._buffers:
            self.input_range = torch.tensor((grid.low, grid.high, grid.exponent), device=self.weight.device)
        if not self.training:
            self.refold()

    input_range: Tensor

    def find_grid(self) -> Grid | None:
        """The input's grid, stated or from a saved state; None if it is not known yet."""
        if self.input_grid is None and "input_range" in self._buffers and not self.input_range.is_meta:
            low, high, exponent = self.input_range.tolist()
            if low <= high:
                self.set_input_grid(Grid(low=low, high=high, exponent=exponent))
        return self.input_grid

    def _known_grid(self) -> Grid:
        """The input's grid.

        Raises:
            ConfigError: It is not known.
        """
        if (grid := self.find_grid()) is None:
            raise ConfigError(
                f"{self._title()} does not know where its input lies; call maqd.check(network, example) once before "
                "training, or build the layer with input_grid"
            )
        return grid

    def _title(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **options: Any) -> None:
        key = f"{prefix}input_range"
        if "input_range" not in self._buffers:
            saved, grid = state_dict.get(key), self.input_grid
            if (
                isinstance(saved, Tensor)
                and grid is not None
                and saved.tolist() == [grid.low, grid.high, grid.exponent]
            ):
                del state_dict[key]  # the same grid, stated when the layer was built
        elif key not in state_dict and f"{prefix}weight" in state_dict:
            # Saved by a version that did not find grids: layers without one assumed inputs of 0 and 1.
            grid = self.input_grid or UNIT
            state_dict[key] = torch.tensor((grid.low, grid.high, grid.exponent))
        super()._load_from_state_dict(state_dict, prefix, *args, **options)
        if "input_range" in self._buffers:
            self.input_grid, self.exponent = None, None
            self.find_grid()

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
        if self.quantizer is None:
            raise ConfigError(f"{type(self).__name__} has float weights, and so no integer accumulator; set its states")
        grid = self._known_grid()
        return math.ldexp(1.0, (self.exponent or 0) + grid.exponent)

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
            ConfigError: The bias takes the accumulator out of 32 bits.
        """
        if self.exponent is None or self.input_grid is None:
            return
        codes = self.weight_codes()
        largest = _largest_sum(codes, self.input_grid)
        bias = None
        if self.bias is not None:
            bias = quantize_bias(self.bias.double(), self.accumulator_unit)
            largest = largest + float(bias.abs().max()) / self.accumulator_unit
            if not largest <= INT32_LIMIT:
                raise ConfigError(
                    f"{type(self).__name__} with its bias can accumulate {largest:g}, which does not fit 32 bits; "
                    "keep the bias smaller or use a coarser input grid"
                )
        self.wide = largest >= WIDE_LIMIT
        dtype = torch.float64 if self.wide else torch.float32
        # With the strides of the weight: they decide the memory format of the output, as in training.
        self.eval_weight = torch.empty_like(self.weight, dtype=dtype)
        self.eval_weight.copy_(codes.to(self.weight.device, dtype) * math.ldexp(1.0, self.exponent))
        if bias is not None:
            self.eval_bias = bias.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output; in evaluation exact integers times `accumulator_unit`, in float64 if `wide`."""
        if self.quantizer is None:
            return self._apply_weight(_same_type(x, self.weight), self.weight, self.bias)
        if self.exponent is None:
            self._known_grid()
        if not torch.compiler.is_compiling() and self.training in self._unseen:
            self._look_at(x)
        if not self.rounding:
            weight = self.quantizer.unrounded(self.weight, math.ldexp(1.0, self.exponent or 0), self._learned)
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
                return self._apply_weight(x.to(weight.dtype), weight, bias)
            # Some of cuDNN's algorithms (Winograd, FFT, TF32) are not exact on integers; the plain ones are.
            with torch.backends.cudnn.flags(enabled=False, allow_tf32=False):
                return self._apply_weight(x.to(weight.dtype), weight, bias)

    def _look_at(self, x: Tensor) -> None:
        """Raises ConfigError unless the first batch lies on the input's grid: the network would train for nothing."""
        if self.float_input or not self.rounding or self.input_grid is None or x.is_meta:
            return
        found = misfit(x, self.input_grid, dropout=self.training)
        if found is not None:
            raise ConfigError(
                f"{self._title()} was built for an input of {describe_grid(self.input_grid)} and gets {found}; build "
                "it without input_grid and call maqd.check(network, example), or give it the grid of its input"
            )
        self._unseen.discard(self.training)

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


_UNKNOWN = (0, -1, 0)
"""Saved in place of a grid that was not found yet."""


def _largest_sum(codes: Tensor, grid: Grid) -> int:
    """No sum of products, in any order, is larger in magnitude.

    Args:
        codes: O x ..., integers.
        grid: Of the inputs.
    """
    rows = codes.flatten(1).to(torch.int64)
    positive, negative = rows.clamp_min(0).sum(1), -rows.clamp_max(0).sum(1)
    low, high = -min(grid.low, 0), max(grid.high, 0)
    return int(torch.maximum(positive * high + negative * low, positive * low + negative * high).max())


def _most_inputs(quantizer: WeightQuantizer, grid: Grid) -> int:
    """The largest fan-in whose sums fit 32 bits."""
    low, high = 0, INT32_LIMIT
    while low < high:
        middle = (low + high + 1) // 2
        if quantizer.largest_sum(middle) * grid.magnitude <= INT32_LIMIT:
            low = middle
        else:
            high = middle - 1
    return low


def _same_type(x: Tensor, like: Tensor) -> Tensor:
    """X in the dtype of another tensor, unless autocast decides about types."""
    return x if x.dtype == like.dtype or torch.is_autocast_enabled(x.device.type) else x.to(like.dtype)


def _whole_numbers(name: str, value: int | tuple[int, ...] | str, dims: int, least: int) -> tuple[int, ...]:
    """One number per spatial dimension."""
    values = value if isinstance(value, tuple) else (value,) * dims
    whole = tuple(v for v in values if isinstance(v, int) and v >= least)
    if len(values) != dims or len(whole) != dims:
        raise ConfigError(f"a {dims}-d convolution needs whole numbers >= {least} for its {name}, got {value!r}")
    return whole


class _QuantConv(QuantLayer):
    """Convolutions of any number of spatial dimensions; the arguments are documented in `QuantConv2d`."""

    dims: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] | str = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = False,
        *,
        states: int | WeightQuantizer | None = 3,
        step: float | None = None,
        input_grid: Grid | Values | None = None,
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
        self.dilation = _whole_numbers("dilation", dilation, self.dims, 1)
        if padding == "same" and set(self.stride) != {1}:
            raise ConfigError(f"padding='same' needs a stride of 1, got {self.stride}; give the padding in numbers")
        if isinstance(padding, str) and padding in ("same", "valid"):
            room = [d * (k - 1) if padding == "same" else 0 for d, k in zip(self.dilation, kernel, strict=True)]
            self.padding, self.trailing = tuple(r // 2 for r in room), tuple(r - r // 2 for r in room)
        else:
            self.padding = self.trailing = _whole_numbers("padding", padding, self.dims, 0)

    def _padded(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """The input, padded where both sides differ, and the padding that is left for the convolution."""
        if self.padding == self.trailing:
            return x, self.padding
        pads = [n for pair in zip(reversed(self.padding), reversed(self.trailing), strict=True) for n in pair]
        return F.pad(x, pads), (0,) * self.dims

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
        input_grid: Where the input lies (`Quantizer.grid`, `maqd.numerics.states.PIXELS`), or `Values.FLOAT`; None
            leaves it to `maqd.check`.
        gain: Wanted standard deviation of the output for inputs that fill their range.
    """

    dims = 2

    def _apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        (x, padding), stride = self._padded(x), self.stride
        if self.kernel_size == (1, 1) and padding == (0, 0):
            # The same sums. oneDNN's weight gradient of a strided 1x1 convolution of few channels overruns its buffer
            # (PyTorch 2.13, channels_last, 4 channels on 56 x 56: a crash within some 25 steps).
            x, stride = x[:, :, :: stride[0], :: stride[1]], (1, 1)
        return F.conv2d(x, weight, bias, stride, padding, self.dilation, self.groups)


class QuantConv1d(_QuantConv):
    """1-d convolution with weights of M_w states: N x C x L -> N x O x L'. Padding is code 0.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: As in `torch.nn.Conv1d`.
        states, step, input_grid, gain: As in `QuantConv2d`.
    """

    dims = 1

    def _apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, padding = self._padded(x)
        return F.conv1d(x, weight, bias, self.stride, padding, self.dilation, self.groups)


class QuantConv3d(_QuantConv):
    """3-d convolution with weights of M_w states: N x C x D x H x W -> N x O x D' x H' x W'. Padding is code 0.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias: As in `torch.nn.Conv3d`.
        states, step, input_grid, gain: As in `QuantConv2d`.
    """

    dims = 3

    def _apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, padding = self._padded(x)
        return F.conv3d(x, weight, bias, self.stride, padding, self.dilation, self.groups)


class _QuantConvTranspose(_QuantConv):
    """Transposed convolutions of any number of spatial dimensions; arguments as in `QuantConvTranspose2d`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        output_padding: int | tuple[int, ...] = 0,
        groups: int = 1,
        bias: bool = False,
        dilation: int | tuple[int, ...] = 1,
        *,
        states: int | WeightQuantizer | None = 3,
        step: float | None = None,
        input_grid: Grid | Values | None = None,
        gain: float = 1.0,
    ) -> None:
        if isinstance(padding, str):
            raise ConfigError(f"{type(self).__name__} needs its padding in numbers, got {padding!r}")
        strides = _whole_numbers("stride", stride, self.dims, 1)
        kernel = _whole_numbers("kernel size", kernel_size, self.dims, 1)
        seen = math.prod(min(s, k) for s, k in zip(strides, kernel, strict=True))
        super().__init__(
            in_channels, out_channels, kernel, strides, padding, dilation, groups, bias,
            states=states, step=step, input_grid=input_grid, gain=gain * math.sqrt(seen),
        )  # fmt: skip
        self.output_padding = _whole_numbers("output padding", output_padding, self.dims, 0)

    def _apply_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        split = weight.reshape(self.groups, -1, *weight.shape[1:]).transpose(1, 2)
        inputs_first = split.reshape(self.in_channels, -1, *self.kernel_size)
        function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[self.dims - 1]
        padding, more = self.padding, self.output_padding
        return function(x, inputs_first, bias, self.stride, padding, more, self.groups, self.dilation)


class QuantConvTranspose1d(_QuantConvTranspose):
    """Transposed 1-d convolution with weights of M_w states: N x C x L -> N x O x L'; see `QuantConvTranspose2d`."""

    dims = 1


class QuantConvTranspose2d(_QuantConvTranspose):
    """Transposed 2-d convolution with weights of M_w states: N x C x H x W -> N x O x H' x W'.

    The weight is O x C/groups x kernel, outputs first as in every layer here: filters are standardized one by one.
    (`torch.nn.ConvTranspose2d` has C x O/groups x kernel.)

    Args:
        in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation: As in
            `torch.nn.ConvTranspose2d`.
        states, step, input_grid: As in `QuantConv2d`.
        gain: As in `QuantConv2d`; an output sums over fan-in / stride^2 products.
    """

    dims = 2


class QuantConvTranspose3d(_QuantConvTranspose):
    """Transposed 3-d convolution with weights of M_w states: N x C x D x H x W -> N x O x D' x H' x W'; see
    `QuantConvTranspose2d`.
    """

    dims = 3


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
        input_grid: Grid | Values | None = None,
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
