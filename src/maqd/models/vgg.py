"""VGG networks (Simonyan and Zisserman, arXiv 1409.1556) with normalization, and two small ones of the same shape."""

from enum import Enum

from torch import Tensor, nn

from maqd.errors import ConfigError
from maqd.models.blocks import ConvBlock, scaled
from maqd.nn import GlobalSumPool, IntegerInput, MaxPool2d
from maqd.nn.factory import LayerFactory, grid_of


class VGGPlan(Enum):
    """Widths of the convolutions in each stage; a max pooling ends every stage."""

    VGG11 = ((64,), (128,), (256, 256), (512, 512), (512, 512))
    VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
    VGG19 = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)
    NARROW = ((32, 32), (64, 64), (128, 128))
    DIGITS = ((16, 32), (64,))


class VGG(nn.Module):
    """3x3 convolutions with max pooling between stages, and an integer head.

    uint8 N x C x S x S -> N x classes. The five-stage plans end in a global pooling (one position for S = 32); the
    small ones keep their last positions apart and give all of them to the head.

    Args:
        plan: Widths.
        layers: Makes the layers; the names are "stem", "features.I" and "head".
        width: Multiplier of all widths.
        in_channels: C.
        num_classes: Outputs.
        image_size: S.
    """

    def __init__(
        self,
        plan: VGGPlan,
        layers: LayerFactory,
        *,
        width: float,
        in_channels: int,
        num_classes: int,
        image_size: int,
    ) -> None:
        super().__init__()
        stages = plan.value
        size = image_size >> len(stages)
        if size < 1:
            raise ConfigError(
                f"{plan.name} halves the image {len(stages)} times and needs at least {2 ** len(stages)} pixels, got "
                f"{image_size}; use a smaller network or larger images"
            )
        self.input = IntegerInput()
        blocks: list[ConvBlock] = []
        channels, grid = in_channels, IntegerInput.grid
        for stage in stages:
            for place, plain_width in enumerate(stage):
                name = "stem" if not blocks else f"features.{len(blocks) - 1}"
                outputs = scaled(plain_width, width)
                conv = layers.conv(f"{name}.conv", channels, outputs, 3, grid)
                act = layers.activation(f"{name}.act", outputs)
                pool = MaxPool2d(2) if place == len(stage) - 1 else None
                blocks.append(ConvBlock(conv, act, pool))
                channels, grid = outputs, grid_of(act)
        self.stem = blocks[0]
        self.features = nn.Sequential(*blocks[1:])
        if len(stages) == 5:
            positions = size * size
            self.pool = GlobalSumPool(positions, grid)
            grid = self.pool.grid
        else:
            positions = 1
            self.pool = nn.Flatten()
            channels *= size * size
        self.head = layers.head("head", channels, num_classes, grid, positions=positions)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.pool(self.features(self.stem(self.input(x)))))
