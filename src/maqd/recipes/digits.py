"""Recipes on scikit-learn's embedded digits: seconds on a CPU, no files, no network connection."""

from dataclasses import replace

from maqd.recipes.table import Budget, Recipe, Variant
from maqd.settings.data import DataConfig
from maqd.settings.model import ModelConfig
from maqd.settings.phases import Phase
from maqd.settings.quantization import Norm, QuantConfig
from maqd.settings.training import ComputeConfig, Device, OptimConfig, TrainConfig

NETWORK = "three 3x3 convolutions and a linear layer, 8x8 pixels"


def _demo(quant: QuantConfig) -> TrainConfig:
    return TrainConfig(
        epochs=24,
        log_every=10,
        model=ModelConfig(quant=quant),
        data=DataConfig(batch_size=64),
        optim=OptimConfig(lr=4e-3),
        # Images of 8 x 8 pixels are too little work for a second thread.
        compute=ComputeConfig(device=Device.CPU, threads=1),
    )


DIGITS = (
    Recipe(
        name="digits-float",
        network=NETWORK,
        reason="The float reference of the demo: batch normalization and ReLU.",
        variants=(
            Variant(
                budget=Budget.CPU,
                config=_demo(QuantConfig(weight_states=None, act_states=None, norm=Norm.BN)),
                measured="98.61% (seed 0)",
            ),
        ),
    ),
    Recipe(
        name="digits-w3a4",
        network=NETWORK,
        reason="Three weight states and four activation states with a step of 1.",
        variants=(
            Variant(
                budget=Budget.CPU,
                config=_demo(QuantConfig(weight_states=3, act_states=4, act_step=1.0)),
                measured="98.06% (seed 0)",
            ),
        ),
    ),
    Recipe(
        name="digits-w3a2",
        network=NETWORK,
        reason="Two activation states: a network of single spikes. They want twice the step of four states.",
        variants=(
            Variant(
                budget=Budget.CPU,
                config=_demo(QuantConfig(weight_states=3, act_states=2, act_step=2.0)),
                measured="97.22% (seed 0)",
            ),
        ),
    ),
    Recipe(
        name="digits-w2a2",
        network=NETWORK,
        reason="Two states everywhere. The first half of the epochs is trained without rounding: it gives few states "
        "a start that they do not find by themselves.",
        variants=(
            Variant(
                budget=Budget.CPU,
                before=(
                    Phase(
                        name="float",
                        config=replace(
                            _demo(QuantConfig(weight_states=2, act_states=2, act_step=2.0, rounding=False)), epochs=12
                        ),
                    ),
                ),
                config=replace(_demo(QuantConfig(weight_states=2, act_states=2, act_step=2.0)), epochs=12),
                measured="97.41 +- 0.85% (seeds 0-2; 96.57% with all 24 epochs in few states)",
            ),
        ),
    ),
    Recipe(
        name="digits-tiny-w3a4",
        network=f"{NETWORK}, half as wide",
        reason="Fits a Cortex-M0+: 7 KB of flash, 1 KB of RAM. A small network takes a higher learning rate.",
        variants=(
            Variant(
                budget=Budget.CPU,
                config=TrainConfig(
                    epochs=40,
                    model=ModelConfig(width=0.5, quant=QuantConfig(weight_states=3, act_states=4)),
                    optim=OptimConfig(lr=8e-3),
                ),
                measured="97.22% (seed 0)",
            ),
        ),
    ),
)
