"""Experiment `functions`: the scaled round-clip functions and their surrogate gradients."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from maqd.experiment.base import Experiment, Found, table
from maqd.experiment.findings import Figure
from maqd.nn import Quantizer, Surrogate
from maqd.nn.functional import quantize_activation
from maqd.nn.quantizers import RoundClip
from maqd.numerics.states import States, gaussian_step
from maqd.recipes import Budget
from maqd.settings.quantization import Profile
from maqd.training.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

WEIGHT_STATES = (2, 3, 4, 5, 8, 15)
ACT_STATES = (2, 3, 4, 8)
POINTS = 801
"""Of a curve."""


@dataclass(frozen=True, kw_only=True)
class Function:
    """A scaled round-clip function.

    Args:
        states: M.
        signed: Of weights, or of activations.
    """

    states: int
    signed: bool


class Functions(Experiment[Function]):
    """No training: what the functions of `maqd.nn` return."""

    name = "functions"
    title = "The scaled round-clip functions"
    source = "MaQD, figures 2 and 3"
    text = (
        "Weights, standardized per filter, and activations, normalized, against the states that they take. The step of "
        "weights is the best uniform one for a normal distribution; its mean squared error there is the rounding noise "
        "of a layer. Surrogate gradients stand for the derivative in training."
    )

    def points(self, budget: Budget) -> Sequence[Function]:
        return [
            *(Function(states=count, signed=True) for count in WEIGHT_STATES),
            *(Function(states=count, signed=False) for count in ACT_STATES),
        ]

    def figures(self, point: Function, seed: int, run: Run | None) -> Mapping[str, Figure]:
        states = States(count=point.states, signed=point.signed)
        step = gaussian_step(point.states) if point.signed else 1.0
        error, zero = _noise(states, step)
        return {"step": step, "squared_error": error, "zero": zero, "bits": states.bits}

    def lines(self, found: Found) -> Iterator[str]:
        rows = []
        for count in WEIGHT_STATES:
            point = Function(states=count, signed=True)
            figures = [found.text(point, name, 4) for name in ("step", "squared_error", "zero", "bits")]
            rows.append((str(count), *figures))
        yield from table(("M_w", "step", "squared error of a unit normal", "share of zeros", "bits a weight"), rows)

    def draw(self, found: Found, picture: "Picture") -> None:
        weights, activations, surrogates = picture.subplots(1, 3)
        x = torch.linspace(-3, 3, POINTS)
        for count in WEIGHT_STATES:
            states = States(count=count, signed=True)
            quantizer = RoundClip(states=states)
            index = ((x / quantizer.distance + states.origin + 0.5).floor()).clamp(0, count - 1)
            _line(weights, x, (index - states.origin) * quantizer.distance, f"M = {count}")
        y = torch.linspace(-2, 8, POINTS)
        for count in ACT_STATES:
            quantizer = Quantizer(states=States(count=count, signed=False))
            _line(activations, y, quantize_activation(y, quantizer), f"M = {count}")
        z = torch.linspace(-3, 6, POINTS)
        for profile in Profile:
            quantizer = Quantizer(states=States(count=4, signed=False), surrogate=Surrogate(profile=profile))
            leaf = z.clone().requires_grad_()
            quantize_activation(leaf, quantizer).sum().backward()
            assert leaf.grad is not None
            _line(surrogates, z, leaf.grad, profile.value)
        for axis, title, label in (
            (weights, "weights", "standardized weight"),
            (activations, "activations, step 1", "normalized value"),
            (surrogates, "surrogate gradients, M = 4", "normalized value"),
        ):
            axis.set_title(title)
            axis.set_xlabel(label)
            axis.legend(fontsize=7)
            axis.grid(alpha=0.3)


def _line(axis: Any, x: torch.Tensor, y: torch.Tensor, label: str) -> None:
    axis.plot(x.numpy(), y.numpy(), label=label, linewidth=1.2)


def _noise(states: States, step: float) -> tuple[float, float]:
    """Mean squared error of a unit normal's rounding, and the share of values that become zero, by quadrature."""
    x = np.linspace(-8, 8, 200_001)
    density = np.exp(-x * x / 2)
    density /= density.sum()
    index = np.clip(np.floor(x / step + states.origin + 0.5), 0, states.count - 1)
    values = (index - states.origin) * step
    return float(((x - values) ** 2 * density).sum()), float(density[values == 0].sum())
