"""What every process of a distributed test of a converted network runs: imported by the spawned interpreters."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from maqd.convert import convert

BATCH, STEPS = 8, 3


def data() -> tuple[Tensor, Tensor]:
    """The joint batches."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(STEPS, BATCH, 3, 8, 8, generator=generator)
    return images, torch.randint(0, 4, (STEPS, BATCH), generator=generator)


def network() -> nn.Module:
    """A converted network, the same in every process."""
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.SiLU(),
        nn.Conv2d(8, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
    )
    float_network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    return convert(float_network, data()[0][0], weights=15, activations=16).model.train()


def train(model: nn.Module, part: slice) -> None:
    """Some steps on a part of each joint batch."""
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], 0.05)
    for images, labels in zip(*data(), strict=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[part]), labels[part]).backward()
        optimizer.step()


def work(rank: int, folder: str) -> None:
    """One of two processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = network()
    half = BATCH // 2
    train(DistributedDataParallel(model), slice(rank * half, (rank + 1) * half))
    torch.save(model.state_dict(), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
