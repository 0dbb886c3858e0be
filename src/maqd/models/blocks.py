"""What the networks are put together from."""

from torch import Tensor, nn

from maqd.errors import ConfigError
from maqd.nn import MaxPool2d, NormActivation, QuantConv2d


class ConvBlock(nn.Module):
    """Convolution, normalization, activation, and max pooling if asked for.

    N x I x H x W -> N x O x H/stride/pool x W/stride/pool.
    """

    def __init__(self, conv: QuantConv2d, act: NormActivation, pool: MaxPool2d | None = None) -> None:
        super().__init__()
        self.conv = conv
        self.act = act
        self.pool = nn.Identity() if pool is None else pool

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, on the activation's grid."""
        return self.pool(self.act(self.conv(x)))


def scaled(width: int, multiplier: float) -> int:
    """A layer's width under the network's multiplier."""
    if not multiplier > 0:
        raise ConfigError(f"the width multiplier must be positive, got {multiplier!r}")
    return max(1, round(width * multiplier))
