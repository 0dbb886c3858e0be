"""The same integers everywhere: trained networks, every tensor, every engine.

    python benchmarks/same_integers.py --path DIR [--images 1000] [--steps 100] [--width 0.25] [--json]

For each network (digits, VGG-16, PreActResNet-18) and each (M_w, M_a): train a little, lower with proof, save, load,
and compare PyTorch's evaluation, the NumPy interpreter and ONNX Runtime on test images, tensor by tensor. Prints how
many values were compared, how many differ (0, or the exit status is 1), and what the proofs and the file are like.
Without --path only the digits are done.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from harness import machine, options_parser, print_json, print_machine
from maqd.data import DataConfig, Source, open_data
from maqd.graph import container
from maqd.lowering import TorchEngine, lower
from maqd.models import Architecture, ModelConfig
from maqd.nn import Norm, QuantConfig
from maqd.runtime.onnxruntime import OnnxRuntime
from maqd.runtime.verify import verify
from maqd.settings.quantization import act_step
from maqd.settings.training import ComputeConfig, OptimConfig, TrainConfig
from maqd.training.progress import Output
from maqd.training.runs import load_network
from maqd.training.train import train

STATES = ((3, 4), (3, 2), (2, 2), (4, 3), (5, 8), (7, 16))
BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network that is trained and compared."""

    architecture: Architecture
    weight_states: int
    act_states: int
    width: float

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.architecture.value} ({self.weight_states},{self.act_states})"


def config(case: Case, options: argparse.Namespace, run: Path) -> TrainConfig:
    """A short training."""
    digits = case.architecture is Architecture.DIGITS
    norm = Norm.LEVELLED_LBN if case.architecture is Architecture.PREACT_RESNET18 else Norm.LBN
    quant = QuantConfig(
        weight_states=case.weight_states,
        act_states=case.act_states,
        act_step=act_step(case.act_states),
        norm=norm,
    )
    data = DataConfig(
        source=Source.DIGITS if digits else Source.CIFAR10,
        path=None if digits else options.path,
        cache_dir=options.cache_dir,
        batch_size=BATCH,
        eval_batch_size=100,
        samples_per_epoch=None if digits else BATCH * options.steps,
    )
    return TrainConfig(
        seed=0,
        run=str(run),
        epochs=max(1, options.steps // 22) if digits else 1,
        model=ModelConfig(architecture=case.architecture, width=case.width, quant=quant),
        data=data,
        optim=OptimConfig(lr=4e-3),
        compute=ComputeConfig(threads=torch.get_num_threads()),
    )


def test_images(data: DataConfig, count: int) -> Iterator[NDArray[np.uint8]]:
    """Test images first, then training images, in batches."""
    opened = open_data(replace(data, batch_size=data.eval_batch_size), seed=0)
    left = count
    for images, _ in chain(opened.test_loader(), opened.train_loader()):
        if left <= 0:
            return
        yield images[:left].contiguous().numpy()
        left -= len(images)


def compare(case: Case, options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Trains, lowers, saves, loads and compares one network."""
    run, file = folder / "run", folder / "network.maqd"
    settings = config(case, options, run)
    result = train(settings, overwrite=True, output=Output(sys.stderr, silent=True))
    network, header = load_network(run)
    shape = header.data
    example = torch.zeros(1, shape.in_channels, shape.image_size, shape.image_size, dtype=torch.uint8)
    lowered = lower(network, example)
    container.save(lowered.graph, file)
    graph = container.load(file)
    engines = [TorchEngine(network, graph), OnnxRuntime(graph)]
    verification = verify(graph, engines, test_images(settings.data, options.images))
    return {
        "test_accuracy": result.evaluation.accuracy,
        "images": verification.samples,
        "tensors": verification.engines[0].tensors,
        "values": verification.engines[0].values,
        "different": {engine.name: engine.different for engine in verification.engines},
        "first": [str(engine.first) for engine in verification.engines if engine.first is not None],
        "proved": sum(report.checked for report in lowered.activations),
        "mismatches": sum(report.mismatches for report in lowered.activations),
        "rounded_mismatches": sum(report.rounded_mismatches or 0 for report in lowered.activations),
        "bytes": file.stat().st_size,
    }


def main() -> int:
    """Compares all networks; 1 if a value differs anywhere."""
    parser = options_parser(__doc__, data=True, threads=True)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=100, help="training steps of each network")
    parser.add_argument("--width", type=float, default=0.25, help="of the CIFAR-10 networks")
    parser.add_argument("--states", nargs="+", help='such as "3,4"; all by default')
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pairs = STATES if options.states is None else [tuple(map(int, pair.split(","))) for pair in options.states]
    networks = [Architecture.DIGITS]
    if options.path is not None:
        networks += [Architecture.VGG16, Architecture.PREACT_RESNET18]
    figures: dict[str, object] = {}
    wrong = 0
    for architecture in networks:
        width = 1.0 if architecture is Architecture.DIGITS else options.width
        for weight_states, act_states in pairs:
            case = Case(architecture=architecture, weight_states=weight_states, act_states=act_states, width=width)
            with tempfile.TemporaryDirectory() as folder:
                found = compare(case, options, Path(folder))
            figures[case.name] = found
            different = found["different"]
            wrong += sum(different.values()) if isinstance(different, dict) else 0
            if not options.json:
                print(
                    f"{case.name:<24} accuracy {100 * float(str(found['test_accuracy'])):.1f}%  "
                    f"{found['images']} images, {found['tensors']} tensors, {found['values']} values  "
                    f"different {different}  proved {found['proved']}, rounding would fail in "
                    f"{found['rounded_mismatches']}  {found['bytes']} bytes",
                    flush=True,
                )
    figures["different"] = wrong
    if options.json:
        print_json(machine(), figures)
    else:
        print_machine(machine())
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
