"""Experiment `sparsity`: shares of non-zero weights and activations over the number of states."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from maqd.experiment.base import Experiment, Found, table, tested
from maqd.experiment.findings import Figure
from maqd.experiment.small import cifar, digits
from maqd.recipes import Budget
from maqd.report.sparsity import activations, nonzero_ratio, weights
from maqd.settings.data import Source
from maqd.settings.model import Architecture
from maqd.settings.phases import Phase
from maqd.settings.quantization import QuantConfig, act_step
from maqd.training.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

WEIGHTS = (2, 3, 4, 5, 7, 15)
ACTIVATIONS = (2, 4, 8, 16)
FIXED = 4, 3
"""M_a where M_w varies, and M_w where M_a does."""
IMAGES = 1000


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network with states in all of its layers.

    Args:
        weight_states: M_w.
        act_states: M_a.
        full: Whether the training is the long one.
    """

    weight_states: int
    act_states: int
    full: bool = False


class Sparsity(Experiment[Trained]):
    """Digits for the CPU, VGG-16 on CIFAR-10 at full length."""

    name = "sparsity"
    title = "Shares of non-zero weights and activations"
    source = "MaQD, figure 6"
    text = (
        "R_w is the share of weights that are not zero, R_a that of activations, over all layers (each value counts "
        "once) on test images. An even number of weight states has no zero: there R_w is 1."
    )

    def points(self, budget: Budget) -> Sequence[Trained]:
        full = budget is Budget.FULL
        states = [*((count, FIXED[0]) for count in WEIGHTS), *((FIXED[1], count) for count in ACTIVATIONS)]
        return [Trained(weight_states=weight, act_states=act, full=full) for weight, act in dict.fromkeys(states)]

    def seeds(self, budget: Budget) -> int:
        return 3 if budget is Budget.CPU else 1

    def phases(self, point: Trained) -> tuple[Phase, ...]:
        quant = QuantConfig(
            weight_states=point.weight_states, act_states=point.act_states, act_step=act_step(point.act_states)
        )
        if point.full:
            config = cifar(Architecture.VGG16, quant, Budget.FULL, source=Source.CIFAR10)
        else:
            config = digits(quant, epochs=8)
        name = f"sparsity_w{point.weight_states}_a{point.act_states}{'_full' * point.full}"
        return (Phase(name=name, config=config),)

    def figures(self, point: Trained, seed: int, run: Run | None) -> Mapping[str, Figure]:
        run, result = tested(run)
        of_weights = weights(run.network)
        images = (torch.from_numpy(inputs[0]) for inputs in run.test_inputs(IMAGES))
        of_activations = activations(run.network, images)
        return {
            "accuracy": 100 * result.accuracy,
            "r_w": nonzero_ratio(of_weights),
            "r_a": nonzero_ratio(of_activations),
            "r_w_by_layer": [layer.nonzero / layer.count for layer in of_weights],
            "r_a_by_layer": [layer.nonzero / layer.count for layer in of_activations],
        }

    def lines(self, found: Found) -> Iterator[str]:
        for full in (False, True):
            points = self.points(Budget.FULL if full else Budget.CPU)
            if not any(found.of(point) for point in points):
                continue
            yield f"\n{'VGG-16 on CIFAR-10' if full else 'digits, 8 epochs'}\n"
            rows = [
                (
                    f"({point.weight_states},{point.act_states})",
                    found.text(point, "r_w", 3),
                    found.text(point, "r_a", 3),
                    found.text(point, "accuracy"),
                )
                for point in points
            ]
            yield from table(("(M_w,M_a)", "R_w", "R_a", "test accuracy, %"), rows)

    def draw(self, found: Found, picture: "Picture") -> None:
        full = any(one.point["full"] for one in found.findings)
        axes: Any = picture.subplots(1, 2, sharey=True)
        over_weights = [Trained(weight_states=count, act_states=FIXED[0], full=full) for count in WEIGHTS]
        over_activations = [Trained(weight_states=FIXED[1], act_states=count, full=full) for count in ACTIVATIONS]
        for axis, points, attribute, title in (
            (axes[0], over_weights, "weight_states", f"M_a = {FIXED[0]}"),
            (axes[1], over_activations, "act_states", f"M_w = {FIXED[1]}"),
        ):
            known = [point for point in points if found.of(point)]
            x = [getattr(point, attribute) for point in known]
            for name, label, color in (("r_w", "R_w", "C0"), ("r_a", "R_a", "C1")):
                # R_w of odd and of even numbers of states are no one line.
                style = "o" if name == "r_w" and attribute == "weight_states" else "o-"
                axis.plot(x, [found.mean(point, name) for point in known], style, label=label, color=color)
                layers = [found.of(point)[0].numbers(f"{name}_by_layer") for point in known]
                for of_layer in zip(*layers, strict=True):
                    axis.plot(x, of_layer, style, color=color, alpha=0.25, linewidth=0.8, markersize=3)
            axis.set_xscale("log", base=2)
            axis.set_xticks(x, [str(value) for value in x])
            axis.set_xlabel("M_w" if attribute == "weight_states" else "M_a")
            axis.set_title(f"{title}; pale: single layers")
            axis.grid(alpha=0.3)
        axes[0].set_ylim(0, 1.03)
        axes[0].set_ylabel("share that is not zero")
        axes[0].legend()
