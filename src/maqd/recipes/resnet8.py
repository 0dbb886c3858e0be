"""Recipes of ResNet-8 (MLPerf Tiny's, with activations in front of the convolutions) on CIFAR-10."""

from dataclasses import replace

from maqd.recipes.table import Budget, Recipe, Variant
from maqd.settings.data import AugmentConfig, DataConfig, Source
from maqd.settings.model import Architecture, ModelConfig, Shortcut
from maqd.settings.phases import Phase
from maqd.settings.quantization import Norm, Override, QuantConfig, act_step
from maqd.settings.training import ComputeConfig, OptimConfig, TrainConfig

EPOCHS = 16
"""In all; few states begin after half of them."""


def _config(quant: QuantConfig, epochs: int) -> TrainConfig:
    return TrainConfig(
        epochs=epochs,
        model=ModelConfig(architecture=Architecture.PREACT_RESNET8, quant=quant, shortcut=Shortcut.POOLED),
        data=DataConfig(
            source=Source.CIFAR10,
            batch_size=64,
            samples_per_epoch=25_600,
            augment=AugmentConfig(crop_padding=4, flip=True),
        ),
        optim=OptimConfig(lr=5e-3),
        compute=ComputeConfig(bf16=True),
    )


def _few(weight: int, act: int, step: float, measured: str | None) -> Recipe:
    fine = max(15, weight)
    overrides = [Override(pattern=pattern, weight_states=fine) for pattern in ("stem*", "head", "*.shortcut")]
    quant = QuantConfig(weight_states=weight, act_states=act, act_step=step, norm=Norm.BN, overrides=overrides)
    first = Phase(name="unrounded", config=_config(replace(quant, rounding=False), EPOCHS // 2))
    return Recipe(
        name=f"cifar10-resnet8-w{weight}a{act}",
        network="pre-activation ResNet-8 with shortcuts that average, 77,360 weights",
        reason="Half of the epochs without rounding: the sums of a residual stream keep their proportions when few "
        "states begin. Shortcuts read averages over 2x2 positions, in 15 weight states like first layer and head.",
        variants=(
            Variant(
                budget=Budget.CPU,
                before=(first,),
                config=_config(quant, EPOCHS - first.config.epochs),
                measured=measured,
            ),
        ),
    )


MORE = [
    Override(pattern="stem", weight_states=63),
    *(
        Override(pattern=name, act_states=16, act_step=act_step(16))
        for name in ("stages.1.0.act1", "stages.2.0.act1", "act")
    ),
]
"""States of layers that few states cost most and that hardly cost more instructions, as `maqd mix` finds them."""


def _mixed() -> Recipe:
    """ResNet-8 of twice the width at (3,8), but for `MORE`."""
    first, last = _few(3, 8, 0.5, None).variant().phases

    def whole(config: TrainConfig, epochs: int, more: list[Override]) -> TrainConfig:
        quant = replace(config.model.quant, overrides=[*config.model.quant.overrides, *more])
        return replace(
            config,
            epochs=epochs,
            model=replace(config.model, width=2.0, quant=quant),
            data=replace(config.data, samples_per_epoch=None),
        )

    return Recipe(
        name="cifar10-resnet8-mixed",
        network="pre-activation ResNet-8 of twice the width, 307,296 weights",
        reason="At no more instructions, flash and RAM on a Cortex-M4 than int8 ResNet-8 of single width it is more "
        "accurate than that in float. (3,8), but 63 weight states in the first layer and 16 activation states in three "
        "places; all images in 20 epochs, 6 of them without rounding.",
        variants=(
            Variant(
                budget=Budget.CPU,
                before=(Phase(name=first.name, config=whole(first.config, 6, [])),),
                config=whole(last.config, 14, MORE),
                measured="85.44% (seed 0)",
            ),
        ),
    )


RESNET8 = (
    Recipe(
        name="cifar10-resnet8-float",
        network="pre-activation ResNet-8 with shortcuts that average",
        reason="The float reference: batch normalization and ReLU.",
        variants=(
            Variant(
                budget=Budget.CPU,
                config=_config(QuantConfig(weight_states=None, act_states=None, norm=Norm.BN), EPOCHS),
            ),
        ),
    ),
    _few(3, 4, 1.0, "72.12% (seed 0)"),
    _few(3, 8, 0.5, None),
    _few(3, 16, 0.25, None),
    _mixed(),
)
