"""What becomes of each PyTorch layer and operation: every row of the table in docs/convert.md."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from float_networks import prepared
from torch import Tensor, nn

from maqd.convert import ConversionConfig, ConversionError, Converted, Kept, convert

PAGE = Path(__file__).parents[2] / "docs" / "convert.md"
IMAGE = (4, 8, 8)
SIGNAL = (4, 16)
VOLUME = (4, 4, 4, 4)


class Around(nn.Module):
    """A layer or function between two convolutions."""

    def __init__(self, middle: Callable[[Tensor], Tensor], dims: int = 2, channels: int = 4):
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
        self.first = conv(4, 4, 1)
        self.middle = middle
        self.last = conv(channels, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x)))


class End(nn.Module):
    """A layer or function at the very end."""

    def __init__(self, end: Callable[[Tensor], Tensor]):
        super().__init__()
        self.first = nn.Conv2d(4, 4, 1)
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.first(x).mean((2, 3)))


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table: networks that use it, and what the report says.

    Args:
        networks: With the shape of one sample.
        becomes: Words of the report on it, or of the refusal.
        exact: Whether many states give the float network's results.
        refused: Whether it is refused.
        options: Of the configuration.
    """

    networks: tuple[tuple[Callable[[], nn.Module], tuple[int, ...]], ...]
    becomes: str
    exact: bool = True
    refused: bool = False
    options: dict = field(default_factory=dict)


def around(*middles: Callable[[Tensor], Tensor], channels: int = 4) -> tuple:
    return tuple((lambda middle=middle: Around(middle, channels=channels), IMAGE) for middle in middles)


def signal(*middles: Callable[[Tensor], Tensor]) -> tuple:
    return tuple((lambda middle=middle: Around(middle, dims=1), SIGNAL) for middle in middles)


def volume(*middles: Callable[[Tensor], Tensor]) -> tuple:
    return tuple((lambda middle=middle: Around(middle, dims=3), VOLUME) for middle in middles)


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


class Functional(nn.Module):
    """Layers as functions of parameters."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 1, 3, 3))
        self.head = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.tensor([1.0, 0.5, 2.0, 1.5]))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.weight, padding=1, groups=4)).mean((2, 3))
        x = x * self.scale.reshape(1, -1)
        return F.linear(x, self.head.weight.clone(), bias=self.head.bias)


ROWS = {
    "Conv1d, Conv2d, Conv3d": Row(
        networks=(
            *signal(nn.Conv1d(4, 4, 3, padding=1), nn.Conv1d(4, 4, 4, padding="same")),
            *around(nn.Conv2d(4, 4, 3, 2, 1, 1, 2), nn.Conv2d(4, 4, (3, 2), padding="same")),
            *around(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")),
            *volume(nn.Conv3d(4, 4, 3, padding=1)),
        ),
        becomes="QuantConv",
    ),
    "ConvTranspose1d, ConvTranspose2d, ConvTranspose3d": Row(
        networks=(
            *around(nn.ConvTranspose2d(4, 4, 2, 2), nn.ConvTranspose2d(4, 4, 3, 2, 1, 1, groups=2)),
            *signal(nn.ConvTranspose1d(4, 4, 3)),
            *volume(nn.ConvTranspose3d(4, 4, 2, 2)),
        ),
        becomes="QuantConvTranspose",
    ),
    "Linear": Row(networks=((linear, IMAGE),), becomes="QuantLinear"),
    "F.linear, F.conv2d, ... with parameters": Row(networks=((Functional, IMAGE),), becomes="QuantLinear"),
    "BatchNorm1d, BatchNorm2d, BatchNorm3d": Row(
        networks=(
            (linear, IMAGE),
            *around(nn.BatchNorm2d(4)),
            *signal(nn.BatchNorm1d(4)),
            *volume(nn.BatchNorm3d(4)),
        ),
        becomes="folded into the quantizer",
    ),
    "ReLU, ReLU6, Hardtanh, clamp": Row(
        networks=around(nn.ReLU(), nn.ReLU6(), nn.Hardtanh(), F.relu, torch.relu_, lambda x: x.clamp(-0.5, 0.5)),
        becomes="quantizer",
    ),
    "Tanh, Softplus, LeakyReLU, ELU, SELU": Row(
        networks=around(
            nn.Tanh(), torch.tanh, nn.Softplus(), nn.LeakyReLU(0.1), nn.ELU(), nn.SELU(), lambda x: F.leaky_relu(x, 0.2)
        ),
        becomes="steps along the curve",
    ),
    "SiLU, GELU, Hardswish, Mish": Row(
        networks=around(nn.SiLU(), nn.GELU(), nn.GELU("tanh"), nn.Hardswish(), nn.Mish(), F.silu),
        becomes="gate of its own",
    ),
    "SiLU, GELU, Hardswish, Mish of fewer than 64 states": Row(
        networks=around(nn.SiLU(), nn.GELU(), nn.Hardswish(), nn.Mish()),
        becomes="an approximation",
        exact=False,
        options={"products": 257},
    ),
    "Softmax, LogSoftmax, Sigmoid at the end": Row(
        networks=tuple(
            (lambda end=end: End(end), IMAGE) for end in (nn.Softmax(1), nn.Sigmoid(), lambda x: F.log_softmax(x, 1))
        ),
        becomes="removed",
    ),
    "MaxPool1d, MaxPool2d, MaxPool3d, AdaptiveMaxPool2d": Row(
        networks=(
            *around(nn.MaxPool2d(3, 2, 1), nn.AdaptiveMaxPool2d(2)),
            *signal(nn.MaxPool1d(2)),
            *volume(nn.MaxPool3d(2)),
        ),
        becomes="maxima",
    ),
    "AvgPool1d, AvgPool2d, AvgPool3d, AdaptiveAvgPool2d, mean, sum": Row(
        networks=(
            *around(nn.AvgPool2d(2), nn.AvgPool2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), lambda x: x.mean((2, 3), True)),
            *around(lambda x: x.sum((2, 3), keepdim=True)),
            *signal(nn.AvgPool1d(2), nn.AvgPool1d(3, 1)),
            *volume(nn.AvgPool3d(2)),
        ),
        becomes="sums of codes",
    ),
    "x + y": Row(networks=around(lambda x: x + F.relu(x), lambda x: torch.add(x, x)), becomes="exact sum"),
    "x - y": Row(networks=around(lambda x: x - F.relu(x), lambda x: F.relu(x) - x * 0.5), becomes="its sign turned"),
    "cat": Row(networks=around(lambda x: torch.cat((x, F.relu(x)), 1), channels=8), becomes="side by side"),
    "sums and products with constants": Row(
        networks=around(
            lambda x: (x - 0.25) * 2.0 / 3 + torch.tensor([0.5, 0.25, 0.0, 1.0]).reshape(1, 4, 1, 1),
            lambda x: 1 - x * -2,
            lambda x: (x.permute(0, 2, 3, 1) * torch.tensor([0.5, -0.25, 1.0, 2.0])).permute(0, 3, 1, 2),
        ),
        becomes="folded",
    ),
    "flatten, view, reshape, squeeze": Row(
        networks=(
            (linear, IMAGE),
            *around(lambda x: x.reshape(x.shape), lambda x: x.mean((2, 3), True).flatten(1).view(-1, 4, 1, 1)),
        ),
        becomes="the same codes",
    ),
    "pad, ZeroPad2d, ConstantPad1d with 0": Row(
        networks=(
            *around(nn.ZeroPad2d((1, 0, 2, 0)), lambda x: F.pad(x, (1, 1))),
            *signal(nn.ConstantPad1d((2, 0), 0.0)),
        ),
        becomes="zeros around",
    ),
    "pad and convolutions with reflect, replicate, circular": Row(
        networks=around(
            lambda x: F.pad(x, (1, 1, 2, 0), "reflect"), nn.ReplicationPad2d(1), nn.CircularPad2d((0, 1, 1, 0))
        ),
        becomes="codes around the codes",
    ),
    "chunk, split, slices": Row(
        networks=around(
            lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
            lambda x: torch.cat(x.split([1, 3], 1), 1),
            lambda x: x[:, :, 1:],
        ),
        becomes="parts of the codes",
    ),
    "permute, transpose, ChannelShuffle": Row(
        networks=around(lambda x: x.permute(0, 1, 3, 2), lambda x: x.transpose(2, 3), nn.ChannelShuffle(2)),
        becomes="the same codes",
    ),
    "Upsample, interpolate, bilinear to twice the size": Row(
        networks=(
            *around(
                nn.Upsample(scale_factor=2, mode="bilinear"), lambda x: F.interpolate(x, (16, 16), mode="bilinear")
            ),
            *signal(nn.Upsample(scale_factor=2, mode="linear")),
        ),
        becomes="sums of codes",
    ),
    "Upsample, interpolate, nearest": Row(
        networks=around(nn.Upsample(scale_factor=2), lambda x: F.interpolate(x, scale_factor=2)), becomes="repeated"
    ),
    "x * y": Row(networks=around(lambda x: x * F.relu(x)), becomes="exact product"),
    "Hardsigmoid": Row(networks=around(nn.Hardsigmoid(), lambda x: x * F.hardsigmoid(x)), becomes="quantizer"),
    "Sigmoid inside": Row(networks=around(nn.Sigmoid(), lambda x: x * x.sigmoid()), becomes="steps along the curve"),
    "Dropout": Row(networks=around(nn.Dropout(0.3), lambda x: F.dropout(x, 0.3, False)), becomes="in training"),
    "Identity, contiguous, float": Row(
        networks=around(nn.Identity(), lambda x: x.contiguous(), lambda x: x.float()), becomes="nothing"
    ),
    "LayerNorm, GroupNorm(1, C) with norm='lbn'": Row(
        networks=around(
            nn.LayerNorm([4, 8, 8]),
            nn.GroupNorm(1, 4),
            lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2),
        ),
        becomes="LBN, an approximation",
        exact=False,
        options={"norm": Kept.LBN},
    ),
    "LayerNorm, GroupNorm, InstanceNorm2d": Row(
        networks=around(nn.LayerNorm([4, 8, 8]), nn.GroupNorm(1, 4), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4)),
        becomes="statistics from each sample",
        refused=True,
    ),
    "Softmax inside": Row(networks=around(nn.Softmax(1)), becomes="inside of the network", refused=True),
    "LSTM, GRU, RNN": Row(
        networks=(((lambda: nn.Sequential(nn.Linear(4, 4), Last(nn.LSTM(4, 4)), nn.Linear(4, 2))), (6, 4)),),
        becomes="has no integer form",
        refused=True,
    ),
}


class Last(nn.Module):
    """The first result of a layer with several."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


def converted(build: Callable[[], nn.Module], shape: tuple[int, ...], **options) -> Converted:
    torch.manual_seed(0)
    network = prepared(build(), shape)
    config = ConversionConfig(weights=255, activations=256, **options)
    return convert(network, torch.randn(8, *shape), config)


CASES = [(name, place) for name, row in ROWS.items() for place in range(len(row.networks))]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize(("name", "place"), CASES)
def test_each_layer_becomes_what_the_table_says(name: str, place: int):
    row = ROWS[name]
    if row.refused:
        with pytest.raises(ConversionError, match=row.becomes):
            converted(*row.networks[place], **row.options)
        return
    report = converted(*row.networks[place], **row.options).report
    assert any(row.becomes in line.becomes for line in report.rows), str(report)
    assert report.agreement is not None
    assert not report.refusals
    assert report.agreement.cosine > (0.998 if row.exact else 0.7)


def test_the_table_of_the_page_has_these_rows():
    text = PAGE.read_text()
    names = [line.split("|")[1].strip() for line in text[text.index("| PyTorch |") :].splitlines()[2:] if "|" in line]
    assert [re.sub("`", "", name) for name in names] == list(ROWS)


@pytest.mark.parametrize("norm", [Kept.LBN, Kept.LEVELLED])
def test_a_normalization_may_become_another_with_the_same_function(norm: Kept):
    report = converted(linear, IMAGE, norm=norm).report
    assert report.agreement is not None
    assert report.agreement.cosine > 0.999
