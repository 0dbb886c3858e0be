"""Recipes of language models on the bytes of a text file, such as Tiny Shakespeare (docs/language.md)."""

from maqd.recipes.table import Budget, Recipe, Variant
from maqd.settings.data import DataConfig, Source
from maqd.settings.language import TransformerConfig
from maqd.settings.model import Architecture, ModelConfig
from maqd.settings.quantization import QuantConfig, WeightMethod
from maqd.settings.training import ComputeConfig, OptimConfig, TrainConfig

SMALL = TransformerConfig(layers=2, width=128, heads=4, kv_heads=2, hidden=256)
"""0.36 million weights."""

FULL = TransformerConfig(layers=6, width=384, heads=6, kv_heads=6, hidden=1024)
"""10.8 million weights."""


def _config(budget: Budget, quant: QuantConfig) -> TrainConfig:
    short = budget is Budget.CPU
    return TrainConfig(
        epochs=4 if short else 20,
        model=ModelConfig(architecture=Architecture.LLAMA, transformer=SMALL if short else FULL, quant=quant),
        data=DataConfig(
            source=Source.TEXT,
            context=64 if short else 256,
            batch_size=32 if short else 64,
            eval_batch_size=128 if short else 64,
            samples_per_epoch=4_000 if short else 16_000,
        ),
        log_every=25,
        optim=OptimConfig(
            lr=4e-3 if short else 2e-3, weight_decay=0.0 if short else 0.1, beta2=0.99, gradient_clip=1.0
        ),
        compute=ComputeConfig(bf16=not short, threads=1 if short else None),
    )


def _recipe(name: str, reason: str, quant: QuantConfig, measured: str) -> Recipe:
    return Recipe(
        name=f"shakespeare-{name}",
        network="a decoder in the manner of Llama on bytes; of 0.36 million weights with --budget cpu",
        reason=f"{reason} --data.path names the text.",
        variants=(
            Variant(budget=Budget.CPU, config=_config(Budget.CPU, quant), measured=f"{measured}, Tiny Shakespeare"),
            Variant(budget=Budget.FULL, config=_config(Budget.FULL, quant)),
        ),
    )


LANGUAGE = (
    _recipe(
        "float",
        "The float reference: the same decoder.",
        QuantConfig(weight_states=None, act_states=None),
        "2.618 +- 0.012 bits a character (seeds 0-1)",
    ),
    _recipe(
        "w3",
        "Three weight states; activations of 255 states.",
        QuantConfig(weight_states=3, act_states=255),
        "2.657 +- 0.016 bits a character (seeds 0-1)",
    ),
    _recipe(
        "w3a15",
        "Three weight states; activations of 15 states.",
        QuantConfig(weight_states=3, act_states=15),
        "2.707 bits a character (seed 0)",
    ),
    _recipe(
        "b158",
        "BitNet b1.58's weights: rounded in units of the layer's mean magnitude.",
        QuantConfig(weight_states=3, act_states=255, weight_method=WeightMethod.ABSMEAN),
        "2.770 bits a character (seed 0)",
    ),
)
