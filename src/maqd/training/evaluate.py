"""`evaluate_run`: the test accuracy of a checkpoint."""

from dataclasses import replace
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import nn

from maqd.data import DataConfig, open_data
from maqd.errors import CheckpointError
from maqd.nn.calling import call, each
from maqd.settings.training import ComputeConfig
from maqd.training.checkpoint import SHAPE, Evaluation
from maqd.training.environment import device_of, resolve_compute
from maqd.training.objective import Objective, Sums
from maqd.training.runs import Run


@torch.no_grad()
def count(network: nn.Module, loader: Any, device: torch.device, objective: Objective) -> Evaluation:
    """The result of a network on the batches of a loader, in fp32 and evaluation mode.

    Args:
        network: The network.
        loader: Batches of inputs and targets.
        device: Where the network is.
        objective: What is evaluated.
    """
    network.eval()
    counts = Sums(objective, device)
    for batch in loader:
        inputs, targets = move_data_to_device(batch, device)
        counts.add(call(network, inputs), targets, len(each(inputs)[0]))
    return counts.read()


def evaluate_run(data_config: DataConfig, compute: ComputeConfig, run: Run) -> Evaluation:
    """The test accuracy of a run's checkpoint, or its loss and metric.

    Args:
        data_config: The data set.
        compute: Where to compute; a single process does it.
        run: The run.

    Raises:
        CheckpointError: It is damaged, or its network does not fit the data.
        DataError: The data set cannot be read.
        ConfigError: The run names functions to import, and was opened without allowing that.
    """
    objective = run.objective
    compute = resolve_compute(replace(compute, devices=1, nodes=1))
    if compute.threads is not None:
        torch.set_num_threads(compute.threads)
    data = open_data(data_config, seed=run.config.seed, classifies=run.config.loss is None)
    found, stored = (tuple(getattr(info, name) for name in SHAPE) for info in (data.info, run.header.data))
    if found != stored:
        raise CheckpointError(
            f"{run.path} was trained on inputs and classes {stored}, the data has {found}; "
            "pass the data it was trained on"
        )
    device = device_of(compute)
    return count(run.network.to(device), data.test_loader(), device, objective)
