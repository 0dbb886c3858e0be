"""Recipes on CIFAR-10 and CIFAR-100: two networks, six quantizations, two budgets (docs/recipes.md)."""

from dataclasses import dataclass

from maqd.recipes.table import Budget, Recipe, Variant
from maqd.settings.data import AugmentConfig, DataConfig, Source
from maqd.settings.model import Architecture, ModelConfig
from maqd.settings.quantization import Norm, Override, QuantConfig
from maqd.settings.training import ComputeConfig, OptimConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class _Network:
    """A network in both widths.

    Args:
        name: In names of recipes.
        words: In words.
        full, narrow: Of each budget.
        norm: Normalization of its quantized variants.
        lr: Peak learning rate of its quantized variants on the short schedule.
        samples: Images of an epoch of the short schedule: a minute or two of training.
    """

    name: str
    words: str
    full: Architecture
    narrow: Architecture
    norm: Norm
    lr: float
    samples: int


@dataclass(frozen=True, kw_only=True)
class _States:
    """A quantization and the activation step measured best for its number of states."""

    name: str
    weight: int | None = None
    act: int | None = None
    step: float = 1.0


VGG = _Network(
    name="vgg16",
    words="VGG-16",
    full=Architecture.VGG16,
    narrow=Architecture.VGG_NARROW,
    norm=Norm.LBN,
    # Quantized weights want a higher learning rate than float: only what crosses a threshold changes the network.
    lr=4e-3,
    samples=25_600,
)
RESNET = _Network(
    name="preact_resnet18",
    words="PreActResNet-18",
    full=Architecture.PREACT_RESNET18,
    narrow=Architecture.PREACT_RESNET_NARROW,
    norm=Norm.LEVELLED_LBN,
    # In residual networks a higher learning rate costs accuracy with every normalization.
    lr=2e-3,
    samples=12_800,
)
STATES = (
    _States(name="float"),
    _States(name="w3a4", weight=3, act=4, step=1.0),
    _States(name="w3a2", weight=3, act=2, step=2.0),
    _States(name="w2a2", weight=2, act=2, step=2.0),
    _States(name="w5a8", weight=5, act=8, step=0.5),
    _States(name="w7a16", weight=7, act=16, step=0.25),
)
FLOAT_LR = 2e-3

MEASURED = {
    "cifar10-vgg16-float": "75.42 +- 0.61%",
    "cifar10-vgg16-w3a4": "71.98 +- 0.16%",
    "cifar10-vgg16-w3a2": "65.83 +- 0.59%",
    "cifar10-preact_resnet18-w3a4": "62.87 +- 0.44%",
    "cifar10-preact_resnet18-w3a2": "57.87 +- 0.27%",
}
"""Of the short schedule: three seeds, JPEG copies of the images."""


def _quantization(states: _States, network: _Network) -> QuantConfig:
    if states.weight is None:
        return QuantConfig(weight_states=None, act_states=None, norm=Norm.BN)
    fine = max(15, states.weight)
    return QuantConfig(
        weight_states=states.weight,
        act_states=states.act,
        act_step=states.step,
        norm=network.norm,
        overrides=[Override(pattern=pattern, weight_states=fine) for pattern in ("stem*", "head")],
    )


def _config(source: Source, network: _Network, states: _States, budget: Budget) -> TrainConfig:
    short = budget is Budget.CPU
    rate = FLOAT_LR if states.weight is None else network.lr
    return TrainConfig(
        epochs=4 if short else 200,
        label_smoothing=0.1,
        model=ModelConfig(architecture=network.narrow if short else network.full, quant=_quantization(states, network)),
        data=DataConfig(
            source=source,
            batch_size=64 if short else 128,
            samples_per_epoch=network.samples if short else None,
            augment=AugmentConfig(crop_padding=4, flip=True, cutout=0 if short else 8),
        ),
        optim=OptimConfig(lr=rate if short else rate / 2),
        compute=ComputeConfig(bf16=True),
    )


def _recipe(source: Source, network: _Network, states: _States) -> Recipe:
    name = f"{source.value}-{network.name}-{states.name}"
    found = MEASURED.get(name)
    reason = "The float reference: batch normalization and ReLU."
    if states.weight is not None:
        reason = f"First layer and head in 15 weight states: a fraction of a percent of all. Step {states.step:g}"
        reason += f" suits {states.act} activation states."
    measured = None if found is None else f"{found} (3 seeds, JPEG copies of the images)"
    return Recipe(
        name=name,
        network=f"{network.words}; narrow and on a short schedule with --budget cpu",
        reason=reason,
        variants=(
            Variant(budget=Budget.FULL, config=_config(source, network, states, Budget.FULL)),
            Variant(budget=Budget.CPU, config=_config(source, network, states, Budget.CPU), measured=measured),
        ),
    )


CIFAR = tuple(
    _recipe(source, network, states)
    for source in (Source.CIFAR10, Source.CIFAR100)
    for network in (VGG, RESNET)
    for states in STATES
)
