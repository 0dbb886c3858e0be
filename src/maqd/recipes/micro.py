"""Recipes for microcontrollers of the Cortex-M4 class (docs/microcontroller.md)."""

from maqd.recipes.table import Budget, Recipe, Variant
from maqd.settings.data import AugmentConfig, DataConfig, Source
from maqd.settings.model import Architecture, ModelConfig
from maqd.settings.quantization import Override, QuantConfig
from maqd.settings.training import ComputeConfig, OptimConfig, TrainConfig


def _micro(act_states: int, act_step: float, measured: str | None) -> Recipe:
    config = TrainConfig(
        epochs=12,
        label_smoothing=0.1,
        model=ModelConfig(
            architecture=Architecture.MICRO,
            quant=QuantConfig(
                weight_states=3,
                act_states=act_states,
                act_step=act_step,
                overrides=[Override(pattern="stem*", weight_states=15)],
            ),
        ),
        data=DataConfig(source=Source.CIFAR10, batch_size=64, augment=AugmentConfig(crop_padding=4, flip=True)),
        optim=OptimConfig(lr=4e-3),
        compute=ComputeConfig(bf16=True),
    )
    return Recipe(
        name=f"cifar10-micro-w3a{act_states}",
        network="three strided 3x3 convolutions and a linear layer, 7.3 million multiplications",
        reason="First layer in 15 states: few weights that see the finest input. Strides in place of pooling save RAM.",
        variants=(Variant(budget=Budget.CPU, config=config, measured=measured),),
    )


MICRO = (_micro(4, 1.0, "71.95% (seed 0, JPEG copies of the images)"), _micro(2, 2.0, None))
