"""Small networks whose convolutions have strides instead of pooling: no tensor is larger than it must be."""

from enum import Enum

from torch import Tensor, nn

from maqd.errors import ConfigError
from maqd.models.blocks import ConvBlock, scaled
from maqd.nn import IntegerInput
from maqd.nn.factory import LayerFactory, grid_of


class StridedPlan(Enum):
    """Width and stride of each convolution."""

    MICRO = ((32, 2), (64, 1), (64, 2))
    """7.3 million multiplications on a 32 x 32 x 3 image; for a processor of the Cortex-M4 class."""


class StridedCNN(nn.Module):
    """3x3 convolutions, some of stride 2, and an integer head on all that is left of the positions.

    uint8 N x C x S x S -> N x classes.

    Args:
        plan: Widths and strides.
        layers: Makes the layers; the names are "stem", "features.I" and "head".
        width: Multiplier of all widths.
        in_channels: C.
        num_classes: Outputs.
        image_size: S.
    """

    def __init__(
        self,
        plan: StridedPlan,
        layers: LayerFactory,
        *,
        width: float,
        in_channels: int,
        num_classes: int,
        image_size: int,
    ) -> None:
        super().__init__()
        if image_size < 2:
            raise ConfigError(f"{plan.name} needs images of at least 2 pixels a side, got {image_size}")
        self.input = IntegerInput()
        blocks: list[ConvBlock] = []
        channels, grid, size = in_channels, IntegerInput.grid, image_size
        for plain_width, stride in plan.value:
            name = "stem" if not blocks else f"features.{len(blocks) - 1}"
            outputs = scaled(plain_width, width)
            conv = layers.conv(f"{name}.conv", channels, outputs, 3, grid, stride=stride)
            act = layers.activation(f"{name}.act", outputs)
            blocks.append(ConvBlock(conv, act))
            channels, grid, size = outputs, grid_of(act), (size - 1) // stride + 1
        self.stem = blocks[0]
        self.features = nn.Sequential(*blocks[1:])
        self.pool = nn.Flatten()
        self.head = layers.head("head", channels * size * size, num_classes, grid)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.pool(self.features(self.stem(self.input(x)))))
