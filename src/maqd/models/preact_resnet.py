"""Residual networks with pre-activation (He et al., arXiv 1603.05027)."""

from dataclasses import dataclass
from enum import Enum

from torch import Tensor, nn

from maqd.errors import ConfigError
from maqd.models.blocks import scaled
from maqd.nn import GlobalSumPool, IntegerInput, MaxPool2d
from maqd.nn.factory import LayerFactory, grid_of
from maqd.numerics.states import Grid
from maqd.settings.model import Shortcut

LARGE_IMAGE = 96
"""Images from this size on get the usual 7x7 stem with stride 2 and a max pooling."""


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Widths and numbers of blocks of the stages; bottleneck blocks widen their output four times."""

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    bottleneck: bool = False


class ResNetPlan(Enum):
    """The networks."""

    RESNET18 = Stages(widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2))
    RESNET34 = Stages(widths=(64, 128, 256, 512), blocks=(3, 4, 6, 3))
    RESNET50 = Stages(widths=(64, 128, 256, 512), blocks=(3, 4, 6, 3), bottleneck=True)
    NARROW = Stages(widths=(32, 64, 128), blocks=(2, 2, 2))
    RESNET8 = Stages(widths=(16, 32, 64), blocks=(1, 1, 1))
    RESNET20 = Stages(widths=(16, 32, 64), blocks=(3, 3, 3))


class PreActBlock(nn.Module):
    """x -> shortcut + branch, the branch being (activation, convolution) twice or, as a bottleneck, three times.

    The stream is a sum of accumulators, each an integer times a power of two, and so is itself one integer with
    one exponent. The branch enters with a small power-of-two gain, as in normalizer-free networks
    (arXiv 2102.06171): it keeps the stream's scale from growing with the depth.
    """

    def __init__(
        self,
        layers: LayerFactory,
        name: str,
        inputs: int,
        width: int,
        *,
        stride: int,
        bottleneck: bool,
        shortcut: Shortcut = Shortcut.STRIDED,
    ) -> None:
        super().__init__()
        outputs = width * 4 if bottleneck else width
        self.act1 = layers.activation(f"{name}.act1", inputs)
        grid = grid_of(self.act1)
        first = 1 if bottleneck else 3
        self.conv1 = layers.conv(
            f"{name}.conv1", inputs, width, first, grid, stride=1 if bottleneck else stride, gain=1.0
        )
        self.act2 = layers.activation(f"{name}.act2", width)
        middle = grid_of(self.act2)
        if bottleneck:
            self.conv2 = layers.conv(f"{name}.conv2", width, width, 3, middle, stride=stride)
            self.act3 = layers.activation(f"{name}.act3", width)
            self.conv3 = layers.conv(f"{name}.conv3", width, outputs, 1, grid_of(self.act3), gain=BRANCH_GAIN)
        else:
            self.conv2 = layers.conv(f"{name}.conv2", width, outputs, 3, middle, gain=BRANCH_GAIN)
        self.bottleneck = bottleneck
        self.shortcut = self.shortcut_act = self.shortcut_pool = None
        if stride == 1 and inputs == outputs:
            return
        if shortcut is Shortcut.FINE:
            self.shortcut_act = layers.activation(f"{name}.shortcut_act", inputs)
            grid = grid_of(self.shortcut_act)
        if shortcut is not Shortcut.STRIDED and stride > 1:
            self.shortcut_pool = nn.AvgPool2d(stride)
            grid = None if grid is None else averaged(grid, stride)
            stride = 1
        self.shortcut = layers.conv(f"{name}.shortcut", inputs, outputs, 1, grid, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """N x I x H x W -> N x O x H/stride x W/stride."""
        active = self.act1(x)
        if self.shortcut is not None:
            source = active if self.shortcut_act is None else self.shortcut_act(x)
            x = self.shortcut(source if self.shortcut_pool is None else self.shortcut_pool(source))
        y = self.conv2(self.act2(self.conv1(active)))
        if self.bottleneck:
            y = self.conv3(self.act3(y))
        return x + y


BRANCH_GAIN = 0.25


def averaged(grid: Grid, side: int) -> Grid:
    """Where means over squares of `side` x `side` positions lie, the side being a power of two."""
    shift = side * side
    return Grid(low=grid.low * shift, high=grid.high * shift, exponent=grid.exponent - shift.bit_length() + 1)


class PreActResNet(nn.Module):
    """Stem, stages of pre-activation blocks, a last activation, global pooling, integer head.

    uint8 N x C x S x S -> N x classes.

    Args:
        plan: Widths and depths.
        layers: Makes the layers; names are "stem", "stages.I.J.{act1,conv1,act2,conv2,..,shortcut}", with fine
            shortcuts "stages.I.J.shortcut_act", "act", "head".
        width: Multiplier of all widths.
        in_channels: C.
        num_classes: Outputs.
        image_size: S; from 96 on the stem halves the image twice.
        shortcut: Of the blocks that change the stream's width.

    Raises:
        ConfigError: Shortcuts that average would have to halve an odd number of rows.
    """

    def __init__(
        self,
        plan: ResNetPlan,
        layers: LayerFactory,
        *,
        width: float,
        in_channels: int,
        num_classes: int,
        image_size: int,
        shortcut: Shortcut = Shortcut.STRIDED,
    ) -> None:
        super().__init__()
        shape = plan.value
        large = image_size >= LARGE_IMAGE
        channels = scaled(shape.widths[0], width)
        self.input = IntegerInput()
        kernel, stride = (7, 2) if large else (3, 1)
        self.stem = layers.conv("stem", in_channels, channels, kernel, IntegerInput.grid, stride=stride)
        self.stem_pool = MaxPool2d(3, 2, 1) if large else nn.Identity()
        size = -(-image_size // 4) if large else image_size
        stages = []
        for i, (plain_width, count) in enumerate(zip(shape.widths, shape.blocks, strict=True)):
            blocks = []
            for j in range(count):
                stride = 2 if j == 0 and i > 0 else 1
                if shortcut is not Shortcut.STRIDED and size % stride:
                    multiple = 2 ** (len(shape.widths) - 1) * (4 if large else 1)
                    raise ConfigError(
                        f"{shortcut.value} shortcuts halve an even number of rows, stage {i} has {size} for images of "
                        f"{image_size}; use a multiple of {multiple}, or strided shortcuts"
                    )
                size = -(-size // stride)
                block = PreActBlock(
                    layers,
                    f"stages.{i}.{j}",
                    channels,
                    scaled(plain_width, width),
                    stride=stride,
                    bottleneck=shape.bottleneck,
                    shortcut=shortcut,
                )
                channels = scaled(plain_width, width) * (4 if shape.bottleneck else 1)
                blocks.append(block)
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.act = layers.activation("act", channels)
        self.pool = GlobalSumPool(size * size, grid_of(self.act))
        self.head = layers.head("head", channels, num_classes, self.pool.grid, positions=size * size)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stem_pool(self.stem(self.input(x)))
        return self.head(self.pool(self.act(self.stages(x))))
