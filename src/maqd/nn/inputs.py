"""Where data enters a network: integers from the first layer on."""

import torch
from torch import Tensor, nn

from maqd.errors import DataError
from maqd.numerics.states import PIXELS


class IntegerInput(nn.Module):
    """Takes uint8 images into the network: (pixel - 128) * 2**-6, integers from the first layer on.

    Padding of the first convolution is code 0, the middle grey.
    """

    grid = PIXELS

    def forward(self, x: Tensor) -> Tensor:
        """uint8 N x C x H x W -> float32 of the same shape and memory format.

        Raises:
            DataError: x is not uint8.
        """
        if x.dtype != torch.uint8:
            raise DataError(
                f"the input layer takes uint8 pixels 0..255, got {x.dtype}; do not scale or normalize images before"
            )
        return (x.float() - 128) * PIXELS.unit
