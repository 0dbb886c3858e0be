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

NORMS = (Norm.BN, Norm.LBN, Norm.LN, Norm.LEVELLED_LBN)
METHODS = (WeightMethod.MAQD, WeightMethod.PLAIN)
DIGITS_BATCHES = (1, 2, 8, 32, 128, 512)
CIFAR_BATCHES = (2, 8, 64)
CIFAR_NORMS = (Norm.BN, Norm.LBN)
CIFAR_IMAGES = 12_800
"""Images of a short training on CIFAR-10."""
FULL_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
PEAK = 4e-3
"""Learning rate at batch 128; it goes with the root of the batch size."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training of one batch size.

    Args:
        norm: Which normalization.
        weights: MaQD's weights, or those without standardization.
        batch: Images of a mini-batch.
        data: Digits, or CIFAR-10 for the narrow VGG.
        full: Whether it is the long one.
    """

    norm: Norm
    weights: WeightMethod
    batch: int
    data: Source = Source.DIGITS
    full: bool = False


class BatchSize(Experiment[Training]):
    """Digits and a few points of CIFAR-10 for the CPU, CIFAR-10 at full length."""

    name = "batch-size"
    size = (11, 7)
    title = "Mini-batch sizes"
    source = "MaQD, figure 5"
    text = (
        "M_w = 3, M_a = 4. All see the same images; the learning rate goes with the root of the mini-batch size. Layer "
        "normalization (LN) is here to compare: it cannot be folded. Without weight standardization the step of the "
        "weights stays what it was at initialization. Loss and accuracy of training are means over the last epoch, in "
        "training mode. Kept: bytes that one training step keeps for its backward pass."
    )

    def points(self, budget: Budget) -> Sequence[Training]:
        groups = _groups(budget)
        return [point for group in groups for point in group]

    def seeds(self, budget: Budget) -> int:
        return 2 if budget is Budget.CPU else 3

    def phases(self, point: Training) -> tuple[Phase, ...]:
        data = "" if point.data is Source.DIGITS else f"_{point.data.value}"
        name = f"batch{data}_{point.norm.value}_{point.weights.value}_{point.batch}{'_full' * point.full}"
        return (Phase(name=name, config=_config(point)),)

    def figures(self, point: Training, seed: int, run: Run | None) -> Mapping[str, Figure]:
        run, result = tested(run)
        last = [entry for entry in run.metrics if entry["event"] == "test"][-1]
        return {
            "train_loss": last["train_loss"],
            "train_accuracy": 100 * last["train_accuracy"],
            "test_loss": result.loss,
            "accuracy": 100 * result.accuracy,
            "kept_bytes": kept_bytes(_config(point), seed),
        }

    def lines(self, found: Found) -> Iterator[str]:
        for group in _measured(found):
            cells = {(point.norm, point.batch): point for point in group}
            norms = list(dict.fromkeys(point.norm for point in group))
            batches = sorted({point.batch for point in group})
            yield f"\n{_title(group[0])}: test accuracy in percent\n"
            rows = [(str(batch), *(found.text(cells[norm, batch], "accuracy") for norm in norms)) for batch in batches]
            yield from table(("batch", *(norm.value for norm in norms)), rows)
        for group in _measured(found):
            yield f"\n{_title(group[0])}: everything\n"
            yield from table(
                ("batch", "normalization", "loss", "test loss", "accuracy, %", "test accuracy, %", "kept, KB"),
                [
                    (
                        str(point.batch),
                        point.norm.value,
                        found.text(point, "train_loss", 3),
                        found.text(point, "test_loss", 3),
                        found.text(point, "train_accuracy"),
                        found.text(point, "accuracy"),
                        f"{(found.mean(point, 'kept_bytes') or 0) / 1000:,.0f}",
                    )
                    for point in sorted(group, key=lambda point: point.batch)
                    if found.of(point)
                ],
            )

    def draw(self, found: Found, picture: "Picture") -> None:
        axes: Any = picture.subplots(2, 3)
        groups = list(_measured(found))
        full = [group for group in groups if group[0].full]
        # The long trainings, where there are any: else the short ones of digits.
        shown = full or [group for group in groups if group[0].data is Source.DIGITS]
        plain = [group for group in shown if group[0].weights is WeightMethod.PLAIN]
        standard = [group for group in shown if group[0].weights is WeightMethod.MAQD]
        other = [group for group in groups if group not in shown]
        panels = (
            (axes[0, 0], "train_loss", standard, "training loss"),
            (axes[0, 1], "test_loss", standard, "test loss"),
            (axes[0, 2], "kept_bytes", standard, "bytes kept for the backward pass"),
            (axes[1, 0], "accuracy", standard, "test accuracy in %"),
            (axes[1, 1], "accuracy", plain, "test accuracy in %"),
            (axes[1, 2], "accuracy", other, "test accuracy in %"),
        )
        for axis, name, chosen, title in panels:
            axis.set_visible(bool(chosen))
            for norm in NORMS:
                known = [
                    (point.batch, found.mean(point, name))
                    for group in chosen
                    for point in group
                    if point.norm is norm and found.of(point)
                ]
                color = f"C{NORMS.index(norm)}"
                axis.plot([batch for batch, _ in known], [value for _, value in known], "o-", color=color)
                axis.plot([], [], "o-", color=color, label=norm.value)
            axis.set_xscale("log", base=2)
            if name == "kept_bytes":
                axis.set_yscale("log")
            axis.set_title(f"{title}\n{_title(chosen[0][0]) if chosen else ''}", fontsize=10)
            axis.set_xlabel("mini-batch size")
            axis.grid(alpha=0.3)
        axes[0, 0].legend(fontsize=8)


def _groups(budget: Budget) -> list[list[Training]]:
    """The points by network and weights: a table each."""
    full = budget is Budget.FULL
    data, batches = (Source.CIFAR10, FULL_BATCHES) if full else (Source.DIGITS, DIGITS_BATCHES)
    groups = [
        [Training(norm=norm, weights=weights, batch=batch, data=data, full=full) for norm in NORMS for batch in batches]
        for weights in METHODS
    ]
    if not full:
        few = [
            Training(norm=norm, weights=WeightMethod.MAQD, batch=batch, data=Source.CIFAR10)
            for norm in CIFAR_NORMS
            for batch in CIFAR_BATCHES
        ]
        groups.append(few)
    return groups


def _measured(found: Found) -> Iterator[list[Training]]:
    """The groups of which something is measured."""
    for budget in Budget:
        yield from (group for group in _groups(budget) if any(found.of(point) for point in group))


def _title(point: Training) -> str:
    """Of a table or a panel."""
    network = "digits" if point.data is Source.DIGITS else "narrow VGG on CIFAR-10"
    return f"{network}, {'standardized' if point.weights is WeightMethod.MAQD else 'plain'} weights"


def _config(point: Training) -> TrainConfig:
    quant = QuantConfig(norm=point.norm, weight_method=point.weights)
    lr = PEAK * math.sqrt(point.batch / 128)
    if point.data is Source.DIGITS:
        return digits(quant, epochs=4, batch=point.batch, lr=lr)
    budget = Budget.FULL if point.full else Budget.CPU
    config = cifar(Architecture.VGG_NARROW, quant, budget, source=point.data)
    images = config.data.samples_per_epoch if point.full else CIFAR_IMAGES
    data = replace(config.data, batch_size=point.batch, samples_per_epoch=images)
    epochs = 30 if point.full else 1
    return replace(config, data=data, optim=replace(config.optim, lr=lr), epochs=epochs, evaluate_every=epochs)


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
