"""The networks of MLPerf Tiny (Banbury et al., arXiv 2106.07597) with few states.

Layer tables are those of the reference networks; ResNet-8 has its activations in front of the convolutions. Two
differences: the reference pads unevenly where it says SAME (4 and 5 rows, 0 and 1), here both sides get the larger
number, and outputs have the same size; and averages over 125 or 9 positions are sums with the nearest power of two for
a divisor, which the next layer's scale absorbs.
"""

from torch import Tensor, nn

from maqd.models.preact_resnet import PreActResNet, ResNetPlan
from maqd.nn import GlobalSumPool, IntegerInput, LayerFactory, QuantConfig, grid_of
from maqd.numerics.states import Grid
from maqd.settings.tiny import AUTOENCODER_WIDTHS, DS_CNN, MOBILENET, SeparableShape


class SeparableBlock(nn.Module):
    """A depthwise 3x3 and a pointwise convolution, each with normalization and activation.

    N x I x H x W -> N x O x H/stride x W/stride. Layers are "NAME.depthwise", "NAME.act1", "NAME.pointwise" and
    "NAME.act2".
    """

    def __init__(
        self, layers: LayerFactory, name: str, inputs: int, outputs: int, grid: Grid | None, *, stride: int = 1
    ) -> None:
        super().__init__()
        self.depthwise = layers.conv(f"{name}.depthwise", inputs, inputs, 3, grid, stride=stride, groups=inputs)
        self.act1 = layers.activation(f"{name}.act1", inputs)
        self.pointwise = layers.conv(f"{name}.pointwise", inputs, outputs, 1, grid_of(self.act1))
        self.act2 = layers.activation(f"{name}.act2", outputs)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, on the second activation's grid."""
        return self.act2(self.pointwise(self.act1(self.depthwise(x))))


class SeparableNetwork(nn.Module):
    """A stem, separable blocks, the sum over all positions, an integer head: uint8 N x C x H x W -> N x classes.

    Args:
        layers: Makes the layers; the names are "stem.conv", "stem.act", "blocks.I.*" and "head".
        shape: Of the layers.
    """

    def __init__(self, layers: LayerFactory, shape: SeparableShape) -> None:
        super().__init__()
        width = shape.stem
        self.input = IntegerInput()
        first = layers.conv(
            "stem.conv",
            shape.image[0],
            width,
            shape.kernel,
            IntegerInput.grid,
            stride=2,
            padding=shape.padding,
        )
        act = layers.activation("stem.act", width)
        self.stem = nn.ModuleDict({"conv": first, "act": act})
        grid, made = grid_of(act), []
        for place, (outputs, stride) in enumerate(shape.blocks):
            made.append(SeparableBlock(layers, f"blocks.{place}", width, outputs, grid, stride=stride))
            width, grid = outputs, grid_of(made[-1].act2)
        self.blocks = nn.Sequential(*made)
        self.pool = GlobalSumPool(shape.positions, grid)
        self.head = layers.head("head", width, shape.classes, self.pool.grid, positions=shape.positions)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stem["act"](self.stem["conv"](self.input(x)))
        return self.head(self.pool(self.blocks(x)))


def resnet8(quant: QuantConfig, *, width: float = 1.0) -> nn.Module:
    """Image classification: pre-activation ResNet-8, uint8 N x 3 x 32 x 32 -> N x 10; 77,360 weights at width 1."""
    layers = LayerFactory(quant=quant)
    return PreActResNet(ResNetPlan.RESNET8, layers, width=width, in_channels=3, num_classes=10, image_size=32)


def ds_cnn(quant: QuantConfig) -> nn.Module:
    """Keyword spotting: DS-CNN, uint8 N x 1 x 49 x 10 -> N x 12; 22,016 weights."""
    return SeparableNetwork(LayerFactory(quant=quant), DS_CNN)


def mobilenet(quant: QuantConfig) -> nn.Module:
    """Visual wake words: MobileNetV1 of width 0.25, uint8 N x 3 x 96 x 96 -> N x 2; 208,112 weights."""
    return SeparableNetwork(LayerFactory(quant=quant), MOBILENET)


def autoencoder(quant: QuantConfig) -> nn.Module:
    """Anomaly detection: 640 - 128 x 4 - 8 - 128 x 4 - 640, uint8 N x 640 -> N x 640; 264,192 weights.

    Layers are "dense.I", "act.I" and "head".
    """
    layers = LayerFactory(quant=quant)
    steps: list[nn.Module] = [IntegerInput()]
    (inputs, *hidden, outside), grid = AUTOENCODER_WIDTHS, IntegerInput.grid
    for place, outputs in enumerate(hidden):
        activation = layers.activation(f"act.{place}", outputs)
        steps += [layers.linear(f"dense.{place}", inputs, outputs, grid), activation]
        inputs, grid = outputs, grid_of(activation)
    return nn.Sequential(*steps, layers.head("head", inputs, outside, grid))
