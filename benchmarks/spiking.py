"""Spiking networks on the digits, four ways, with the same layers and the same training.

    python benchmarks/spiking.py [--epochs 24] [--seeds 1] [--json]

- maqd: ternary weights and 4 activation states, as neurons that integrate a window and then drain (exact, 9 steps);
- QCFS: an ANN with quantization clip-floor-shift activations of 4 levels (Bu et al., ICLR 2022, arXiv 2303.04347),
  converted to free-running neurons with soft reset that start at half their threshold, float weights;
- SpikingJelly and snnTorch: networks of integrate-and-fire neurons trained through T = 4 steps with the libraries' own
  arctan surrogate, float weights. Each is left out where it is not installed.

Layers: convolutions to 16, 32, 64 maps with normalization, pooling by 2 after the second and third, a linear head.
Adam with one learning rate for all, the same batches. Prints test accuracy, steps and spikes a sample.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness import machine, options_parser, print_json, print_machine
from maqd.data import DataConfig, Source, open_data
from maqd.errors import MissingDependencyError
from maqd.lowering import lower
from maqd.models import Architecture, ModelConfig, build_model
from maqd.nn import QuantConfig
from maqd.optional import require
from maqd.spiking import SpikingNetwork, run_drained

LEVELS = 4
"""States of an activation, levels of QCFS and steps of trained neurons."""
STEPS = (1, 2, 4, 8, 16, 32)
"""Steps of the converted network."""
BATCH = 64
Batch = tuple[Tensor, Tensor]


class ClipFloorShift(nn.Module):
    """QCFS: scale * clip(floor(x L / scale + 1/2) / L, 0, 1), straight-through; in time, neurons of that threshold."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))
        self.steps = 0
        self.spikes = 0.0

    def forward(self, x: Tensor) -> Tensor:
        if self.steps:
            return self._spike(x)
        level = torch.clamp(x * LEVELS / self.scale + 0.5, 0, LEVELS)
        return self.scale / LEVELS * (level + (torch.floor(level) - level).detach())

    def _spike(self, x: Tensor) -> Tensor:
        frames = x.unflatten(0, (self.steps, -1))
        v = torch.full_like(frames[0], 0.5) * self.scale
        sent = []
        for frame in frames:
            v = v + frame
            fired = (v >= self.scale).to(v.dtype)
            v = v - fired * self.scale
            sent.append(fired)
        self.spikes += float(torch.stack(sent).sum())
        return torch.stack(sent).flatten(0, 1) * self.scale


class Simulated(nn.Module):
    """A library's neurons over T frames in a batch of T * N."""

    def __init__(self, make: Callable[[], Any], reset: Callable[[Any], None]) -> None:
        super().__init__()
        self.neuron, self.reset = make(), reset
        self.spikes = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.reset(self.neuron)
        sent = torch.stack([self.neuron(frame) for frame in x.unflatten(0, (LEVELS, -1))])
        self.spikes += float(sent.detach().sum())
        return sent.flatten(0, 1)


def layers(act: Callable[[], nn.Module], pool: Callable[[int], nn.Module]) -> nn.Sequential:
    """The network of the demo with other activations."""
    sizes = ((1, 16), (16, 32), (32, 64))
    blocks: list[nn.Module] = []
    for place, (inputs, outputs) in enumerate(sizes):
        blocks += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), act()]
        blocks += [pool(2)] if place else []
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(256, 10))


def scaled(images: Tensor) -> Tensor:
    """Pixels as floats about 0."""
    return (images.float() - 128) / 64


def in_time(network: nn.Module, steps: int) -> Callable[[Tensor], Tensor]:
    """The mean logits over frames that are all the same image: a constant current."""

    def forward(images: Tensor) -> Tensor:
        frames = scaled(images).expand(steps, *images.shape).flatten(0, 1)
        return network(frames).unflatten(0, (steps, -1)).mean(0)

    return forward


def train(network: nn.Module, forward: Callable[[Tensor], Tensor], batches: Callable[[], Iterator[Batch]],
          epochs: int) -> None:  # fmt: skip
    """Adam with a cosine schedule."""
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    network.train()
    for _ in range(epochs):
        for images, labels in batches():
            optimizer.zero_grad()
            F.cross_entropy(forward(images), labels).backward()
            optimizer.step()
        schedule.step()
    network.eval()


@torch.no_grad()
def accuracy(forward: Callable[[Tensor], Tensor], test: list[Batch]) -> float:
    """Share of right answers."""
    right = sum(int((forward(images).argmax(1) == labels).sum()) for images, labels in test)
    return right / sum(len(labels) for _, labels in test)


def spikes_of(network: nn.Module, forward: Callable[[Tensor], Tensor], test: list[Batch]) -> float:
    """Spikes a sample on the test set."""
    counted: list[Any] = [one for one in network.modules() if hasattr(one, "spikes")]
    for one in counted:
        one.spikes = 0.0
    accuracy(forward, test)
    return sum(one.spikes for one in counted) / sum(len(labels) for _, labels in test)


def row(name: str, steps: int, right: float, spikes: float) -> dict[str, object]:
    """A line of the table."""
    return {"method": name, "steps": steps, "accuracy": right, "spikes": spikes}


def own(batches: Callable[[], Iterator[Batch]], test: list[Batch], epochs: int) -> list[dict[str, object]]:
    """maqd, drained."""
    quant = QuantConfig(weight_states=3, act_states=LEVELS)
    config = ModelConfig(architecture=Architecture.DIGITS, quant=quant)
    network = build_model(config, in_channels=1, num_classes=10, image_size=8)
    train(network, network, batches, epochs)
    graph = lower(network, test[0][0]).graph
    spiking = SpikingNetwork(graph)
    right = spikes = 0
    for images, labels in test:
        found = run_drained(spiking, images.numpy().astype(np.int64) - 128)
        logits = found.tensors[graph.output.name]
        right += int((logits.argmax(1) == labels.numpy()).sum())
        spikes += sum(int(one.spikes.sum()) for one in found.activities.values())
    count = sum(len(labels) for _, labels in test)
    return [row("maqd, ternary weights, drained", spiking.latency, right / count, spikes / count)]


def converted(batches: Callable[[], Iterator[Batch]], test: list[Batch], epochs: int) -> list[dict[str, object]]:
    """QCFS: the ANN, and its spiking network over more and more steps."""
    network = layers(ClipFloorShift, nn.AvgPool2d)
    train(network, lambda images: network(scaled(images)), batches, epochs)
    rows = [row("QCFS, the ANN", 0, accuracy(lambda images: network(scaled(images)), test), 0)]
    activations = [one for one in network.modules() if isinstance(one, ClipFloorShift)]
    for steps in STEPS:
        for one in activations:
            one.steps = steps
        forward = in_time(network, steps)
        rows.append(row("QCFS, free-running", steps, accuracy(forward, test), spikes_of(network, forward, test)))
    return rows


def trained(name: str, make: Callable[[], nn.Module], batches: Callable[[], Iterator[Batch]], test: list[Batch],
            epochs: int) -> list[dict[str, object]]:  # fmt: skip
    """Neurons of a library, trained through time."""
    network = layers(make, nn.MaxPool2d)
    forward = in_time(network, LEVELS)
    train(network, forward, batches, epochs)
    return [row(name, LEVELS, accuracy(forward, test), spikes_of(network, forward, test))]


def libraries() -> dict[str, Callable[[], nn.Module]]:
    """Neurons of the libraries that are installed."""
    found: dict[str, Callable[[], nn.Module]] = {}
    with contextlib.suppress(MissingDependencyError):
        functional = require("spikingjelly.activation_based.functional", "a row")
        neuron = require("spikingjelly.activation_based.neuron", "a row")
        found["SpikingJelly, trained"] = lambda: Simulated(neuron.IFNode, functional.reset_net)
    with contextlib.suppress(MissingDependencyError):
        snn = require("snntorch", "a row")
        found["snnTorch, trained"] = lambda: Simulated(
            lambda: snn.Leaky(beta=0.5, init_hidden=True), lambda one: one.reset_mem()
        )
    return found


def main() -> int:
    """Prints the table."""
    parser = options_parser(__doc__, threads=True, seeds=True)
    parser.add_argument("--epochs", type=int, default=16, help="of each training (16)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[dict[str, object]] = []
    for seed in range(options.seeds):
        data = open_data(DataConfig(source=Source.DIGITS, batch_size=BATCH), seed=seed)
        test: list[Batch] = [(images, labels) for images, labels in data.test_loader()]
        samples: list[Batch] = [(images, labels) for images, labels in data.train_loader()]
        images, labels = (torch.cat(parts) for parts in zip(*samples, strict=True))

        def batches(images: Tensor = images, labels: Tensor = labels) -> Iterator[Batch]:
            for places in torch.randperm(len(images)).split(BATCH):
                yield images[places], labels[places]

        runs: list[Callable[[], list[dict[str, object]]]] = [
            lambda b=batches, t=test: own(b, t, options.epochs),
            lambda b=batches, t=test: converted(b, t, options.epochs),
            *(
                lambda b=batches, t=test, n=name, m=make: trained(n, m, b, t, options.epochs)
                for name, make in libraries().items()
            ),
        ]
        for run in runs:
            torch.manual_seed(seed)
            start = time.perf_counter()
            found = run()
            for one in found:
                rows.append({**one, "seed": seed, "seconds": time.perf_counter() - start})
                if not options.json:
                    print(
                        f"{one['method']:<32} {one['steps']:>3} steps  {100 * float(str(one['accuracy'])):6.2f}%  "
                        f"{float(str(one['spikes'])):10,.0f} spikes a sample  seed {seed}",
                        flush=True,
                    )
    if options.json:
        print_json(machine(), {"rows": rows})
    else:
        print_machine(machine())
    return 0


if __name__ == "__main__":
    sys.exit(main())
