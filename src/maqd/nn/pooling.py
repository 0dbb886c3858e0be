"""Pooling that stays on integers: maxima, and sums in place of averages."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from maqd.errors import ConfigError
from maqd.numerics.states import Grid


class _MaxPool2d(torch.autograd.Function):
    """Saves the places of the maxima in 32 bits and not the input. PyTorch's own keeps both."""

    @staticmethod
    def forward(
        x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        out, indices = F.max_pool2d(x, kernel, stride, padding, return_indices=True)
        return out, indices.int()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, *window = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[1])
        ctx.shape, ctx.dtype, ctx.window = x.shape, x.dtype, window
        ctx.channels_last = x.is_contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        grad = grads[0]
        if grad is None:
            return None, None, None, None
        (indices,) = ctx.saved_tensors
        layout = torch.channels_last if ctx.channels_last else torch.contiguous_format
        like = torch.empty(ctx.shape, dtype=ctx.dtype, device=grad.device, memory_format=layout)
        backward = torch.ops.aten.max_pool2d_with_indices_backward
        return backward(grad, like, *ctx.window, (1, 1), False, indices.long()), None, None, None


def max_pool2d(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """Maxima over windows, the first one taking the gradient among equals.

    Args:
        x: N x C x H x W.
        kernel, stride, padding: As in `torch.nn.functional.max_pool2d`.

    Returns:
        N x C x H' x W'; the codes of a monotone quantizer stay codes.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        return _MaxPool2d.apply(x, kernel, stride, padding)[0]  # pyright: ignore[reportOptionalSubscript]
    return F.max_pool2d(x, kernel, stride, padding)


class MaxPool2d(nn.Module):
    """Max pooling of codes: as `torch.nn.MaxPool2d`, with a third of its memory in training.

    Args:
        kernel_size, stride, padding: As in `torch.nn.MaxPool2d`.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.kernel_size = _pair(kernel_size)
        self.stride = self.kernel_size if stride is None else _pair(stride)
        self.padding = _pair(padding)

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W -> N x C x H' x W'."""
        return max_pool2d(x, self.kernel_size, self.stride, self.padding)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class GlobalSumPool(nn.Module):
    """Average pooling over all positions as an exact sum: sum(x) * 2**-shift with 2**shift nearest to their number.

    N x C x H x W -> N x C, a mean up to a power-of-two rounding of its divisor (exact for 1, 4, 16, 64 positions).

    Args:
        positions: H * W.
        input_grid: Where the input lies, if it is quantized.
    """

    def __init__(self, positions: int, input_grid: Grid | None = None) -> None:
        super().__init__()
        if positions < 1:
            raise ConfigError(f"GlobalSumPool needs at least one position, got {positions}")
        self.positions = positions
        self.shift = round(math.log2(positions))
        self.grid = None
        if input_grid is not None:
            low, high, exponent = input_grid.low * positions, input_grid.high * positions, input_grid.exponent
            self.grid = Grid(low=low, high=high, exponent=exponent - self.shift)

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W -> N x C, float32 (or float64 like x): in bfloat16 sums of codes would round."""
        if x.shape[-1] * x.shape[-2] != self.positions:
            raise ConfigError(f"GlobalSumPool was built for {self.positions} positions, got {tuple(x.shape[-2:])}")
        wide = x if x.dtype == torch.float64 else x.float()
        return wide.sum((-2, -1)) * 2.0**-self.shift

    def extra_repr(self) -> str:
        return f"positions={self.positions}, shift={self.shift}"
