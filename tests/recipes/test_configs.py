"""The configuration files: complete, up to date, loadable, and of networks that can be built."""

import runpy
from itertools import product
from pathlib import Path

import pytest
import torch

from maqd.cli.arguments import read_yaml
from maqd.export.c99 import Strategy, Target, export_c99
from maqd.lowering import lower
from maqd.models import build_model
from maqd.settings.training import TrainConfig
from maqd.settings.tree import from_plain

FOLDER = Path(__file__).parents[2] / "configs"
NAMES = [
    f"{data}_{network}_{states}{budget}"
    for data, network, states, budget in product(
        ("cifar10", "cifar100"),
        ("vgg16", "preact_resnet18"),
        ("float", "w3a4", "w3a2", "w2a2", "w5a8", "w7a16"),
        ("", "_cpu"),
    )
]
SMALL_DEVICES = {"cifar10_micro_w3a4": (3, 4), "cifar10_micro_w3a2": (3, 2), "digits_tiny": (3, 4)}
"""Configurations for microcontrollers, and their states."""


def load(name: str) -> TrainConfig:
    return from_plain(TrainConfig, read_yaml(FOLDER / f"{name}.yaml", TrainConfig))


def test_every_combination_has_a_file_and_no_other_file_exists():
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == sorted([*NAMES, *SMALL_DEVICES])


def test_files_are_what_the_generator_writes():
    wanted = runpy.run_path(str(FOLDER / "generate.py"))["configurations"]()
    assert {name: (FOLDER / name).read_text() for name in wanted} == wanted


@pytest.mark.parametrize("name", NAMES)
def test_file_says_what_its_name_says(name: str):
    data, rest = name.split("_", 1)
    config = load(name)
    assert config.data.source.value == data
    assert config.model.architecture.value.startswith("vgg" if rest.startswith("vgg16") else "preact_resnet")
    assert (config.epochs < 10) == name.endswith("_cpu")
    if "float" not in name:
        states = next(part for part in name.split("_") if part.startswith("w") and "a" in part)
        assert f"w{config.model.quant.weight_states}a{config.model.quant.act_states}" == states
    else:
        assert (config.model.quant.weight_states, config.model.quant.act_states) == (None, None)


@pytest.mark.parametrize("name", SMALL_DEVICES)
def test_networks_for_small_devices_fit_them(name: str):
    config = load(name)
    torch.manual_seed(0)
    channels, size = (1, 8) if name.startswith("digits") else (3, 32)
    network = build_model(config.model, in_channels=channels, num_classes=10, image_size=size).eval()
    quant = config.model.quant
    assert (quant.weight_states, quant.act_states) == SMALL_DEVICES[name]
    graph = lower(network, torch.zeros(1, channels, size, size, dtype=torch.uint8)).graph
    target = Target.CORTEX_M0PLUS if name.startswith("digits") else Target.CORTEX_M4
    exported = export_c99(graph, target=target, strategy=Strategy.FAST)  # refuses what is too large
    macs = sum(graph.macs(node.name) for node in graph.nodes)
    if name.startswith("digits"):
        assert exported.table_bytes < 6000
        assert exported.arena_bytes < 1000
    else:
        assert macs == 16 * 16 * 27 * 32 + 16 * 16 * 288 * 64 + 8 * 8 * 576 * 64 + 4096 * 10  # as measured elsewhere


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("cifar10_") and name.endswith("_cpu")])
def test_short_configuration_builds_a_network_that_classifies(name: str):
    torch.manual_seed(0)
    model = build_model(load(name).model, in_channels=3, num_classes=10, image_size=32).eval()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    logits = model(images)
    assert logits.shape == (2, 10)
    assert torch.isfinite(logits).all()
