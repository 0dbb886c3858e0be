"""Images as a float network of theirs takes them, with uint8 pixels at the border."""

import torch
from torch import Tensor, nn

from maqd.errors import ConfigError


class FromPixels(nn.Module):
    """A network behind the usual preparation of images: network((pixels / 255 - mean) / std).

    Converted, pixels enter as they are: the first layer takes the preparation in.

    Args:
        network: Takes N x C x H x W in float.
        mean, std: One a channel, or one for all; std > 0.

    Raises:
        ConfigError: They are not positive or not of one length.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...] = (0.0,), std: tuple[float, ...] = (1.0,)) -> None:
        super().__init__()
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise ConfigError(f"images need as many means as positive deviations, got mean {mean} and std {std}")
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """uint8 N x C x H x W -> what the network returns."""
        return self.network((x.float() / 255 - self.mean) / self.std)
