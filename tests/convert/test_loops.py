"""Converted networks in what people train with: several processes, averages of weights, compilers, copies."""

import copy
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from converted_worker import BATCH, data, network, train, work
from effort import long
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import maqd
from maqd.lowering import TorchEngine
from maqd.runtime.verify import verify


@long
def test_two_processes_train_it_as_one_does(tmp_path: Path):
    mp.spawn(work, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    alone = network()
    before = copy.deepcopy(alone.state_dict())
    train(alone, slice(0, BATCH))
    moved = 0
    for name, value in alone.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(first[name], value, rtol=1e-3, atol=1e-4)
            moved += not torch.equal(value, before[name])
    assert moved > 8


def test_averages_of_its_weights_lower():
    model = network()
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    averaged.update_parameters(model)  # the first time copies
    train(model, slice(0, BATCH))
    averaged.update_parameters(model)
    x, ours = data()[0][0], averaged.module.eval()
    graph = maqd.lower(ours, x[:1]).graph
    assert verify(graph, [TorchEngine(ours, graph)], [x.numpy()]).ok
    assert not torch.equal(ours(x), model.eval()(x))


@long
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # of the compiler itself
def test_a_compiled_one_gives_the_same():
    model, x = network().eval(), data()[0][0]
    compiled = torch.compile(copy.deepcopy(model), backend="eager")
    with torch.no_grad():
        assert torch.equal(compiled(x), model(x))
    trained = torch.compile(network(), backend="eager")
    train(trained, slice(0, BATCH))
    graph = maqd.lower(trained.eval(), x[:1]).graph
    assert verify(graph, [TorchEngine(trained, graph)], [x.numpy()]).ok
