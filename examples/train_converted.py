"""A float network, converted, as `maqd train` takes networks: with all of its recipes, checkpoints and reports.

    maqd train --model train_converted:network --run runs/converted
    maqd lower runs/converted -o converted.maqd --allow-import

The function has to build the same network each time it is called, since a run is opened again with it: it converts a
fixed state (`digits.pt` beside this file, if there is one; random weights otherwise) with fixed calibration data. Run
it from the folder of this file, or with that folder in PYTHONPATH.
"""

from pathlib import Path

import torch
from convert_digits import digits
from convert_digits import network as float_network
from torch import nn

import maqd
from maqd.convert.pixels import FromPixels

STATE = Path(__file__).with_name("digits.pt")
"""What `torch.save(float_network.state_dict(), "digits.pt")` wrote after training."""


def network(width: float = 1.0) -> nn.Module:
    """uint8 N x 1 x 8 x 8 -> N x 10."""
    torch.manual_seed(0)
    model = float_network(round(16 * width))
    if STATE.exists():
        model.load_state_dict(torch.load(STATE, weights_only=True))
    pixels = (digits()[0][0][:256] * 255).round().to(torch.uint8)
    return maqd.convert(FromPixels(model), pixels, weights=3, activations=4).model.train()
