"""Trained weights in the unit in which their quantizer cuts them."""

import numpy as np
import torch
from torch import nn

from maqd.nn import QuantConv1d, QuantConv2d, QuantLinear
from maqd.nn.functional import weight_standardize
from maqd.nn.quantizers import RoundClip
from maqd.report.content import Spread

BARS = 61
LIMIT = 3.5
"""Standard deviations that are shown; what lies further out counts at the ends."""


def spreads(network: nn.Module) -> list[Spread]:
    """Of every layer that standardizes its weights, in order.

    Args:
        network: A trained network.
    """
    found = []
    edges = np.linspace(-LIMIT, LIMIT, BARS + 1)
    for name, module in network.named_modules():
        if not isinstance(module, QuantConv1d | QuantConv2d | QuantLinear):
            continue
        quantizer = module.quantizer
        if not isinstance(quantizer, RoundClip):
            continue
        with torch.no_grad():
            values = weight_standardize(module.weight).flatten().double().cpu().numpy()
        counts, _ = np.histogram(np.clip(values, -LIMIT, LIMIT), edges)
        # States are `distance` apart and lie about zero: the code changes half-way between two of them.
        states = quantizer.states.count
        borders = tuple((place - states / 2) * quantizer.distance for place in range(1, states))
        found.append(
            Spread(name=name, middles=((edges[1:] + edges[:-1]) / 2).tolist(), counts=counts.tolist(), borders=borders)
        )
    return found
