"""Shapes of the networks of MLPerf Tiny (Banbury et al., arXiv 2106.07597), for those to train and those to measure."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SeparableShape:
    """A first convolution of stride 2, then blocks of a depthwise 3 x 3 and a 1 x 1 convolution, sum, dense layer.

    Args:
        image: Channels, rows, columns.
        stem: Width of the first convolution.
        kernel, padding: Of the first convolution; rows, columns.
        blocks: Width and stride of each block.
        positions: Rows x columns that are left at the end.
        classes: Outputs.
    """

    image: tuple[int, int, int]
    stem: int
    kernel: tuple[int, int]
    padding: tuple[int, int]
    blocks: tuple[tuple[int, int], ...]
    positions: int
    classes: int


DS_CNN = SeparableShape(
    image=(1, 49, 10), stem=64, kernel=(10, 4), padding=(5, 1), blocks=((64, 1),) * 4, positions=25 * 5, classes=12
)
"""Keyword spotting. The reference pads the first rows by 4 and 5; 5 and 5 give the same size."""

MOBILENET = SeparableShape(
    image=(3, 96, 96),
    stem=8,
    kernel=(3, 3),
    padding=(1, 1),
    blocks=((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *((128, 1),) * 5, (256, 2), (256, 1)),
    positions=3 * 3,
    classes=2,
)
"""Visual wake words: MobileNetV1 of width 0.25."""

RESNET8_IMAGE = (3, 32, 32)
RESNET8_WIDTHS = (16, 32, 64)
"""Image classification: widths of the stages, the second and third of which halve the image; 10 classes."""

AUTOENCODER_WIDTHS = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640)
"""Anomaly detection: numbers between the dense layers."""
