"""Writes the CIFAR configurations beside this file; `--check` only says whether they are what it would write.

    python configs/generate.py [--check]

Two data sets, two networks, six quantizations, and two budgets: a full-length run for a GPU, and a short one of a
narrow network for two CPU cores (docs/recipes.md says what was measured with which). And small networks for
microcontrollers (docs/microcontroller.md).
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from maqd.settings.data import AugmentConfig, DataConfig, Source
from maqd.settings.model import Architecture, ModelConfig
from maqd.settings.quantization import UNCHANGED, Norm, Override, QuantConfig
from maqd.settings.training import ComputeConfig, OptimConfig, TrainConfig
from maqd.settings.tree import differences, to_plain

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class States:
    """A quantization and the activation step measured best for its number of states."""

    name: str
    weight: int | None
    act: int | None
    act_step: float = 1.0


STATES = (
    States(name="float", weight=None, act=None),
    States(name="w3a4", weight=3, act=4, act_step=1.0),
    States(name="w3a2", weight=3, act=2, act_step=2.0),
    States(name="w2a2", weight=2, act=2, act_step=2.0),
    States(name="w5a8", weight=5, act=8, act_step=0.5),
    States(name="w7a16", weight=7, act=16, act_step=0.25),
)

FULL = {"vgg16": Architecture.VGG16, "preact_resnet18": Architecture.PREACT_RESNET18}
NARROW = {"vgg16": Architecture.VGG_NARROW, "preact_resnet18": Architecture.PREACT_RESNET_NARROW}
MICRO = ("w3a4", "w3a2")
"""Quantizations of the microcontrollers' network."""
SHORT = {"vgg16": 25_600, "preact_resnet18": 12_800}
"""Images per epoch of the short schedule: a minute or two of training either way."""


def quantization(states: States, network: str) -> QuantConfig:
    """First layer and head are a fraction of a percent of the weights, and are worth more states."""
    if states.weight is None:
        return QuantConfig(weight_states=None, act_states=None, norm=Norm.BN)
    return QuantConfig(
        weight_states=states.weight,
        act_states=states.act,
        act_step=states.act_step,
        norm=Norm.LBN if network == "vgg16" else Norm.LEVELLED_LBN,
        overrides=[
            Override(pattern="stem*", weight_states=max(15, states.weight)),
            Override(pattern="head", weight_states=max(15, states.weight)),
        ],
    )


def configuration(source: Source, network: str, states: States, *, cpu: bool) -> TrainConfig:
    """One run."""
    # Quantized weights want a higher learning rate than float: only what crosses a threshold changes the network. Not
    # so in residual networks, where it costs accuracy with every normalization (docs/recipes.md).
    rate = 4e-3 if states.weight is not None and network == "vgg16" else 2e-3
    return TrainConfig(
        epochs=4 if cpu else 200,
        label_smoothing=0.1,
        model=ModelConfig(
            architecture=(NARROW if cpu else FULL)[network],
            quant=quantization(states, network),
        ),
        data=DataConfig(
            source=source,
            batch_size=64 if cpu else 128,
            samples_per_epoch=SHORT[network] if cpu else None,
            augment=AugmentConfig(crop_padding=4, flip=True, cutout=0 if cpu else 8),
        ),
        optim=OptimConfig(lr=rate if cpu else rate / 2),
        compute=ComputeConfig(bf16=True),
    )


def micro(states: States) -> TrainConfig:
    """CIFAR-10 for a processor of the Cortex-M4 class."""
    return TrainConfig(
        epochs=12,
        label_smoothing=0.1,
        model=ModelConfig(
            architecture=Architecture.MICRO,
            quant=QuantConfig(
                weight_states=states.weight,
                act_states=states.act,
                act_step=states.act_step,
                overrides=[Override(pattern="stem*", weight_states=15)],
            ),
        ),
        data=DataConfig(source=Source.CIFAR10, batch_size=64, augment=AugmentConfig(crop_padding=4, flip=True)),
        optim=OptimConfig(lr=4e-3),
        compute=ComputeConfig(bf16=True),
    )


def tiny() -> TrainConfig:
    """Digits for a processor of the Cortex-M0+ class."""
    return TrainConfig(
        epochs=40,
        model=ModelConfig(width=0.5, quant=QuantConfig(weight_states=3, act_states=4)),
        optim=OptimConfig(lr=8e-3),
    )


def text(config: TrainConfig, title: str) -> str:
    """YAML of what differs from the defaults, under a line that says what it is."""
    tree: dict[str, Any] = {}
    for key, (value, _) in differences(to_plain(config), to_plain(TrainConfig())).items():
        *parents, leaf = key.split(".")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[leaf] = value
    for override in tree.get("model", {}).get("quant", {}).get("overrides", []):
        if override["act_states"] == UNCHANGED:
            del override["act_states"]
    return f"# {title}\n" + yaml.safe_dump(tree, sort_keys=False)


def configurations() -> dict[str, str]:
    """File names and texts."""
    files = {}
    for source in (Source.CIFAR10, Source.CIFAR100):
        for network in FULL:
            for states in STATES:
                for cpu in (False, True):
                    budget = "a short schedule on two CPU cores, narrow network" if cpu else "full length, for a GPU"
                    title = f"{source.value}, {network}, {states.name}: {budget}. Written by configs/generate.py."
                    name = f"{source.value}_{network}_{states.name}{'_cpu' if cpu else ''}.yaml"
                    files[name] = text(configuration(source, network, states, cpu=cpu), title)
    for states in STATES:
        if states.name in MICRO:
            title = f"CIFAR-10 for a Cortex-M4, {states.name}: some minutes on a CPU. Written by configs/generate.py."
            files[f"cifar10_micro_{states.name}.yaml"] = text(micro(states), title)
    files["digits_tiny.yaml"] = text(
        tiny(), "Digits for a Cortex-M0+: seconds on a CPU. Written by configs/generate.py."
    )
    return files


def main() -> int:
    """Writes or checks."""
    wanted = configurations()
    present = {path.name: path.read_text() for path in FOLDER.glob("*.yaml")}
    if "--check" in sys.argv[1:]:
        stale = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
        if stale:
            print("out of date, run python configs/generate.py:", *stale, file=sys.stderr)
        return 1 if stale else 0
    for name in present.keys() - wanted.keys():
        (FOLDER / name).unlink()
    for name, content in wanted.items():
        (FOLDER / name).write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
