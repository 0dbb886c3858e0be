"""Experiment `states`: accuracy over a grid of M_w and M_a."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maqd.experiment.base import Experiment, Found, table, tested
from maqd.experiment.findings import Figure
from maqd.experiment.small import cifar, quantization
from maqd.recipes import Budget
from maqd.settings.data import Source
from maqd.settings.model import Architecture
from maqd.settings.phases import Phase
from maqd.settings.quantization import Norm
from maqd.training.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

CPU_CELLS = ((None, None), (3, None), (None, 4), (15, 16), (3, 8), (3, 4), (3, 2), (2, 2))
WEIGHTS = (None, 7, 5, 3, 2)
ACTIVATIONS = (None, 16, 8, 4, 2)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A network with states.

    Args:
        architecture: Which network.
        data: Which images.
        weight_states: M_w; None in float.
        act_states: M_a; None with ReLU.
        full: Whether the training is the long one.
    """

    architecture: Architecture
    data: Source
    weight_states: int | None
    act_states: int | None
    full: bool = False


class StateGrid(Experiment[Cell]):
    """The narrow VGG for the CPU, VGG-16 and PreActResNet-18 at full length."""

    name = "states"
    title = "States of weights and activations"
    source = "MaQD, tables 1 to 4"
    text = (
        "Test accuracy in percent. Weights in float are not standardized; activations in float are ReLU. First layer "
        "and head have 15 weight states, or more. Layer-Batch Normalization in VGG, its levelled form in PreActResNet."
    )

    def points(self, budget: Budget) -> Sequence[Cell]:
        if budget is Budget.CPU:
            return [
                Cell(architecture=Architecture.VGG_NARROW, data=Source.CIFAR10, weight_states=weight, act_states=act)
                for weight, act in CPU_CELLS
            ]
        return [
            Cell(architecture=architecture, data=data, weight_states=weight, act_states=act, full=True)
            for data in (Source.CIFAR10, Source.CIFAR100)
            for architecture in (Architecture.VGG16, Architecture.PREACT_RESNET18)
            for weight in WEIGHTS
            for act in ACTIVATIONS
        ]

    def seeds(self, budget: Budget) -> int:
        return 2 if budget is Budget.CPU else 3

    def phases(self, point: Cell) -> tuple[Phase, ...]:
        norm = Norm.LEVELLED_LBN if point.architecture is Architecture.PREACT_RESNET18 else Norm.LBN
        quant = quantization(point.weight_states, point.act_states, norm=norm)
        budget = Budget.FULL if point.full else Budget.CPU
        config = cifar(point.architecture, quant, budget, source=point.data)
        name = f"{point.architecture.value}_{point.data.value}_w{point.weight_states}_a{point.act_states}"
        return (Phase(name=f"{name}{'_full' * point.full}", config=config),)

    def figures(self, point: Cell, seed: int, run: Run | None) -> Mapping[str, Figure]:
        _, result = tested(run)
        return {"accuracy": 100 * result.accuracy, "test_loss": result.loss}

    def lines(self, found: Found) -> Iterator[str]:
        for cells in _grids(found):
            first = cells[0]
            weights = list(dict.fromkeys(cell.weight_states for cell in cells))
            activations = list(dict.fromkeys(cell.act_states for cell in cells))
            length = "200 epochs" if first.full else "2 epochs of 25,600 images"
            yield f"\n{first.architecture.value} on {first.data.value}, {length}\n"
            rows = []
            for weight in weights:
                row = [_states(weight)]
                for act in activations:
                    known = [cell for cell in cells if (cell.weight_states, cell.act_states) == (weight, act)]
                    row.append(found.text(known[0], "accuracy") if known else "")
                rows.append(row)
            yield from table(("M_w / M_a", *(_states(act) for act in activations)), rows)

    def draw(self, found: Found, picture: "Picture") -> None:
        grids = list(_grids(found))
        axes: Any = picture.subplots(1, max(1, len(grids)), squeeze=False)
        for axis, cells in zip(axes[0], grids, strict=False):
            known = [cell for cell in cells if found.of(cell)]
            names = [f"({_states(cell.weight_states)},{_states(cell.act_states)})" for cell in known]
            for place, cell in enumerate(known):
                values = found.values(cell, "accuracy")
                axis.bar(place, sum(values) / len(values), color="C0", alpha=0.7)
                axis.plot([place] * len(values), values, "k.", markersize=4)
            axis.set_xticks(range(len(names)), names, rotation=45, fontsize=8)
            lowest = min((min(found.values(cell, "accuracy")) for cell in known), default=0.0)
            axis.set_ylim(bottom=max(0.0, lowest - 5))
            axis.set_title(f"{cells[0].architecture.value} on {cells[0].data.value}: (M_w, M_a)")
            axis.set_ylabel("test accuracy in %")
            axis.grid(alpha=0.3, axis="y")


def _grids(found: Found) -> Iterator[list[Cell]]:
    """The points of each network, data set and length of which something is measured."""
    for budget in Budget:
        groups: dict[tuple[Architecture, Source], list[Cell]] = {}
        for cell in StateGrid().points(budget):
            groups.setdefault((cell.architecture, cell.data), []).append(cell)
        yield from (cells for cells in groups.values() if any(found.of(cell) for cell in cells))


def _states(count: int | None) -> str:
    return "float" if count is None else str(count)
