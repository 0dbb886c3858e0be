"""Rival methods: the papers' formulas in float64, scales included, and the integers they lower to."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import maqd
from maqd.errors import ConfigError
from maqd.lowering import TorchEngine
from maqd.models.build import build_model
from maqd.nn import (
    ActMethod,
    BatchNorm,
    IntegerInput,
    NormActivation,
    Override,
    QuantActivation,
    QuantConfig,
    QuantConv2d,
    Quantizer,
    QuantLinear,
    RoundClip,
    ThresholdQuantizer,
    WeightMethod,
    WeightQuantizer,
    set_rounding,
)
from maqd.nn.baselines import (
    ACTIVATIONS,
    PACT,
    WEIGHTS,
    AbsmeanWeights,
    APoTActivations,
    APoTWeights,
    DeviationWeights,
    DoReFaWeights,
    LSQActivations,
    LSQWeights,
    N2UQActivations,
    N2UQWeights,
    PlainWeights,
    TernaryWeights,
)
from maqd.numerics.states import States, gaussian_step
from maqd.runtime.native import NativeEngine
from maqd.runtime.verify import verify
from maqd.settings.model import Architecture, ModelConfig
from maqd.training.warm_start import warm_start

THREE, FOUR, FIVE = (States(count=count, signed=True) for count in (3, 4, 5))
CODES4 = States(count=4, signed=False)


# ---- the papers' formulas, written with the real scales and plain straight-through estimates -------------------------


def straight(value: Tensor, like: Tensor) -> Tensor:
    return value.detach() + like - like.detach()


def levels(x: Tensor, values: list[float]) -> Tensor:
    """The nearest value, upwards at ties."""
    table = torch.tensor(sorted(values), dtype=x.dtype)
    return table[torch.bucketize(x.detach(), (table[1:] + table[:-1]) / 2, right=True)]


def uniform(count: int) -> list[float]:
    return [2 * k / (count - 1) - 1 for k in range(count)]


def lsq(count: int) -> Callable[[Tensor, Tensor], Tensor]:
    def quantize(w: Tensor, s: Tensor) -> Tensor:
        q = (count - 1) / 2
        g = 1 / math.sqrt(w.numel() * q)
        s = (s - s * g).detach() + s * g
        bounded = torch.clamp(w / s, -q, q)
        return straight(levels(bounded, [k - q for k in range(count)]), bounded) * s

    return quantize


def plain(count: int) -> Callable[[Tensor], Tensor]:
    def quantize(w: Tensor) -> Tensor:
        q, s = (count - 1) / 2, gaussian_step(count) / math.sqrt(3 * w[0].numel())
        bounded = torch.clamp(w / s, -q, q)
        return straight(levels(bounded, [k - q for k in range(count)]), bounded) * s

    return quantize


def dorefa(w: Tensor) -> Tensor:
    t = torch.tanh(w) / (2 * torch.tanh(w).abs().max()) + 0.5
    return 2 * straight(levels(t, [k / 4 for k in range(5)]), t) - 1


def twn(w: Tensor) -> Tensor:
    delta = 0.7 * w.abs().mean()
    alpha = w.abs()[w.abs() > delta].mean()
    return straight(alpha * torch.sign(w) * (w.abs() > delta), w)


def absmean(w: Tensor) -> Tensor:
    scale = w.abs().mean()
    return straight(scale * torch.clamp(torch.round(w / scale), -1, 1), w)


def deviation(w: Tensor, a: Tensor) -> Tensor:
    s = a * w.std(correction=0).detach()
    bounded = torch.clamp(w / s, -2, 2)
    codes = torch.round(bounded) * (w.abs() >= 0.7 * w.std(correction=0))
    return straight(codes, bounded) * s


def apot(magnitudes: list[float]) -> Callable[[Tensor, Tensor], Tensor]:
    def quantize(w: Tensor, a: Tensor) -> Tensor:
        bounded = torch.clamp((w - w.mean()) / w.std(correction=0) / a, -1, 1)
        return straight(levels(bounded.abs(), magnitudes) * torch.sign(bounded), bounded) * a

    return quantize


def n2uq(w: Tensor) -> Tensor:
    scaled = w / (2 * 4 / 5 * w.flatten(1).abs().mean(1, keepdim=True).detach())
    return straight(levels(scaled, uniform(5)), scaled)


WEIGHT_FORMULAS: list[tuple[WeightQuantizer, Callable[..., Tensor]]] = [
    (PlainWeights(states=THREE), plain(3)),
    (PlainWeights(states=FOUR), plain(4)),
    (LSQWeights(states=THREE), lsq(3)),
    (LSQWeights(states=FOUR), lsq(4)),
    (DoReFaWeights(states=FIVE), dorefa),
    (TernaryWeights(states=THREE), twn),
    (AbsmeanWeights(states=THREE), absmean),
    (DeviationWeights(states=FIVE, prune=0.7), deviation),
    (APoTWeights.of(3), apot([0, 1])),
    (APoTWeights.of(7), apot([0, 1 / 4, 1 / 2, 1])),
    (APoTWeights.of(15), apot([0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1])),
    (N2UQWeights(states=FIVE), n2uq),
]
WEIGHT_IDS = [f"{type(quantizer).__name__}-{quantizer.states.count}" for quantizer, _ in WEIGHT_FORMULAS]


def trained(values: tuple[Tensor, ...], factor: float = 1.25) -> list[Tensor]:
    """What is learned, away from its first values, in float64."""
    return [(value.double() * factor).requires_grad_() for value in values]


def normalized(z: Tensor) -> Tensor:
    """Batch normalization without eps."""
    return (z - z.mean(0)) / z.std(0, correction=0)


@pytest.mark.parametrize(("quantizer", "formula"), WEIGHT_FORMULAS, ids=WEIGHT_IDS)
def test_weights_before_a_normalization_train_like_the_formula_with_its_scale(
    quantizer: WeightQuantizer, formula: Callable[..., Tensor]
):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(6, 40, generator=generator, dtype=torch.float64) * 0.1 + 0.02
    x = torch.randn(32, 40, generator=generator, dtype=torch.float64)
    upstream = torch.randn(32, 6, generator=generator, dtype=torch.float64)
    results = []
    for compute in (lambda w, *learned: quantizer.values(w, 0.25, learned), formula):
        w = weight.clone().requires_grad_()
        learned = trained(quantizer.initial(weight))
        y = normalized(x @ compute(w, *learned).t())
        results.append([y.detach(), *torch.autograd.grad(y, [w, *learned], upstream)])
    assert results[0][1].abs().max() > 1e-3
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("quantizer", "formula"), WEIGHT_FORMULAS, ids=WEIGHT_IDS)
def test_codes_are_the_formula_without_its_scale(quantizer: WeightQuantizer, formula: Callable[..., Tensor]):
    weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(2)) * 0.1 + 0.02
    learned = tuple(quantizer.initial(weight))
    codes = quantizer.codes(weight, learned)
    assert codes.dtype is torch.int16
    assert set(codes.unique().tolist()) <= set(quantizer.states.codes)
    real = formula(weight.double(), *(value.double() for value in learned)).double()
    # Up to one factor: products of a code and another one's value commute.
    top = int(codes.abs().argmax())
    torch.testing.assert_close(codes * real.flatten()[top], real * codes.flatten()[top], rtol=1e-12, atol=1e-12)
    assert len(codes.unique()) == len(real.round(decimals=9).unique()) > 2


@pytest.mark.parametrize(("quantizer", "formula"), WEIGHT_FORMULAS, ids=WEIGHT_IDS)
def test_code_scale_is_that_of_fresh_weights(quantizer: WeightQuantizer, formula: Callable[..., Tensor]):
    layer = QuantLinear(400, 200, states=quantizer)
    codes = layer.weight_codes().double()
    # Rounding and clipping change the deviation by less than the factor sqrt(2) that a power of two costs anyway.
    assert codes.std().item() * quantizer.code_scale == pytest.approx(1, abs=0.4)


def lsq_activation(y: Tensor, s: Tensor) -> Tensor:
    g = 1 / math.sqrt(y[0].numel() * 3)
    s = (s - s * g).detach() + s * g
    bounded = torch.clamp(y / s, 0, 3)
    return straight(levels(bounded, [0, 1, 2, 3]), bounded) * s


def pact(y: Tensor, a: Tensor) -> Tensor:
    bounded = torch.where(y >= a, a, torch.relu(y))
    return straight(levels(bounded / a, [0, 1 / 3, 2 / 3, 1]) * a, bounded)


def apot_activation(y: Tensor, a: Tensor) -> Tensor:
    bounded = torch.clamp(y / a, 0, 1)
    return straight(levels(bounded, [0, 1 / 4, 1 / 2, 1]), bounded) * a


def n2uq_activation(y: Tensor, start: Tensor, lengths: Tensor) -> Tensor:
    forward, backward = torch.zeros_like(y), torch.zeros_like(y)
    place = start
    for k, length in enumerate(lengths, 1):
        forward = torch.where(y >= place + length / 2, float(k), forward)
        backward = torch.where(y >= place, k - 1 + (y - place) / length, backward)
        place = place + length
    return straight(forward, torch.where(y >= place, float(len(lengths)), backward))


ACTIVATION_FORMULAS: list[tuple[ThresholdQuantizer, Callable[..., Tensor]]] = [
    (LSQActivations(states=CODES4, step=0.5), lsq_activation),
    (PACT(states=CODES4, step=0.5), pact),
    (APoTActivations.of(4, 0.5), apot_activation),
    (N2UQActivations(states=CODES4, step=0.5), n2uq_activation),
]
ACTIVATION_IDS = [type(quantizer).__name__ for quantizer, _ in ACTIVATION_FORMULAS]


@pytest.mark.parametrize(("quantizer", "formula"), ACTIVATION_FORMULAS, ids=ACTIVATION_IDS)
def test_activations_before_a_layer_and_its_normalization_train_like_the_formula(
    quantizer: ThresholdQuantizer, formula: Callable[..., Tensor]
):
    generator = torch.Generator().manual_seed(3)
    y = torch.randn(64, 12, generator=generator, dtype=torch.float64) * 1.5
    weight = torch.randn(5, 12, generator=generator, dtype=torch.float64)
    upstream = torch.randn(64, 5, generator=generator, dtype=torch.float64)
    results = []
    for compute in (lambda v, *learned: quantizer.values(v, learned), formula):
        v = y.clone().requires_grad_()
        learned = trained(quantizer.initial(), 0.75)
        out = compute(v, *learned)
        z = normalized(out @ weight.t())
        results.append([z.detach(), *torch.autograd.grad(z, [v, *learned], upstream)])
    assert min(gradient.abs().max() for gradient in results[0][1:]) > 1e-3
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("quantizer", "formula"), ACTIVATION_FORMULAS, ids=ACTIVATION_IDS)
def test_cuts_are_where_the_formula_steps(quantizer: ThresholdQuantizer, formula: Callable[..., Tensor]):
    learned = [value.double() for value in quantizer.initial()]
    y = torch.linspace(-1, 4, 5001, dtype=torch.float64)[:, None]
    real = formula(y, *learned).flatten()
    cuts = quantizer.exact_cuts(tuple(learned))
    assert cuts.shape == (quantizer.states.count - 1,)
    codes = (y.numpy() >= cuts).sum(1)
    wanted = np.unique(real.numpy().round(12), return_inverse=True)[1]
    occurring = np.unique(codes)
    assert occurring.tolist() == list(getattr(quantizer, "levels", range(4)))
    np.testing.assert_array_equal(np.searchsorted(occurring, codes), wanted)


# ---- in layers and networks -----------------------------------------------------------------------------------------

METHODS = [(method, ActMethod.MAQD) for method in WEIGHTS] + [(WeightMethod.MAQD, method) for method in ACTIVATIONS]


def small(weights: WeightQuantizer, quantizer: Quantizer) -> nn.Sequential:
    torch.manual_seed(0)
    second = QuantConv2d(6, 6, 3, states=weights, input_grid=quantizer.grid)
    return nn.Sequential(
        IntegerInput(),
        QuantConv2d(1, 6, 3, states=15, input_grid=IntegerInput.grid),
        NormActivation(BatchNorm(6), quantizer),
        second,
        NormActivation(BatchNorm(6), quantizer),
        nn.Flatten(),
        QuantLinear(6 * 16, 3, states=15, input_grid=quantizer.grid),
    )


@pytest.mark.parametrize(("weight", "act"), METHODS, ids=lambda method: method.value)
def test_every_method_trains_and_lowers_to_the_same_integers(weight: WeightMethod, act: ActMethod):
    weights = WEIGHTS[weight](3) if weight in WEIGHTS else RoundClip(states=THREE)
    quantizer = ACTIVATIONS[act](4, 1.0) if act in ACTIVATIONS else Quantizer(states=CODES4)
    network = small(weights, quantizer)
    start = {name: value.clone() for name, value in network.named_parameters()}
    images = torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    labels = torch.arange(16) % 3
    optimizer = torch.optim.AdamW(network.parameters(), 0.01)
    losses = []
    for _ in range(12):
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for name, value in network.named_parameters():
        assert not torch.equal(value, start[name]), name
    network.eval()
    lowered = maqd.lower(network, images)
    assert all(report.mismatches == 0 for report in lowered.activations)
    engines = [TorchEngine(network, lowered.graph), NativeEngine(lowered.graph)]
    assert verify(lowered.graph, engines, [images.numpy()]).ok


@pytest.mark.parametrize("name", ["lsq", "n2uq"])
def test_a_recipe_takes_a_method_and_leaves_first_layer_and_head_alone(name: str):
    fine = [Override(pattern=pattern, weight_states=15) for pattern in ("stem*", "head")]
    quant = QuantConfig(weight_method=WeightMethod(name), act_method=ActMethod(name), overrides=fine)
    config = ModelConfig(architecture=Architecture.DIGITS, quant=quant)
    network = build_model(config, in_channels=1, num_classes=10, image_size=8)
    layers = [module for module in network.modules() if isinstance(module, QuantConv2d | QuantLinear)]
    assert isinstance(layers[0].quantizer, RoundClip)
    assert isinstance(layers[-1].quantizer, RoundClip)
    assert {type(layer.quantizer) for layer in layers[1:-1]} == {type(WEIGHTS[WeightMethod(name)](3))}
    activations = [module for module in network.modules() if isinstance(module, NormActivation)]
    assert {type(module.quantizer) for module in activations} == {type(ACTIVATIONS[ActMethod(name)](4, 1.0))}


def test_evaluation_follows_a_learned_threshold_and_has_its_gradient():
    activation = NormActivation(BatchNorm(2), LSQActivations(states=CODES4)).eval()
    x = torch.tensor([[0.3, 1.0], [2.0, -1.0]])
    assert activation.learned is not None
    before = activation(x)
    before.sum().backward()
    assert activation.learned[0].grad is not None
    assert activation.learned[0].grad.abs() > 0
    with torch.no_grad():
        activation.learned[0].mul_(4)
    assert not torch.equal(activation(x), before)


def test_a_float_network_starts_a_method_that_learns():
    quant = QuantConfig(weight_method=WeightMethod.LSQ, act_method=ActMethod.LSQ)
    config = ModelConfig(architecture=Architecture.DIGITS, quant=quant)
    sizes = {"in_channels": 1, "num_classes": 10, "image_size": 8}
    torch.manual_seed(5)
    few = build_model(config, **sizes)
    floats = build_model(replace(config, quant=QuantConfig(weight_states=None, act_states=None)), **sizes)
    images = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8)
    started = warm_start(few, floats.state_dict(), [images])
    few.load_state_dict(started)
    layers = [module for module in few.modules() if isinstance(module, QuantConv2d | QuantLinear)]
    for layer in layers:
        assert layer.learned is not None
        assert layer.learned[0].item() == pytest.approx(2 * layer.weight.abs().mean().item())


def test_what_a_method_cannot_do_is_refused():
    with pytest.raises(ConfigError, match="TWN has 3 weight states, got 5; use 3"):
        TernaryWeights(states=FIVE)
    with pytest.raises(ConfigError, match="absmean has 3 weight states, got 5; use 3"):
        AbsmeanWeights(states=FIVE)
    with pytest.raises(ConfigError, match=r"APoT has 3, 7 or 15 weight states .*, got 5 weight states"):
        APoTWeights.of(5)
    with pytest.raises(ConfigError, match=r"APoT has .* 2, 4 or 8 activation states, got 3 activation states"):
        APoTActivations.of(3, 1.0)
    with pytest.raises(ConfigError, match="pruning needs a state at zero"):
        DeviationWeights(states=FOUR, prune=0.5)
    with pytest.raises(ConfigError, match="pruning takes a finite number of standard deviations >= 0, got -1"):
        DeviationWeights(states=FIVE, prune=-1)
    with pytest.raises(ConfigError, match="PACT needs unsigned states"):
        PACT(states=THREE)
    with pytest.raises(ConfigError, match="no place for what PACT learns; use NormActivation"):
        QuantActivation(PACT(states=CODES4))
    with pytest.raises(ConfigError, match=r"weight_step is MaQD's, and lsq finds its own, got 1.0"):
        QuantConfig(weight_method=WeightMethod.LSQ, weight_step=1.0)


def test_a_phase_without_rounding_is_refused_with_a_remedy():
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    for network, name in (
        (small(AbsmeanWeights(states=THREE), Quantizer(states=CODES4)), "AbsmeanWeights"),
        (small(RoundClip(states=THREE), PACT(states=CODES4)), "PACT"),
    ):
        set_rounding(network, False)
        with pytest.raises(ConfigError, match=f"{name} cannot train without rounding; start it from a float network"):
            network(images)
