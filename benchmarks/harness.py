"""What every benchmark shares: options, alternating repeats, ratios with their spread, the machine, one JSON object.

PyTorch is imported where it is needed: some benchmarks measure memory, or commands that do without it.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from maqd.bench.timing import Spread, spread
from maqd.machine import Machine
from maqd.machine import machine as here

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class TorchMachine(Machine):
    """Where a figure was measured with PyTorch."""

    threads: int
    torch: str
    device: str


def options_parser(
    description: str | None, *, data: bool = False, threads: bool = False, seeds: bool = False
) -> argparse.ArgumentParser:
    """A parser with the options that benchmarks share; --json is one of all.

    Args:
        description: The script's docstring.
        data: Whether it reads a data set: --path and --cache-dir.
        threads: Whether it takes a number of threads.
        seeds: Whether it repeats trainings.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if data:
        parser.add_argument("--path", help="directory of the data set")
        parser.add_argument("--cache-dir", help="directory of decoded data sets")
    if threads:
        parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (1)")
    if seeds:
        parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind (3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")
    return parser


def machine(device: "torch.device | None" = None) -> TorchMachine:
    """This machine; `device` adds the name of an accelerator."""
    import torch

    cuda = device is not None and device.type == "cuda"
    return TorchMachine(
        **asdict(here()),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        device=torch.cuda.get_device_name(device) if cuda else "cpu",
    )


def seconds(call: Callable[[], object], device: "torch.device | None" = None) -> float:
    """Wall time of one call, an accelerator's queue drained."""
    import torch

    cuda = device is not None and device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if cuda:
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def alternate(
    ours: Callable[[], object], peer: Callable[[], object], *, repeats: int, device: "torch.device | None" = None
) -> tuple[Spread, Spread, Spread]:
    """Seconds of ours, of the peer, and the ratio ours / peer of neighbouring runs, in alternation after a warm-up."""
    for _ in range(3):
        ours()
        peer()
    times = [(seconds(ours, device), seconds(peer, device)) for _ in range(repeats)]
    return spread([a for a, _ in times]), spread([b for _, b in times]), spread([a / b for a, b in times])


def print_machine(where: Machine) -> None:
    """One line."""
    print(", ".join(f"{key} {value}" for key, value in asdict(where).items()))


def print_json(where: Machine, figures: dict[str, object]) -> None:
    """One object: the machine and the figures; judged ratios have keys ending in _ratio."""
    plain = {key: asdict(value) if isinstance(value, Spread) else value for key, value in figures.items()}
    print(json.dumps({"machine": asdict(where), **plain}))
