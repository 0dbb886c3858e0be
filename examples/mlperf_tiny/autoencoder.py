"""The autoencoder for anomaly detection: 640 - 128 x 4 - 8 - 128 x 4 - 640."""

from itertools import pairwise

from torch import nn


def autoencoder(inputs: int = 640, width: int = 128, code: int = 8) -> nn.Module:
    """N x inputs -> N x inputs; an anomaly is what it fails to repeat."""
    layers: list[nn.Module] = []
    sizes = (inputs, *(width,) * 4, code, *(width,) * 4)
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], inputs))
