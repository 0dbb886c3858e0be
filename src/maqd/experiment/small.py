"""Networks that the experiments train at the CPU's budget, and at full length."""

from dataclasses import replace

from maqd.recipes import Budget
from maqd.settings.data import AugmentConfig, DataConfig, Source
from maqd.settings.model import Architecture, ModelConfig
from maqd.settings.quantization import Norm, Override, QuantConfig, act_step
from maqd.settings.training import ComputeConfig, Device, OptimConfig, TrainConfig


def digits(quant: QuantConfig, *, epochs: int, batch: int = 64, lr: float = 4e-3) -> TrainConfig:
    """The digits network of the demo: seconds."""
    return TrainConfig(
        epochs=epochs,
        evaluate_every=epochs,
        model=ModelConfig(quant=quant),
        data=DataConfig(batch_size=batch),
        optim=OptimConfig(lr=lr),
        compute=ComputeConfig(device=Device.CPU, threads=1),
    )


def cifar(architecture: Architecture, quant: QuantConfig, budget: Budget, *, source: Source) -> TrainConfig:
    """A network on CIFAR: two epochs of 25,600 images, or 200 whole ones."""
    short = budget is Budget.CPU
    epochs = 2 if short else 200
    return TrainConfig(
        epochs=epochs,
        evaluate_every=epochs,
        label_smoothing=0.1,
        model=ModelConfig(architecture=architecture, quant=quant),
        data=DataConfig(
            source=source,
            batch_size=64 if short else 128,
            samples_per_epoch=25_600 if short else None,
            augment=AugmentConfig(crop_padding=4, flip=True),
        ),
        optim=OptimConfig(lr=4e-3),
        compute=ComputeConfig(bf16=True),
    )


def quantization(weight: int | None, act: int | None, *, norm: Norm = Norm.LBN) -> QuantConfig:
    """States of the hidden layers; where weights are quantized, first layer and head have 15 states at least."""
    ends = (
        [] if weight is None else [Override(pattern=name, weight_states=max(15, weight)) for name in ("stem*", "head")]
    )
    quant = QuantConfig(weight_states=weight, act_states=act, norm=norm, overrides=ends)
    return quant if act is None else replace(quant, act_step=act_step(act))
