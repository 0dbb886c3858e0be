"""The networks of examples/mlperf_tiny convert without an edit."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from effort import long
from float_networks import prepared

from maqd.convert import convert

FOLDER = Path(__file__).parents[2] / "examples" / "mlperf_tiny"
NETWORKS = {
    "resnet8": ((3, 32, 32), 77_360),
    "ds_cnn": ((1, 49, 10), 22_016),
    "mobilenet": ((3, 96, 96), 208_112),
    "autoencoder": ((640,), 264_192),
    "wake_word": ((40, 30), 21_912),
}
LONG = {"ds_cnn", "mobilenet", "autoencoder"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[long] if name in LONG else []) for name in NETWORKS])
def test_it_converts_unedited(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(FOLDER)
    shape, weights = NETWORKS[name]
    torch.manual_seed(0)
    network = prepared(getattr(importlib.import_module(name), name)(), shape)
    sys.modules.pop(name)
    report = convert(network, torch.randn(4, *shape), weights=63, activations=64).report
    assert report.weights == weights
    assert report.agreement is not None
    assert report.agreement.cosine > 0.99
