"""Other methods of quantizing weights and activations, to compare with: one file each, with reference and formula.

All of them train, evaluate and lower exactly like MaQD's: codes of weights times a power of two, codes of activations
that rise at thresholds. What a method multiplies its codes by is left out, because the normalization after a layer
takes it out again (docs/recipes.md says where that holds).
"""

from collections.abc import Callable

from maqd.nn.baselines.absmean import AbsmeanWeights
from maqd.nn.baselines.apot import APoTActivations, APoTWeights
from maqd.nn.baselines.deviation import DeviationWeights
from maqd.nn.baselines.dorefa import DoReFaWeights
from maqd.nn.baselines.lsq import LSQActivations, LSQWeights
from maqd.nn.baselines.n2uq import N2UQActivations, N2UQWeights
from maqd.nn.baselines.pact import PACT
from maqd.nn.baselines.plain import PlainWeights
from maqd.nn.baselines.twn import TernaryWeights
from maqd.nn.quantizers import ThresholdQuantizer, WeightQuantizer
from maqd.numerics.states import States
from maqd.settings.quantization import ActMethod, WeightMethod


def _signed(method: Callable[..., WeightQuantizer]) -> Callable[[int], WeightQuantizer]:
    return lambda count: method(states=States(count=count, signed=True))


def _unsigned(method: Callable[..., ThresholdQuantizer]) -> Callable[[int, float], ThresholdQuantizer]:
    return lambda count, step: method(states=States(count=count, signed=False), step=step)


WEIGHTS: dict[WeightMethod, Callable[[int], WeightQuantizer]] = {
    WeightMethod.PLAIN: _signed(PlainWeights),
    WeightMethod.LSQ: _signed(LSQWeights),
    WeightMethod.DOREFA: _signed(DoReFaWeights),
    WeightMethod.TWN: _signed(TernaryWeights),
    WeightMethod.ABSMEAN: _signed(AbsmeanWeights),
    WeightMethod.STD: _signed(DeviationWeights),
    WeightMethod.APOT: APoTWeights.of,
    WeightMethod.N2UQ: _signed(N2UQWeights),
}
"""The quantizer of M_w states, for every method but MaQD's."""

ACTIVATIONS: dict[ActMethod, Callable[[int, float], ThresholdQuantizer]] = {
    ActMethod.LSQ: _unsigned(LSQActivations),
    ActMethod.PACT: _unsigned(PACT),
    ActMethod.APOT: APoTActivations.of,
    ActMethod.N2UQ: _unsigned(N2UQActivations),
}
"""The quantizer of M_a states whose code 1 is worth a power of two, for every method but MaQD's."""

__all__ = [
    "ACTIVATIONS",
    "PACT",
    "WEIGHTS",
    "APoTActivations",
    "APoTWeights",
    "AbsmeanWeights",
    "DeviationWeights",
    "DoReFaWeights",
    "LSQActivations",
    "LSQWeights",
    "N2UQActivations",
    "N2UQWeights",
    "PlainWeights",
    "TernaryWeights",
]
