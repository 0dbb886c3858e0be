"""Experiment `single-step`: networks of two activation states as spiking networks of one step."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from maqd.experiment.base import Experiment, Found, table, tested
from maqd.experiment.findings import Figure
from maqd.experiment.small import cifar, digits
from maqd.graph import Graph, Weighted, interpreter
from maqd.numerics.packing import PackedCodes
from maqd.numerics.states import States
from maqd.recipes import Budget
from maqd.report.energy import Operations
from maqd.runtime.inputs import prepare
from maqd.settings.data import Source
from maqd.settings.model import Architecture
from maqd.settings.phases import Phase
from maqd.settings.quantization import QuantConfig, act_step
from maqd.training.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

STATES = (2, 4, 8)
IMAGES = 100
TERNARY = States(count=3, signed=True)


@dataclass(frozen=True, kw_only=True)
class Steps:
    """A network of three weight states.

    Args:
        act_states: M_a; as spikes it takes M_a - 1 steps.
        full: Whether the training is the long one.
    """

    act_states: int
    full: bool = False


class SingleStep(Experiment[Steps]):
    """Digits for the CPU, VGG-16 on CIFAR-10 at full length."""

    name = "single-step"
    title = "A spiking network of one step"
    source = "MaQD, section on spiking networks"
    text = (
        "M_w = 3. An event is a product of a weight and an activation that are both not zero: in hidden layers of "
        "M_a = 2 it adds or subtracts 1, as a spike does. Layers that read pixels multiply, and are counted apart. "
        "Energy is the arithmetic of a 45 nm process (Horowitz, 2014): events, against every multiplication of the "
        "float network. Memory traffic is left out."
    )

    def points(self, budget: Budget) -> Sequence[Steps]:
        return [Steps(act_states=count, full=budget is Budget.FULL) for count in STATES]

    def seeds(self, budget: Budget) -> int:
        return 3 if budget is Budget.CPU else 1

    def phases(self, point: Steps) -> tuple[Phase, ...]:
        quant = QuantConfig(act_states=point.act_states, act_step=act_step(point.act_states))
        if point.full:
            config = cifar(Architecture.VGG16, quant, Budget.FULL, source=Source.CIFAR10)
        else:
            config = digits(quant, epochs=12)
        return (Phase(name=f"single_step_a{point.act_states}{'_full' * point.full}", config=config),)

    def figures(self, point: Steps, seed: int, run: Run | None) -> Mapping[str, Figure]:
        run, result = tested(run)
        images = np.concatenate([batch[0] for batch in run.test_inputs(IMAGES)])
        operations = count_events(run.graph, images)
        hidden = [one for name, one in operations.items() if name not in _reading_input(run.graph)]
        return {
            "accuracy": 100 * result.accuracy,
            "macs": float(sum(one.macs for one in operations.values())),
            "hidden_macs": float(sum(one.macs for one in hidden)),
            "hidden_events": sum(one.events for one in hidden),
            "float_nanojoules": sum(one.float_picojoules for one in operations.values()) / 1000,
            "nanojoules": sum(one.picojoules for one in operations.values()) / 1000,
        }

    def lines(self, found: Found) -> Iterator[str]:
        for full in (False, True):
            points = self.points(Budget.FULL if full else Budget.CPU)
            if not any(found.of(point) for point in points):
                continue
            yield f"\n{'VGG-16 on CIFAR-10' if full else 'digits, 12 epochs'}\n"
            rows = []
            for point in points:
                events, macs = found.mean(point, "hidden_events"), found.mean(point, "hidden_macs")
                share = "" if events is None or macs is None else f"{100 * events / macs:.1f}%"
                rows.append(
                    (
                        str(point.act_states),
                        str(point.act_states - 1),
                        found.text(point, "accuracy"),
                        found.text(point, "hidden_events", 0),
                        share,
                        found.text(point, "nanojoules"),
                        found.text(point, "float_nanojoules"),
                    )
                )
            yield from table(
                (
                    "M_a", "steps", "test accuracy, %", "events in hidden layers", "of all products",
                    "energy, nJ", "float, nJ",
                ),
                rows,
            )  # fmt: skip

    def draw(self, found: Found, picture: "Picture") -> None:
        axes: Any = picture.subplots(1, 2)
        full = any(one.point["full"] for one in found.findings)
        points = [point for point in self.points(Budget.FULL if full else Budget.CPU) if found.of(point)]
        for place, point in enumerate(points):
            dense, events = found.mean(point, "hidden_macs"), found.mean(point, "hidden_events")
            axes[0].bar(place - 0.2, dense, width=0.4, color="C1", label="dense" if not place else None)
            axes[0].bar(place + 0.2, events, width=0.4, color="C0", label="events" if not place else None)
            values = found.values(point, "accuracy")
            axes[1].plot([place] * len(values), values, "o", color="C0")
        for axis, title in zip(axes, ("operations of hidden layers", "test accuracy in %, each seed"), strict=True):
            axis.set_xticks(range(len(points)), [f"M_a = {point.act_states}" for point in points])
            axis.set_title(title)
            axis.grid(alpha=0.3, axis="y")
        axes[0].margins(y=0.2)
        axes[0].legend(ncols=2, loc="upper center")


def count_events(graph: Graph, images: np.ndarray) -> dict[str, Operations]:
    """Operations of an image in each layer with weights, exactly.

    Args:
        graph: The graph, of one input.
        images: A batch for it.
    """
    tensors = dict(interpreter.layers(graph, *prepare(graph, images).codes))
    found: dict[str, Operations] = {}
    for node in graph.nodes:
        if not isinstance(node, Weighted):
            continue
        # The same layer of ones, where there is something: its sums are numbers of events.
        there = PackedCodes.pack((node.weight.unpack() != 0).astype(np.int8), TERNARY)
        counted = replace(node, weight=there, bias=None).compute((tensors[node.inputs[0]] != 0).astype(np.int64))
        grid = graph.types[node.inputs[0]].grid
        found[node.name] = Operations(
            macs=graph.macs(node.name),
            events=float(counted.sum()) / len(images),
            products=node.weight.states.magnitude > 1 and grid.magnitude > 1,
        )
    return found


def _reading_input(graph: Graph) -> set[str]:
    names = {node.name for node in graph.inputs}
    return {node.name for node in graph.nodes if isinstance(node, Weighted) and names & set(node.inputs)}
