"""Networks that people build, of our layers: trained a few steps, lowered, the same integers on every engine."""

from contextlib import nullcontext

import pytest
import torch
from agreement import assert_equal_everywhere, assert_qonnx_equal, lowered
from held_networks import HELD, Held

import maqd
from maqd.errors import ExportError
from maqd.export.onnx.qonnx import Flavour
from maqd.lowering.builder import named_results

STEPS = 30


@pytest.mark.parametrize("held", HELD, ids=lambda held: held.make.__name__)
def test_trained_networks_give_the_same_integers_everywhere(held: Held):
    torch.manual_seed(0)
    network, batch = held.make(), held.samples(8, 0)
    assert maqd.check(network, batch) == ()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(STEPS):
        loss = torch.stack([(part - 1).square().mean() for part in named_results(network(*batch)).values()]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    graph = lowered(network.eval(), *batch)
    samples = held.samples(4, 1)
    assert_equal_everywhere(network, graph, *samples)
    one = tuple(sample[:1].numpy() for sample in samples)
    for flavour in Flavour:
        refused = pytest.raises(ExportError, match=r"takes floats|float32 has too few bits")
        with nullcontext() if flavour in held.qonnx else refused:
            assert_qonnx_equal(graph, flavour, one)
