"""Random small networks of `maqd.nn` layers, with parameters that are hard to lower."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from maqd.nn import (
    Affine,
    GlobalSumPool,
    IntegerInput,
    MaxPool2d,
    Norm,
    NormActivation,
    QuantActivation,
    QuantConv1d,
    QuantConv2d,
    Quantizer,
    QuantLinear,
    make_norm,
)
from maqd.nn.norm import FoldableNorm
from maqd.numerics.states import Grid, States

EPS = 2.0**-10
"""With a variance of 1 - 2**-10 the standard deviation is exactly 1, and thresholds can be made to fall on integers."""


@dataclass
class Draw:
    """Choices of hypothesis and random numbers of torch."""

    data: st.DataObject
    generator: torch.Generator

    def int(self, low: int, high: int) -> int:
        return self.data.draw(st.integers(low, high))

    def of(self, *options):
        return self.data.draw(st.sampled_from(options))

    def states(self) -> int:
        return self.of(2, 3, 4, 5, 6, 7, 8, 15, 16, 17, 33)

    def quantizer(self) -> Quantizer:
        signed = self.of(False, False, False, True)
        return Quantizer(states=States(count=self.states(), signed=signed), step=self.of(0.25, 0.5, 1.0, 2.0))


def norm_activation(draw: Draw, channels: int, unit: float, *, channel_dim: int = 1) -> NormActivation:
    """Normalization and activation whose channels are ordinary, tied, extreme, falling, dead or saturated."""
    kind = draw.of(Norm.LBN, Norm.BN, Norm.LEVELLED_LBN, Norm.EBN)
    norm = make_norm(kind, channels, affine=draw.of(*Affine), channel_dim=channel_dim)
    assert isinstance(norm, FoldableNorm)
    norm.eps = EPS
    quantizer = draw.quantizer()
    g = draw.generator

    def choose(size: int, *values: float) -> Tensor:
        return torch.tensor(values)[torch.randint(len(values), (size,), generator=g)]

    hard = draw.of(False, True)
    with torch.no_grad():
        if hard:
            # Means on the accumulator's grid, power-of-two gains: many cuts fall exactly on integers.
            norm.running_mean.copy_(
                (choose(norm.running_mean.numel(), -3, -1, 0, 1, 2) * unit).view_as(norm.running_mean)
            )
            norm.running_var.fill_(1 - EPS)
        else:
            norm.running_mean.normal_(0, 20 * unit, generator=g)
            norm.running_var.uniform_(unit**2, 400 * unit**2 + 1e-6, generator=g)
        if norm.weight is not None and norm.bias is not None:
            size = norm.weight.numel()
            if hard:
                norm.weight.copy_(choose(size, 0, 0, 1, -1, 0.5, -2, 1e-30, -1e30, 1 / unit))
                norm.bias.copy_(choose(size, 0, 0.5, 1, -0.5, 1e4, -1e4, 1e-20, -1e20) * quantizer.step)
            else:
                norm.weight.normal_(0.5, 1, generator=g)
                norm.bias.normal_(1, 2, generator=g)
    return NormActivation(norm, quantizer)


class RandomNetwork(nn.Module):
    """Images through a stem and some blocks to a head, a feature map or logits."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        self.shape = (draw.int(1, 4), draw.int(4, 9), draw.int(4, 9))
        self.input = IntegerInput()
        channels = draw.int(1, 9)
        self.stem = QuantConv2d(
            self.shape[0],
            channels,
            (draw.int(1, 3), draw.int(1, 3)),
            stride=draw.int(1, 2),
            padding=draw.int(0, 2),
            states=draw.states(),
            input_grid=IntegerInput.grid,
        )
        blocks: list[nn.Module] = []
        sample = self.stem.eval()(self.input(torch.zeros(1, *self.shape, dtype=torch.uint8)))
        for _ in range(draw.int(1, 3)):
            block = RandomBlock(draw, tuple(sample.shape[1:]), self._unit(blocks))
            blocks.append(block.eval())
            sample = block(sample)
        self.blocks = nn.Sequential(*blocks)
        self.act = norm_activation(draw, sample.shape[1], self._unit(blocks))
        grid = self.act.quantizer.grid if self.act.quantizer else None
        self.ending = draw.of("global", "flatten", "map")
        positions = sample.shape[2] * sample.shape[3]
        self.pool = GlobalSumPool(positions, grid) if self.ending == "global" else nn.Flatten()
        inputs = sample.shape[1] * (1 if self.ending == "global" else positions)
        head_grid = draw.of(None, self.pool.grid if isinstance(self.pool, GlobalSumPool) else grid)
        self.head = QuantLinear(
            inputs, draw.int(1, 7), bias=draw.of(True, False), states=draw.of(2, 3, 5), input_grid=head_grid
        )
        if self.head.bias is not None:
            nn.init.normal_(self.head.bias, generator=draw.generator)

    def _unit(self, blocks: list[nn.Module]) -> float:
        last = blocks[-1] if blocks else self.stem
        return last.unit if isinstance(last, RandomBlock) else self.stem.accumulator_unit

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.blocks(self.stem(self.input(x))))
        return x if self.ending == "map" else self.head(self.pool(x))


class RandomBlock(nn.Module):
    """Accumulators to accumulators: activation, pooling or branches, convolution, shortcut."""

    def __init__(self, draw: Draw, shape: tuple[int, ...], unit: float) -> None:
        super().__init__()
        channels = shape[0]
        self.act = norm_activation(draw, channels, unit)
        grid = self.act.quantizer.grid if self.act.quantizer else Grid(low=0, high=1, exponent=0)
        self.kind = draw.of("plain", "residual", "projection", "concat", "depthwise", "max", "average", "requantize")
        self.pool: nn.Module = nn.Identity()
        if self.kind == "max" and min(shape[1:]) >= 3:
            self.pool = draw.of(MaxPool2d(2), MaxPool2d(3, 2, 1), nn.MaxPool2d((1, 2)), nn.MaxPool2d(3, 1))
        elif self.kind == "average" and min(shape[1:]) >= 2:
            self.pool, positions = draw.of(
                (nn.AvgPool2d(2), 4), (nn.AvgPool2d((2, 1), 1), 2), (nn.AvgPool2d(2, 1, padding=1), 4)
            )
            low, high = min(grid.low, 0) * positions, max(grid.high, 0) * positions
            grid = Grid(low=low, high=high, exponent=grid.exponent - positions.bit_length() + 1)
        elif self.kind == "requantize":
            self.pool = QuantActivation(draw.quantizer())
            grid = self.pool.quantizer.grid
        inputs = 2 * channels if self.kind == "concat" else channels
        same = self.kind in ("residual", "depthwise")
        outputs = channels if same else draw.int(1, 9)
        kernel = draw.of(1, 3) if same else draw.int(1, 3)
        dilation = draw.int(1, 2)
        self.conv = QuantConv2d(
            inputs,
            outputs,
            kernel,
            stride=1 if same or self.kind == "projection" else draw.int(1, 2),
            padding=dilation * (kernel - 1) // 2 if same else dilation * (kernel - 1),
            dilation=dilation,
            groups=channels if self.kind == "depthwise" else 1,
            bias=draw.of(False, True),
            states=draw.states(),
            input_grid=grid,
            gain=draw.of(0.25, 1.0),
        )
        if self.conv.bias is not None:
            nn.init.normal_(self.conv.bias, generator=draw.generator)
        self.shortcut = (
            QuantConv2d(
                inputs, outputs, kernel, padding=dilation * (kernel - 1), dilation=dilation, states=3, input_grid=grid
            )
            if self.kind == "projection"
            else None
        )
        units = [self.conv.accumulator_unit, unit]
        self.unit = min(units) if self.kind == "residual" else units[0]

    def forward(self, x: Tensor) -> Tensor:
        active = self.pool(self.act(x))
        if self.kind == "concat":
            active = torch.cat([active, active], 1)
        y = self.conv(active)
        if self.shortcut is not None:
            return y + self.shortcut(active)
        return x + y if self.kind == "residual" else y


class RandomSequence(nn.Module):
    """Sequences N x C x L, or N x T x C with the channels last."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        self.input = IntegerInput()
        channels, length = draw.int(1, 5), draw.int(9, 14)
        outputs = draw.int(1, 7)
        self.last = draw.of(False, True)
        self.shape = (length, channels) if self.last else (channels, length)
        grid = IntegerInput.grid
        if self.last:
            self.first = QuantLinear(channels, outputs, states=draw.states(), input_grid=grid)
            self.pool: nn.Module = nn.Identity()
        else:
            self.first = QuantConv1d(
                channels,
                outputs,
                3,
                stride=draw.int(1, 2),
                padding=draw.int(0, 2),
                states=draw.states(),
                input_grid=grid,
            )
            self.pool = draw.of(nn.MaxPool1d(2), nn.AvgPool1d(2, 1), nn.Identity())
        self.act = norm_activation(draw, outputs, self.first.accumulator_unit, channel_dim=-1 if self.last else 1)
        bias = draw.of(False, True)
        self.second = (  # lowering finds the grids of their inputs
            QuantLinear(outputs, draw.int(1, 5), bias, states=draw.states())
            if self.last
            else QuantConv1d(outputs, draw.int(1, 5), 2, bias=bias, states=draw.states())
        )
        if self.second.bias is not None:
            nn.init.normal_(self.second.bias, generator=draw.generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.pool(self.act(self.first(self.input(x)))))


def random_network(data: st.DataObject) -> RandomNetwork | RandomSequence:
    """A network in evaluation mode."""
    seed = data.draw(st.integers(0, 2**32 - 1))
    draw = Draw(data, torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    kind = draw.of(RandomNetwork, RandomNetwork, RandomNetwork, RandomSequence)
    return kind(draw).eval()
