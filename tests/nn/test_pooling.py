"""Pooling against PyTorch's own and against integer sums."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maqd import Grid
from maqd.errors import ConfigError
from maqd.nn import GlobalSumPool, MaxPool2d

WINDOWS: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 1, "padding": 1},
    {"kernel_size": (3, 2), "stride": (1, 2), "padding": (1, 0)},
    {"kernel_size": (1, 4), "stride": 3},
    {"kernel_size": 1},
]
LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
}


def run(pool: nn.Module, x: Tensor, grad: Tensor | None) -> tuple[Tensor, Tensor]:
    leaf = x.detach().requires_grad_()
    out = pool(leaf)
    if grad is None:
        grad = torch.randint(-8, 9, out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    (gradient,) = torch.autograd.grad(out, leaf, grad)  # as it is: `backward` would change its strides to the leaf's
    return out.detach(), gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("channels", [1, 5])
def test_max_pooling_equals_pytorch_in_values_and_gradients(
    window: dict[str, Any], layout: str, dtype: torch.dtype, channels: int
):
    """On few values, so that most windows hold ties; the gradients are integers, so that their sums are exact."""
    for size in ((6, 6), (7, 5)):
        x = LAYOUTS[layout](torch.randint(-1, 3, (3, channels, *size)).to(dtype))
        ours, theirs = run(MaxPool2d(**window), x, None), run(nn.MaxPool2d(**window), x, None)
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
        assert ours[1].any()
        with torch.no_grad():
            assert torch.equal(MaxPool2d(**window)(x), theirs[0])


def test_among_equals_the_first_takes_the_gradient():
    _, grad = run(MaxPool2d(2), torch.ones(1, 1, 2, 4), torch.ones(1, 1, 1, 2))
    assert grad.tolist() == [[[[1, 0, 1, 0], [0, 0, 0, 0]]]]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_max_pooling_keeps_the_memory_format_in_both_directions(layout: str):
    x = LAYOUTS[layout](torch.randn(2, 4, 6, 6))
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    for tensor in run(MaxPool2d(2), x, None):
        assert tensor.is_contiguous(memory_format=form)


def test_max_pooling_takes_gradients_of_another_layout():
    x, grad = torch.randn(2, 4, 6, 6), torch.randn(2, 4, 3, 3)
    _, expected = run(nn.MaxPool2d(2), x, grad)
    for change in (LAYOUTS["channels_last"], LAYOUTS["transposed"]):
        for values in (x, LAYOUTS["channels_last"](x)):
            assert torch.equal(run(MaxPool2d(2), values, change(grad))[1], expected)


def test_max_pooling_saves_indices_and_not_its_input():
    x = torch.randn(2, 4, 6, 6, requires_grad=True)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t), t)[1], lambda t: t):
        MaxPool2d(2)(x).sum().backward()
    assert [(t.dtype, t.shape) for t in saved] == [(torch.int32, (2, 4, 3, 3))]


def test_max_pooling_passes_gradcheck():
    x = torch.randperm(2 * 3 * 6 * 6).reshape(2, 3, 6, 6).double().requires_grad_()
    assert torch.autograd.gradcheck(MaxPool2d(3, 2, 1), x)


@pytest.mark.parametrize(("positions", "shift"), [(1, 0), (2, 1), (4, 2), (5, 2), (6, 3), (16, 4), (49, 6), (64, 6)])
def test_sum_pooling_is_the_sum_of_codes_times_a_power_of_two(positions: int, shift: int):
    grid = Grid(low=-1, high=3, exponent=-2)
    pool = GlobalSumPool(positions, grid)
    assert pool.shift == shift
    integers = torch.randint(-1, 4, (3, 5, 1, positions))
    for dtype in (torch.float32, torch.bfloat16):
        out = pool((integers * grid.unit).to(dtype))
        assert (out.dtype, out.shape) == (torch.float32, (3, 5))
        assert torch.equal(out.double() / pool.grid.unit, integers.sum((2, 3)).double())
    assert (pool.grid.low, pool.grid.high) == (-positions, 3 * positions)
    assert pool.grid.unit == grid.unit * 2.0**-shift


@pytest.mark.parametrize("side", [1, 2, 4, 8])
def test_sum_pooling_of_a_power_of_two_is_the_mean(side: int):
    x = torch.randint(0, 4, (2, 3, side, side)).float()
    assert torch.equal(GlobalSumPool(side * side)(x), x.mean((2, 3)))
    assert GlobalSumPool(side * side).grid is None


def test_sum_pooling_refuses_another_number_of_positions():
    with pytest.raises(ConfigError, match=r"built for 16 positions, got \(4, 5\)"):
        GlobalSumPool(16)(torch.zeros(1, 1, 4, 5))
    with pytest.raises(ConfigError, match="at least one position"):
        GlobalSumPool(0)
