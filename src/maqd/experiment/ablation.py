"""Experiment `ablation`: what each ingredient of MaQD is worth."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from maqd.experiment.base import Experiment, Found, table, tested
from maqd.experiment.findings import Figure
from maqd.experiment.small import cifar, digits
from maqd.recipes import Budget
from maqd.settings.data import Source
from maqd.settings.model import Architecture
from maqd.settings.phases import Phase
from maqd.settings.quantization import Affine, Norm, Profile, QuantConfig, Surrogate, WeightMethod
from maqd.training.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture


@dataclass(frozen=True, kw_only=True)
class Change:
    """One ingredient that is another one.

    Args:
        ingredient: Which.
        choice: What it is.
        full: Whether the training is the long one.
    """

    ingredient: str
    choice: str
    full: bool = False


BASE = QuantConfig()
CHOICES: tuple[tuple[str, str, QuantConfig], ...] = (
    ("all as in MaQD", "", BASE),
    *(
        ("normalization", norm.value, replace(BASE, norm=norm))
        for norm in (Norm.BN, Norm.LN, Norm.LEVELLED_LBN, Norm.EBN)
    ),
    ("weights", "not standardized", replace(BASE, weight_method=WeightMethod.PLAIN)),
    *(
        ("surrogate", profile.value, replace(BASE, surrogate=Surrogate(profile=profile)))
        for profile in Profile
        if profile is not Profile.WINDOW
    ),
    *(("surrogate width", f"{width:g}", replace(BASE, surrogate=Surrogate(width=width))) for width in (0.25, 1.0, 2.0)),
    *(("activation step", f"{step:g}", replace(BASE, act_step=step)) for step in (0.25, 0.5, 2.0)),
    *(("weight step", f"{step:g}", replace(BASE, weight_step=step)) for step in (0.6, 0.9, 1.6)),
    *(("scales and offsets", affine.value, replace(BASE, affine=affine)) for affine in (Affine.LAYER, Affine.NONE)),
)
"""Ingredient, choice and the quantization with it."""


class Ablation(Experiment[Change]):
    """Digits for the CPU, the narrow VGG on CIFAR-10 at full length."""

    name = "ablation"
    title = "Ingredients"
    source = "MaQD, sections 3 and 4"
    text = (
        "M_w = 3, M_a = 4; everything else as in the first row: Layer-Batch Normalization, standardized weights with "
        "the best uniform step (1.22 standard deviations), activation step 1, a window of half a step for a surrogate "
        "gradient, a scale and an offset for each channel."
    )

    def points(self, budget: Budget) -> Sequence[Change]:
        full = budget is Budget.FULL
        return [Change(ingredient=ingredient, choice=choice, full=full) for ingredient, choice, _ in CHOICES]

    def seeds(self, budget: Budget) -> int:
        return 3

    def phases(self, point: Change) -> tuple[Phase, ...]:
        number, quant = next(
            (number, quant)
            for number, (ingredient, choice, quant) in enumerate(CHOICES)
            if (ingredient, choice) == (point.ingredient, point.choice)
        )
        if point.full:
            config = cifar(Architecture.VGG_NARROW, quant, Budget.FULL, source=Source.CIFAR10)
        else:
            config = digits(quant, epochs=8)
        return (Phase(name=f"ablation_{number}{'_full' * point.full}", config=config),)

    def figures(self, point: Change, seed: int, run: Run | None) -> Mapping[str, Figure]:
        _, result = tested(run)
        return {"accuracy": 100 * result.accuracy, "test_loss": result.loss}

    def lines(self, found: Found) -> Iterator[str]:
        for full in (False, True):
            points = self.points(Budget.FULL if full else Budget.CPU)
            base = found.mean(points[0], "accuracy")
            if base is None:
                continue
            yield f"\n{'narrow VGG on CIFAR-10' if full else 'digits, 8 epochs'}\n"
            rows = []
            for point in points:
                mean = found.mean(point, "accuracy")
                worth = "" if mean is None else f"{mean - base:+.2f}"
                rows.append((point.ingredient, point.choice, found.text(point, "accuracy"), worth))
            yield from table(("ingredient", "instead", "test accuracy, %", "difference"), rows)

    def draw(self, found: Found, picture: "Picture") -> None:
        axis: Any = picture.subplots()
        full = any(one.point["full"] for one in found.findings)
        points = [point for point in self.points(Budget.FULL if full else Budget.CPU) if found.of(point)]
        names = [f"{point.ingredient}: {point.choice}" if point.choice else point.ingredient for point in points]
        for place, point in enumerate(points):
            values = found.values(point, "accuracy")
            axis.plot(values, [place] * len(values), "o", color="C0", alpha=0.5)
            axis.plot([sum(values) / len(values)], [place], "|", color="C1", markersize=14, markeredgewidth=2)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.invert_yaxis()
        axis.set_xlabel("test accuracy in %, each seed and their mean")
        axis.grid(alpha=0.3)
