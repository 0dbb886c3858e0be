"""Shapes, places, products and averages in every spelling: each lowers, and all engines give PyTorch's integers."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from agreement import assert_equal_everywhere, lowered
from torch import Tensor, nn

import maqd
from maqd.graph import Graph
from maqd.lowering import TorchEngine, lower
from maqd.nn import (
    IntegerInput,
    LayerBatchNorm,
    LayerFactory,
    Norm,
    NormActivation,
    QuantActivation,
    QuantConfig,
    QuantConv1d,
    QuantConv2d,
    QuantConv3d,
    QuantConvTranspose1d,
    QuantConvTranspose2d,
    QuantConvTranspose3d,
    Quantizer,
    QuantLinear,
    hard_sigmoid,
)
from maqd.numerics.states import States
from maqd.runtime import NativeEngine
from maqd.runtime.onnxruntime import OnnxRuntime
from maqd.runtime.verify import verify

FOUR = Quantizer(states=States(count=4, signed=False))
SIGNED = Quantizer(states=States(count=7, signed=True), step=0.5)
EXAMPLE = torch.zeros(1, 3, 6, 9, dtype=torch.uint8)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 3, 6, 9), dtype=np.uint8)


class Net(nn.Module):
    """Codes -3 .. 3 of shape 8 x 6 x 9, that a function or a layer is applied to."""

    places: Tensor

    def __init__(self, function: Callable[..., object], *layers: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.input = IntegerInput()
        self.conv = QuantConv2d(3, 8, 3, padding=1)
        self.act = NormActivation(LayerBatchNorm(8), SIGNED)
        self.norm = NormActivation(LayerBatchNorm(8), FOUR)
        self.requantize = QuantActivation(FOUR)
        self.head = QuantLinear(8, 5, bias=True)
        self.layers = nn.ModuleList(layers)
        self.function = function
        self.register_buffer("places", torch.tensor([4, 0, 5, 4]), persistent=False)
        self.act.norm.running_var.fill_(0.1)

    def forward(self, x: Tensor) -> object:
        return self.function(self, self.act(self.conv(self.input(x))))


def equal(function: Callable[..., object], *layers: nn.Module) -> tuple[Net, Graph]:
    network = Net(function, *layers).eval()
    graph = lowered(network, EXAMPLE)
    engines = [TorchEngine(network, graph), NativeEngine(graph), OnnxRuntime(graph)]
    result = verify(graph, engines, [IMAGES])
    assert result.ok, result
    with torch.no_grad():
        wanted = network(torch.from_numpy(IMAGES))
    found = engines[1].scores(IMAGES)
    if isinstance(wanted, Tensor) and isinstance(found, np.ndarray):
        np.testing.assert_array_equal(found, wanted.numpy())
    return network, graph


MOVES: dict[str, Callable[[Net, Tensor], object]] = {
    "slices": lambda _, x: x[:, 1:7:2, :, 3:],
    "a row": lambda _, x: x[:, :, 2],
    "a channel, Ellipsis and None": lambda _, x: x[:, -1, ..., None],
    "narrow and flip": lambda _, x: x.narrow(1, 2, 4).flip(3),
    "roll": lambda _, x: torch.roll(x, shifts=(1, -2), dims=(2, 3)),
    "pad": lambda _, x: F.pad(x, (1, 2, 0, 3)),
    "pad with a constant and crop": lambda _, x: F.pad(x, (-1, 2), value=-1.5),
    "pad with copies": lambda _, x: F.pad(x, (2, 2, 1, 0), mode="replicate"),
    "pad with reflections": lambda _, x: F.pad(input=x, pad=(2, 2, 1, 1), mode="reflect"),
    "permute": lambda _, x: x.permute(0, 2, 3, 1),
    "transposes": lambda _, x: torch.transpose(x, 1, -1).movedim(2, 1),
    "reshape": lambda _, x: x.reshape(x.size(0), 4, -1, 3),
    "channel shuffle by hand": lambda _, x: (
        x.view(x.shape[0], 2, 4, *x.shape[2:]).transpose(1, 2).contiguous().view(x.shape[0], 8, *x.shape[2:])
    ),
    "channel shuffle": lambda _, x: torch.channel_shuffle(x, 4),
    "chunk and concatenate": lambda _, x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "chunk and unpack": lambda _, x: chunked(x),
    "split": lambda _, x: torch.split(x, [3, 5], dim=1)[1],
    "stack": lambda _, x: torch.stack([x, x], dim=2).flatten(1, 2),
    "nearest": lambda _, x: F.interpolate(x, scale_factor=2),
    "nearest to a size": lambda _, x: F.interpolate(x, size=(7, 5), mode="nearest-exact"),
    "bilinear": lambda _, x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "pixel shuffle": lambda _, x: torch.pixel_shuffle(x, 2),
    "repeat": lambda _, x: x.repeat(1, 2, 1, 3),
    "repeat interleaved": lambda _, x: torch.repeat_interleave(x, 3, dim=2),
    "product": lambda _, x: x * x,
    "gate": lambda _, x: x.mul(x[:, :, :1, :1]),
    "elements": lambda _, x: torch.stack(x.unbind(1)[::3], dim=1),
    "an element of a vector": lambda _, x: x.flatten(2).unbind(1)[5],
    "places of a list": lambda _, x: x[:, [3, 1, 1]],
    "places of a tensor": lambda net, x: torch.index_select(x, 2, net.places)[:, net.places],
    "one place": lambda _, x: x.select(2, -1),
    "tiles": lambda _, x: torch.tile(x, (1, 1, 2, 1)),
    "pixel unshuffle": lambda _, x: F.pixel_unshuffle(x, 3),
    "stacked along channels": lambda _, x: torch.hstack([x, x[:, :2]]),
    "a power of two times": lambda _, x: x * 0.25,
    "a power of two times a vector": lambda _, x: 4 * x.flatten(1),
    "a small number times": lambda _, x: torch.mul(x, -0.75),
    "divided": lambda _, x: (x / 2).div(8),
    "a number more": lambda _, x: x + 1.5,
    "one minus": lambda _, x: 1 - x.mul(0.5),
    "a difference": lambda _, x: x - x.flip(3),
    "negated": lambda _, x: torch.sub(-x, x[:, :, :1].expand(-1, -1, 6, -1)),
    "ReLU": lambda _, x: F.relu(x),
    "squares and cubes": lambda _, x: x.square() + (x**3).to(torch.float32),
    "the larger": lambda _, x: torch.maximum(x, x.flip(2)),
    "the smaller of vectors": lambda _, x: torch.minimum(x.flatten(1), 0.5 * x.flip(3).flatten(1)),
    "magnitudes": lambda _, x: x.abs(),
    "maxima over positions": lambda _, x: torch.cat([x.amax((2, 3)), x.amax((-1, -2), keepdim=True).flatten(1)], 1),
    "stacked in rows": lambda _, x: torch.dstack([x, x[:, :, :2]]),
    "clamp of a sum": lambda _, x: (x + x).clamp(-1.5, 1.5),
    "ReLU6 of a product": lambda _, x: F.relu6(x * 4),
    "max with ceil_mode": lambda _, x: F.max_pool2d(x, 4, 3, ceil_mode=True),
    "dilated max": lambda _, x: F.max_pool2d(x, 2, 1, 1, dilation=2),
    "adaptive max": lambda _, x: F.adaptive_max_pool2d(x, (4, 2)),
    "adaptive average of overlapping windows": lambda _, x: F.adaptive_avg_pool2d(x[:, :, :5, :7], (4, 6)),
    "sum over rows": lambda _, x: x.sum(2),
    "sum over channels and columns": lambda _, x: x.sum(dim=(1, -1), keepdim=True),
    "mean over all 432": lambda _, x: torch.mean(x, (1, 2, 3), True),
    "mean over columns": lambda net, x: net.head(net.requantize(x.mean(3)).transpose(1, 2)),
    "average over 9": lambda _, x: F.avg_pool2d(x, 3),
    "mean over 54": lambda _, x: x.mean((2, 3)),
    "average over 9, flattened": lambda _, x: F.avg_pool2d(x, 3).flatten(1),
    "average over 9 and activation": lambda net, x: net.norm(F.avg_pool2d(x, 3, 1, 1)),
    "mean over 54 and activation": lambda net, x: net.head(net.requantize(x.mean((2, 3)))),
    "maxima of averages": lambda net, x: net.norm(F.max_pool2d(F.avg_pool2d(x, 3, 1), 2)),
}


def chunked(x: Tensor) -> Tensor:
    first, second, *_ = torch.chunk(x, 4, dim=1)
    return first + second


@pytest.mark.parametrize("name", MOVES)
def test_functions_lower_to_the_same_integers(name: str):
    equal(MOVES[name])


LAYERS: dict[str, nn.Module] = {
    "Upsample": nn.Upsample(scale_factor=3),
    "bilinear Upsample": nn.Upsample(scale_factor=2, mode="bilinear"),
    "ZeroPad2d": nn.ZeroPad2d((1, 0, 2, 3)),
    "ConstantPad2d": nn.ConstantPad2d(1, 2.5),
    "ReplicationPad2d": nn.ReplicationPad2d(2),
    "ChannelShuffle": nn.ChannelShuffle(2),
    "PixelShuffle": nn.PixelShuffle(2),
    "MaxPool2d": nn.MaxPool2d(3, 2, 1, dilation=2, ceil_mode=True),
    "AdaptiveMaxPool2d": nn.AdaptiveMaxPool2d((5, None)),
    "AvgPool2d": nn.AvgPool2d((3, 5), 1, (1, 2)),
    "ReLU6": nn.ReLU6(),
    "PixelUnshuffle": nn.PixelUnshuffle(3),
    "AdaptiveAvgPool2d": nn.AdaptiveAvgPool2d(1),
}


WEIGHTED: dict[str, Callable[[], nn.Module]] = {
    "same, an even kernel": lambda: QuantConv2d(8, 5, (2, 4), padding="same", dilation=(1, 3), bias=True),
    "valid": lambda: QuantConv2d(8, 5, 3, padding="valid"),
    "transposed": lambda: QuantConvTranspose2d(8, 5, 2, stride=2, bias=True, states=15),
    "transposed, of all kinds": lambda: QuantConvTranspose2d(8, 6, (3, 4), (2, 3), (1, 0), (1, 2), 2, dilation=(2, 1)),
    "transposed with much padding": lambda: QuantConvTranspose2d(8, 6, 2, 2, 2),
}


@pytest.mark.parametrize("name", WEIGHTED)
def test_layers_with_weights_lower_to_the_same_integers(name: str):
    torch.manual_seed(1)
    layer = WEIGHTED[name]()
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    equal(lambda net, x: net.layers[0](x), layer)


def test_three_dimensions():
    class Volume(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input, self.conv = IntegerInput(), QuantConv3d(1, 4, 3, stride=(1, 2, 1), padding=1)
            self.act, self.pool = NormActivation(LayerBatchNorm(4), FOUR), nn.MaxPool3d(2)
            self.head = QuantLinear(4, 2)
            self.up = QuantConvTranspose3d(
                4, 2, (2, 3, 2), (2, 1, 3), (0, 1, 1), (1, 0, 2), 2, bias=True, dilation=(1, 2, 1), states=15
            )

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.pool(self.act(self.conv(self.input(x))))
            return self.head(nn.functional.avg_pool3d(x, 2).flatten(1)), self.up(x)

    torch.manual_seed(0)
    network = Volume().eval()
    assert network.up.bias is not None
    nn.init.normal_(network.up.bias)
    volumes = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 1, 4, 8, 4), dtype=np.uint8))
    graph = lowered(network, volumes)
    assert_equal_everywhere(network, graph, volumes)
    with torch.no_grad():  # PyTorch's own layer has inputs first
        up = network.up
        seen: dict[str, Tensor] = {}
        up.register_forward_hook(lambda _, inputs, output: seen.update(x=inputs[0], y=output))
        network(volumes)
        weight = torch.cat([part.transpose(0, 1) for part in up.eval_weight.chunk(2)])
        wanted = F.conv_transpose3d(
            seen["x"], weight, up.eval_bias, up.stride, up.padding, up.output_padding, 2, up.dilation
        )
    assert torch.equal(seen["y"], wanted)


def test_one_dimension():
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input, self.down = IntegerInput(), QuantConv1d(2, 6, 4, stride=2, padding=1)
            self.act = NormActivation(LayerBatchNorm(6), FOUR)
            self.up = QuantConvTranspose1d(6, 3, 4, stride=2, padding=1, output_padding=1, bias=True, states=15)

        def forward(self, x: Tensor) -> Tensor:
            return self.up(self.act(self.down(self.input(x))))

    network = Windows()
    windows = np.random.default_rng(0).integers(0, 256, (3, 2, 12), dtype=np.uint8)
    assert maqd.check(network, torch.from_numpy(windows)) == ()
    graph = lower(network.eval(), torch.from_numpy(windows)).graph
    assert graph.types["output"].shape == (3, 13)
    result = verify(graph, [TorchEngine(network, graph), NativeEngine(graph), OnnxRuntime(graph)], [windows])
    assert result.ok, result


def test_gates_and_linear_bottlenecks():
    gate = hard_sigmoid(LayerBatchNorm(8))
    bottleneck = LayerFactory(quant=QuantConfig(norm=Norm.BN)).bottleneck(8, states=1001)
    equal(lambda net, x: net.layers[1](x * net.layers[0](x)), gate, bottleneck)
    y = torch.arange(-80, 81)[:, None].expand(-1, 8) / 16.0
    wanted = torch.floor((y.double() / 6 + 0.5) * 16 + 0.5).clamp(0, 16) / 16
    gate.norm.running_var.zero_()
    gate.norm.eps = 1.0  # y is normalized already
    inside = (((y.double() / 6 + 0.5) * 16 + 0.5) % 1 - 0.5).abs() < 0.4999  # 1/6 is not exact
    assert torch.equal(gate.eval()(y)[inside], wanted.float()[inside])


@pytest.mark.parametrize("name", LAYERS)
def test_layers_lower_to_the_same_integers(name: str):
    equal(lambda net, x: net.layers[0](x), LAYERS[name])


REFUSED: dict[str, tuple[Callable[[Net, Tensor], object], str]] = {
    "an average into a layer": (lambda net, x: net.head(x.mean((2, 3))), "its input is an average over 54 positions"),
    "a sum of averages": (lambda _, x: F.avg_pool2d(x, 3, 1, 1) + x, "its input is an average over 9 positions"),
    "two divisions": (lambda _, x: F.adaptive_avg_pool2d(x, (2, 3)), "PyTorch divides its sums over"),
    "partial windows": (lambda _, x: F.avg_pool2d(x, 4, 3, ceil_mode=True), "its divisor depends on the position"),
    "a constant off the grid": (lambda _, x: F.pad(x, (1, 1), value=0.3), "it pads with 0.3, no multiple of 2^-1"),
    "bilinear to a size": (lambda _, x: F.interpolate(x, size=(8, 9), mode="bilinear"), "it interpolates with mode"),
    "a part of the batch": (lambda _, x: x[1:], "it takes a part of the batch"),
    "the batch moved": (lambda _, x: x.transpose(0, 1), "it moves the batch"),
    "a sum over the batch": (lambda _, x: x.sum(), "it reduces the batch"),
    "one number a sample": (lambda _, x: x.sum((1, 2, 3)), "it leaves one number without a dimension"),
    "a number times": (lambda _, x: x * 0.3, "it multiplies by 0.3, no small whole number times a power of two"),
    "a division": (lambda _, x: x / 3, "it divides by 3, no power of two"),
    "a number off the grid": (lambda _, x: x + 0.3, "it adds 0.3, no multiple of 2^-1"),
    "ReLU of sums": (lambda net, x: F.relu(net.head(x[:, :, 0, 0])), "it clips the sums of a layer"),
    "an uneven clamp": (lambda _, x: x.clamp(-1, 0.5), "it clips to -1 .. 0.5"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_integer_form_is_refused(name: str):
    function, reason = REFUSED[name]
    refusals = maqd.check(Net(function), EXAMPLE)
    assert len(refusals) == 1
    assert refusals[0].reason.startswith(reason)
