"""Experiment `batch-size`: normalizations over mini-batch sizes, and the memory that each keeps."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from maqd.experiment.base import Experiment, Found, table, tested
from maqd.experiment.findings import Figure
from maqd.experiment.small import cifar, digits
from maqd.models import build_model
from maqd.recipes import Budget
from maqd.settings.data import Source
from maqd.settings.model import Architecture
from maqd.settings.phases import Phase
from maqd.settings.quantization import Norm, QuantConfig, WeightMethod
from maqd.settings.training import TrainConfig
from maqd.training.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

BATCHES = {Budget.CPU: (1, 2, 8, 32, 128, 512), Budget.FULL: (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)}
NORMS = (Norm.BN, Norm.LN, Norm.LBN, Norm.LEVELLED_LBN)
METHODS = (WeightMethod.MAQD, WeightMethod.PLAIN)
DIGITS = 1437
"""Training images of the digits."""
PEAK = 4e-3
"""Learning rate at batch 128; it goes with the root of the batch size."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training of one batch size.

    Args:
        norm: Which normalization.
        weights: MaQD's weights, or those without standardization.
        batch: Images of a mini-batch.
        full: Whether it is the long one.
    """

    norm: Norm
    weights: WeightMethod
    batch: int
    full: bool = False


class BatchSize(Experiment[Training]):
    """Digits for the CPU, the narrow VGG on CIFAR-10 at full length."""

    name = "batch-size"
    size = (10, 7)
    title = "Mini-batch sizes"
    source = "MaQD, figure 5"
    text = (
        "M_w = 3, M_a = 4. All see the same images; the learning rate goes with the root of the mini-batch size. Layer "
        "normalization (LN) is here to compare: it cannot be folded. Without weight standardization the step of the "
        "weights stays what it was at initialization. Memory: bytes that one training step keeps for its backward pass."
    )

    def points(self, budget: Budget) -> Sequence[Training]:
        full = budget is Budget.FULL
        return [
            Training(norm=norm, weights=weights, batch=batch, full=full)
            for weights in METHODS
            for norm in NORMS
            for batch in BATCHES[budget]
        ]

    def seeds(self, budget: Budget) -> int:
        return 2 if budget is Budget.CPU else 3

    def phases(self, point: Training) -> tuple[Phase, ...]:
        name = f"batch_{point.norm.value}_{point.weights.value}_{point.batch}{'_full' * point.full}"
        return (Phase(name=name, config=_config(point)),)

    def figures(self, point: Training, seed: int, run: Run | None) -> Mapping[str, Figure]:
        run, result = tested(run)
        losses = [entry["loss"] for entry in run.metrics if entry["event"] == "train"]
        return {
            "train_loss": losses[-1],
            "test_loss": result.loss,
            "accuracy": 100 * result.accuracy,
            "kept_bytes": kept_bytes(_config(point), seed),
        }

    def lines(self, found: Found) -> Iterator[str]:
        for full in (False, True):
            batches = BATCHES[Budget.FULL if full else Budget.CPU]
            for weights in METHODS:
                cells = {
                    (norm, batch): Training(norm=norm, weights=weights, batch=batch, full=full)
                    for norm in NORMS
                    for batch in batches
                }
                if not any(found.of(point) for point in cells.values()):
                    continue
                network = "narrow VGG" if full else "digits"
                how = "with" if weights is WeightMethod.MAQD else "without"
                yield f"\n{network}, {how} weight standardization: test accuracy in percent\n"
                rows = [
                    (str(batch), *(found.text(cells[norm, batch], "accuracy") for norm in NORMS)) for batch in batches
                ]
                yield from table(("batch", *(norm.value for norm in NORMS)), rows)

    def draw(self, found: Found, picture: "Picture") -> None:
        axes: Any = picture.subplots(2, 2)
        full = any(one.point["full"] for one in found.findings)
        batches = BATCHES[Budget.FULL if full else Budget.CPU]
        panels = (
            (axes[0, 0], "train_loss", METHODS[0], "training loss, standardized weights"),
            (axes[0, 1], "accuracy", METHODS[0], "test accuracy in %, standardized weights"),
            (axes[1, 0], "accuracy", METHODS[1], "test accuracy in %, plain weights"),
            (axes[1, 1], "kept_bytes", METHODS[0], "bytes kept for the backward pass"),
        )
        for axis, name, weights, title in panels:
            for norm in NORMS:
                points = [Training(norm=norm, weights=weights, batch=batch, full=full) for batch in batches]
                known = [(point.batch, found.mean(point, name)) for point in points if found.of(point)]
                axis.plot([batch for batch, _ in known], [value for _, value in known], "o-", label=norm.value)
            axis.set_xscale("log", base=2)
            if name == "kept_bytes":
                axis.set_yscale("log")
            axis.set_title(title)
            axis.set_xlabel("mini-batch size")
            axis.grid(alpha=0.3)
        axes[0, 0].legend(fontsize=8)


def _config(point: Training) -> TrainConfig:
    quant = QuantConfig(norm=point.norm, weight_method=point.weights)
    lr = PEAK * math.sqrt(point.batch / 128)
    if not point.full:
        # One line of metrics an epoch: the training loss is the mean of the last one.
        return replace(digits(quant, epochs=4, batch=point.batch, lr=lr), log_every=max(1, DIGITS // point.batch))
    config = cifar(Architecture.VGG_NARROW, quant, Budget.FULL, source=Source.CIFAR10)
    config = replace(config, data=replace(config.data, batch_size=point.batch), optim=replace(config.optim, lr=lr))
    return replace(config, epochs=30, evaluate_every=30)


def kept_bytes(config: TrainConfig, seed: int) -> int:
    """Bytes of the tensors that a training step keeps for its backward pass, each storage once, without parameters.

    Args:
        config: Of the run; its batch size counts.
        seed: Of the network.
    """
    torch.manual_seed(seed)
    channels, size = (1, 8) if config.data.source is Source.DIGITS else (3, 32)
    network = build_model(config.model, in_channels=channels, num_classes=10, image_size=size).train()
    own = {parameter.data_ptr() for parameter in (*network.parameters(), *network.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    images = torch.zeros(config.data.batch_size, channels, size, size, dtype=torch.uint8)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = network(images).float().sum()
    del loss
    return sum(kept.values())
