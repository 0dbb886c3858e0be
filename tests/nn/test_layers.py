"""Layers of few-state weights: exact accumulation, the grid of outputs, and float layers when asked for."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from maqd import Grid
from maqd.errors import ConfigError, DataError
from maqd.nn import IntegerInput, QuantConv1d, QuantConv2d, QuantLinear
from maqd.nn.functional import quantize_weight
from maqd.numerics.states import PIXELS

FOUR = Grid(low=0, high=3, exponent=-1)


def codes(shape: tuple[int, ...], grid: Grid) -> Tensor:
    """Random integers of a grid, its extremes included."""
    return torch.randint(grid.low, grid.high + 1, shape, dtype=torch.int64)


def conv_reference(
    x: np.ndarray, w: np.ndarray, stride: list[int], padding: list[int], dilation: list[int], groups: int
):
    """Integer convolution of any number of dimensions: a sum over the kernel's taps of shifted products."""
    spatial = x.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    sizes = [(x.shape[2 + i] - dilation[i] * (w.shape[2 + i] - 1) - 1) // stride[i] + 1 for i in range(spatial)]
    out = np.zeros((x.shape[0], w.shape[0], *sizes), dtype=np.int64)
    outputs, inputs = w.shape[0] // groups, w.shape[1]
    for tap in np.ndindex(*w.shape[2:]):
        window = tuple(
            slice(t * d, t * d + s * (n - 1) + 1, s) for t, d, s, n in zip(tap, dilation, stride, sizes, strict=True)
        )
        for g in range(groups):
            part = x[:, g * inputs : (g + 1) * inputs][(slice(None), slice(None), *window)]
            kernel = w[g * outputs : (g + 1) * outputs][(slice(None), slice(None), *tap)]
            out[:, g * outputs : (g + 1) * outputs] += np.einsum("oi,ni...->no...", kernel, part)
    return out


def bias_codes(layer: Any) -> np.ndarray:
    """The bias on the accumulator's grid."""
    values = layer.bias.detach().double().numpy() / layer.accumulator_unit
    return np.floor(values + 0.5).astype(np.int64)


def case(number: int, spatial: int) -> dict[str, Any]:
    """A random convolution, reproducible by its number."""
    rng = np.random.default_rng([number, spatial])
    groups = int(rng.choice([1, 1, 2, 4]))
    kernel = [int(k) for k in rng.integers(1, 5, spatial)]
    dilation = [int(d) for d in rng.integers(1, 3, spatial)]
    return {
        "inputs": groups * int(rng.integers(1, 9)),
        "outputs": groups * int(rng.integers(1, 9)),
        "kernel": kernel,
        "stride": [int(s) for s in rng.integers(1, 4, spatial)],
        "padding": [int(p) for p in rng.integers(0, 4, spatial)],
        "dilation": dilation,
        "groups": groups,
        "size": [d * (k - 1) + int(n) for d, k, n in zip(dilation, kernel, rng.integers(1, 8, spatial), strict=True)],
        "states": int(rng.choice([2, 3, 4, 5, 16, 17, 255, 256])),
        "grid": [FOUR, PIXELS, Grid(low=0, high=255, exponent=2), Grid(low=-3, high=3, exponent=0)][number % 4],
        "bias": bool(number % 2),
    }


@pytest.mark.parametrize("spatial", [1, 2])
@pytest.mark.parametrize("number", range(40))
def test_convolution_on_codes_is_the_integer_convolution(number: int, spatial: int):
    c = case(number, spatial)
    kind = {1: QuantConv1d, 2: QuantConv2d}[spatial]
    layer = kind(
        c["inputs"],
        c["outputs"],
        tuple(c["kernel"]),
        stride=tuple(c["stride"]),
        padding=tuple(c["padding"]),
        dilation=tuple(c["dilation"]),
        groups=c["groups"],
        bias=c["bias"],
        states=c["states"],
        input_grid=c["grid"],
    )
    if c["bias"]:
        nn.init.normal_(layer.bias, std=20 * layer.accumulator_unit)
    layer.eval()
    integers = codes((2, c["inputs"], *c["size"]), c["grid"])
    weight = layer.weight_codes().numpy().astype(np.int64)
    expected = conv_reference(integers.numpy(), weight, c["stride"], c["padding"], c["dilation"], c["groups"])
    if c["bias"]:
        expected += bias_codes(layer).reshape(-1, *[1] * spatial)
    x = integers.float() * c["grid"].unit
    out = layer(x)
    assert out.dtype == (torch.float64 if layer.wide else torch.float32)
    assert (out.detach().double() / layer.accumulator_unit).numpy().tolist() == expected.tolist()
    if spatial == 2:
        assert torch.equal(layer(x.to(memory_format=torch.channels_last)), out)


@pytest.mark.parametrize("states", [2, 3, 4, 17, 256])
@pytest.mark.parametrize("shape", [(5, 30), (2, 3, 30), (1, 30), (30,)])
def test_linear_map_of_codes_is_the_integer_one(shape: tuple[int, ...], states: int):
    layer = QuantLinear(30, 7, bias=True, states=states, input_grid=FOUR)
    nn.init.normal_(layer.bias)
    layer.eval()
    integers = codes(shape, FOUR)
    out = layer(integers.float() * FOUR.unit)
    expected = integers.numpy() @ layer.weight_codes().numpy().T.astype(np.int64) + bias_codes(layer)
    assert (out.detach().double() / layer.accumulator_unit).numpy().tolist() == expected.tolist()


@pytest.mark.parametrize("fan_in", [4111, 4112, 2**17, 2**21])
def test_sums_up_to_2_to_the_29_are_exact(fan_in: int):
    """All products but one of one sign: even and odd ones, below and above what float32 holds."""
    grid = Grid(low=0, high=255, exponent=0)
    layer = QuantLinear(fan_in, 2, states=2, input_grid=grid)
    with torch.no_grad():  # one weight far out: all others are on the same side of the mean
        layer.weight.fill_(1)
        layer.weight[:, 0] = -1000
        layer.weight[1].neg_()
    layer.eval()
    x = torch.full((5, fan_in), 255)
    x[:, 0] = 0
    x[torch.arange(5), torch.arange(1, 6) * 100] -= torch.arange(5)
    expected = x.sum(1)[:, None] * torch.tensor([1, -1])
    assert torch.equal((layer(x.float()).double() / layer.accumulator_unit).long(), expected)
    assert layer.wide == (fan_in * 255 >= 2**20)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_evaluation_under_autocast_gives_the_same_integers(dtype: torch.dtype):
    layer = QuantConv2d(8, 5, 3, bias=True, states=17, input_grid=PIXELS)
    nn.init.normal_(layer.bias)
    layer.eval()
    x = codes((2, 8, 6, 6), PIXELS).float() * PIXELS.unit
    expected = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x.to(dtype))
    assert out.dtype == torch.float32
    assert torch.equal(out, expected)


KINDS: dict[str, Callable[..., Any]] = {
    "linear": lambda **options: QuantLinear(6, 4, **options),
    "conv1d": lambda **options: QuantConv1d(6, 4, 3, **options),
    "conv2d": lambda **options: QuantConv2d(6, 4, 3, padding=1, **options),
}
INPUTS = {"linear": (5, 6), "conv1d": (5, 6, 7), "conv2d": (5, 6, 7, 7)}
kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
@pytest.mark.parametrize("states", [2, 3, 4, 255])
def test_training_uses_quantized_weights_and_bias(kind: str, states: int):
    layer = KINDS[kind](states=states, bias=True, input_grid=FOUR)
    nn.init.normal_(layer.bias)
    x = codes(INPUTS[kind], FOUR).float() * FOUR.unit
    weight = quantize_weight(layer.weight, layer.states, layer.quantizer.distance, 2.0**layer.exponent).detach()
    assert torch.equal(weight.double() / 2.0**layer.exponent, layer.weight_codes().double())  # no ties in this sample
    out = layer(x)
    assert torch.equal(out, layer.eval()(x))
    out.square().sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.abs().sum() > 0
    assert torch.equal(
        layer.bias.grad,
        2 * out.detach().sum([d for d in range(out.ndim) if d != (1 if out.ndim > 2 else out.ndim - 1)]),
    )


@kinds
@pytest.mark.parametrize("bias", [True, False])
def test_float_layers_equal_those_of_pytorch(kind: str, bias: bool):
    layer = KINDS[kind](states=None, bias=bias)
    peer = {"linear": nn.Linear(6, 4, bias), "conv1d": nn.Conv1d(6, 4, 3, bias=bias)}.get(
        kind, nn.Conv2d(6, 4, 3, padding=1, bias=bias)
    )
    layer.load_state_dict(peer.state_dict())
    x = torch.randn(INPUTS[kind])
    for training in (True, False):
        layer.train(training)
        assert torch.equal(layer(x), peer(x))
    with pytest.raises(ConfigError, match="float weights"):
        layer.weight_codes()
    with pytest.raises(ConfigError, match="float weights"):
        _ = layer.accumulator_unit
    assert "float" in repr(layer)


@kinds
@pytest.mark.parametrize("states", [2, 3, 4, 16, 17, 256])
@pytest.mark.parametrize("gain", [0.25, 1.0, 4.0])
def test_output_of_full_range_inputs_has_the_wanted_deviation(kind: str, states: int, gain: float):
    """Up to the factor sqrt(2) of rounding the gain to a power of two."""
    layer = KINDS[kind](states=states, gain=gain, input_grid=FOUR)
    fan_in = layer.weight[0].numel()
    scale = (
        layer.accumulator_unit * layer.states.spacing / layer.quantizer.distance
    )  # of a standardized weight times a code
    deviation = scale * math.sqrt(fan_in) * FOUR.magnitude
    assert gain / math.sqrt(2) <= deviation * (1 + 1e-12)
    assert deviation <= gain * math.sqrt(2) * (1 + 1e-12)


@pytest.mark.parametrize(
    ("states", "step", "magnitude"),
    [(3, 0.1, 2**11), (3, None, 2**15), (255, None, 2**10), (255, None, 2**15), (2, None, 2**12)],
)
def test_sums_that_may_leave_32_bits_are_refused_with_the_largest_fan_in(
    states: int, step: float | None, magnitude: int
):
    options: dict[str, Any] = {"states": states, "step": step, "input_grid": Grid(low=-magnitude, high=0, exponent=3)}
    with pytest.raises(ConfigError, match=r"not fit 32 bits; use fewer states or a fan-in of at most \d+") as error:
        QuantLinear(2**21, 1, **options)
    most = int(str(error.value).split()[-1])
    assert QuantLinear(most, 1, **options).exponent is not None
    with pytest.raises(ConfigError, match=f"fan-in {most + 1}"):
        QuantLinear(most + 1, 1, **options)


def test_the_limit_counts_the_fan_in_of_one_group():
    options: dict[str, Any] = {"states": 255, "input_grid": Grid(low=-(2**15), high=0, exponent=0)}
    QuantConv2d(2**12, 4, 1, groups=4, **options)
    with pytest.raises(ConfigError, match="fan-in"):
        QuantConv2d(2**12, 4, 1, **options)


@pytest.mark.parametrize("states", [2, 3, 4, 7, 16, 255, 256])
@pytest.mark.parametrize("fan_in", [1, 2, 9, 1000])
def test_no_weights_have_larger_sums_of_codes_than_the_quantizer_says(fan_in: int, states: int):
    """Weights of equal magnitude have the largest sums: none is clipped, and none lies in the middle."""
    generator = torch.Generator().manual_seed(states)
    layer = QuantLinear(fan_in, 64, states=states, input_grid=FOUR)
    with torch.no_grad():
        signs = torch.randint(0, 2, (64, fan_in), generator=generator) * 2.0 - 1
        layer.weight.copy_(signs + 0.1 * torch.randn(64, fan_in, generator=generator))
    sums = layer.weight_codes().abs().sum(1)
    assert sums.max() <= layer.quantizer.largest_sum(fan_in) <= fan_in * layer.states.high


def test_a_bias_that_leaves_32_bits_is_refused():
    layer = QuantLinear(4, 1, bias=True, states=3, input_grid=FOUR)
    with torch.no_grad():
        layer.bias.fill_(2.0**31 * layer.accumulator_unit)
    with pytest.raises(ConfigError, match="with its bias can accumulate"):
        layer.eval()


@pytest.mark.parametrize(("inputs", "outputs", "groups"), [(4, 6, 4), (6, 4, 4), (4, 4, 0), (4, 4, -1), (4, 4, 3)])
@pytest.mark.parametrize("kind", [QuantConv1d, QuantConv2d])
def test_groups_must_divide_both_channel_counts(kind: type, inputs: int, outputs: int, groups: int):
    with pytest.raises(ConfigError, match=f"got {groups} groups of {inputs} -> {outputs}"):
        kind(inputs, outputs, 3, groups=groups)


@kinds
@pytest.mark.parametrize(
    "options", [{"states": 1}, {"states": 257}, {"step": 0.0}, {"step": -1.0}, {"gain": 0.0}, {"gain": math.nan}]
)
def test_options_out_of_range_are_refused(kind: str, options: dict[str, Any]):
    with pytest.raises(ConfigError):
        KINDS[kind](**options)


@pytest.mark.parametrize("make", [lambda: QuantLinear(0, 3), lambda: QuantLinear(3, 0), lambda: QuantConv2d(3, 3, 0)])
def test_empty_layers_are_refused(make: Callable[[], nn.Module]):
    with pytest.raises(ConfigError, match=r"positive sizes|whole numbers"):
        make()


BAD_WINDOWS = [{"stride": 0}, {"padding": -1}, {"dilation": 0}, {"padding": "full"}, {"padding": "same", "stride": 2}]


@pytest.mark.parametrize("options", [*BAD_WINDOWS, {"gain": math.inf}], ids=str)
def test_impossible_windows_and_infinite_gains_are_refused(options: dict[str, Any]):
    with pytest.raises(ConfigError):
        QuantConv2d(3, 3, 3, **options)


# ---- when codes are computed again -----------------------------------------------------------------------------------


def step(layer: nn.Module, optimizer: type[torch.optim.Optimizer], **options: Any) -> None:
    layer.train()
    steps = optimizer(layer.parameters(), lr=0.5, **options)
    layer(codes((9, 6), FOUR) * FOUR.unit).square().sum().backward()
    steps.step()


def write_data(layer: nn.Module) -> None:
    layer.train()
    layer.weight.data.copy_(torch.randn(4, 6))
    layer.bias.data.fill_(1.0)


def replace(layer: nn.Module) -> None:
    layer.weight = nn.Parameter(torch.randn(4, 6))
    layer.bias = nn.Parameter(torch.randn(4))


def load(layer: nn.Module) -> None:
    layer.load_state_dict({"weight": torch.randn(4, 6), "bias": torch.randn(4)})


CHANGES: dict[str, Callable[[nn.Module], None]] = {
    "SGD": lambda layer: step(layer, torch.optim.SGD),
    "Adam": lambda layer: step(layer, torch.optim.Adam),
    "SGD foreach": lambda layer: step(layer, torch.optim.SGD, foreach=True),
    "SGD fused": lambda layer: step(layer, torch.optim.SGD, fused=True),
    "AdamW fused": lambda layer: step(layer, torch.optim.AdamW, fused=True),
    "load_state_dict": load,
    "replaced parameter": replace,
    "data": write_data,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_evaluation_follows_every_change_of_the_parameters(change: Callable[[nn.Module], None]):
    layer = QuantLinear(6, 4, bias=True, states=5, input_grid=FOUR).eval()
    integers = codes((20, 6), FOUR)
    before = layer(integers * FOUR.unit)
    change(layer)
    layer.eval()
    after = layer(integers * FOUR.unit)
    assert not torch.equal(after, before)
    expected = integers.numpy() @ layer.weight_codes().numpy().T.astype(np.int64) + bias_codes(layer)
    assert (after.detach().double() / layer.accumulator_unit).numpy().tolist() == expected.tolist()


@kinds
def test_copies_and_pickles_evaluate_the_same_and_on_their_own(kind: str):
    layer = KINDS[kind](states=4, bias=True, input_grid=FOUR)
    x = codes(INPUTS[kind], FOUR).float() * FOUR.unit
    expected = layer.eval()(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), expected)
        with torch.no_grad():
            other.weight.neg_()
            other.bias.add_(10)
        assert not torch.equal(other(x), expected)
        assert torch.equal(layer(x), expected)


@kinds
def test_codes_are_no_part_of_the_state_dict(kind: str):
    layer = KINDS[kind](states=4, bias=True, input_grid=FOUR).eval()
    assert set(layer.state_dict()) == {"weight", "bias"}


@kinds
def test_representations_name_states_or_float(kind: str):
    assert "states=3" in repr(KINDS[kind](states=3))


# ---- input -----------------------------------------------------------------------------------------------------------


def test_pixels_become_integers_around_zero():
    x = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    out = IntegerInput()(x)
    assert out.dtype == torch.float32
    assert (out * 64).flatten().tolist() == list(range(-128, 128))
    assert IntegerInput.grid == PIXELS


def test_input_keeps_the_memory_format():
    x = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    for layout in (torch.contiguous_format, torch.channels_last):
        assert IntegerInput()(x.contiguous(memory_format=layout)).is_contiguous(memory_format=layout)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.int64, torch.bool])
def test_input_refuses_anything_but_bytes(dtype: torch.dtype):
    with pytest.raises(DataError, match="uint8"):
        IntegerInput()(torch.zeros(1, 3, 4, 4, dtype=dtype))
