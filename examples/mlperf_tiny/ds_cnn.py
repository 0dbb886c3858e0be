"""DS-CNN for keyword spotting: a 10x4 convolution and four depthwise separable blocks."""

from torch import Tensor, nn


def block(width: int) -> list[nn.Module]:
    """A depthwise and a pointwise convolution, each with normalization and activation."""
    return [
        nn.Conv2d(width, width, 3, padding=1, groups=width),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]


class DSCNN(nn.Module):
    """N x 1 x 49 x 10 -> N x classes."""

    def __init__(self, width: int = 64, classes: int = 12) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.ZeroPad2d((1, 1, 4, 5)),  # SAME with stride 2: 49 x 10 becomes 25 x 5
            nn.Conv2d(1, width, (10, 4), 2),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(0.2),
            *(layer for _ in range(4) for layer in block(width)),
            nn.Dropout(0.4),
        )
        self.pool = nn.AvgPool2d((25, 5))
        self.dense = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.pool(self.features(x)).flatten(1))


def ds_cnn() -> nn.Module:
    """The network of the benchmark."""
    return DSCNN()
