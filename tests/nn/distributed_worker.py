"""What every process of a distributed test runs: imported by the spawned interpreters."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from maqd import States
from maqd.nn import NormActivation, Quantizer, make_norm
from maqd.settings.quantization import Norm

CHANNELS = 5
KINDS = [Norm.LBN, Norm.LEVELLED_LBN, Norm.BN, Norm.EBN]
SPLITS = {"equal": (4, 4), "unequal": (7, 1)}
STEPS = 3
CASES = [
    (kind, split, quantized, sync)
    for kind in KINDS
    for split in SPLITS
    for quantized in (False, True)
    for sync in (True, False)
]


def joint_batches() -> list[tuple[Tensor, Tensor]]:
    """Inputs and output gradients of all processes together, in float64."""
    generator = torch.Generator().manual_seed(7)
    shape = (8, CHANNELS, 3, 2)
    scale = torch.linspace(0.5, 3, CHANNELS, dtype=torch.float64)[:, None, None]
    return [
        (
            torch.randn(shape, generator=generator, dtype=torch.float64) * scale + 1 - scale,
            torch.randn(shape, generator=generator, dtype=torch.float64),
        )
        for _ in range(STEPS)
    ]


def run(kind: Norm, *, quantized: bool, sync: bool, part: slice) -> dict[str, Any]:
    """Some training steps on a part of the joint batches."""
    norm = make_norm(kind, CHANNELS).double()
    norm.sync = sync
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(-1.5, 2, CHANNELS))
        norm.bias.copy_(torch.linspace(1, -0.5, CHANNELS))
    act = NormActivation(norm, Quantizer(states=States(count=4, signed=False), step=0.5)) if quantized else norm
    outputs, gradients = [], []
    for x, grad in joint_batches():
        leaf = x[part].clone().requires_grad_()
        out = act(leaf)
        out.backward(grad[part])
        outputs.append(out.detach())
        gradients.append(leaf.grad)
    return {
        "outputs": outputs,
        "gradients": gradients,
        "parameters": [norm.weight.grad, norm.bias.grad],
        "running": dict(norm.named_buffers()),
    }


def work(rank: int, folder: str) -> None:
    """Runs all cases as one of two processes and saves the results."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = []
    for kind, split, quantized, sync in CASES:
        first = SPLITS[split][0]
        part = slice(0, first) if rank == 0 else slice(first, None)
        results.append(run(kind, quantized=quantized, sync=sync, part=part))
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
