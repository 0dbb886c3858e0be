"""The recipes: complete, named after what they are, and of networks that can be built and lowered."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from maqd.errors import ConfigError
from maqd.export.c99 import Strategy, Target, export_c99
from maqd.lowering import lower
from maqd.models import build_model, check_overrides
from maqd.recipes import RECIPES, Budget, recipe
from maqd.settings.data import Source
from maqd.settings.model import Architecture
from maqd.settings.training import TrainConfig
from maqd.settings.tree import from_plain, to_plain

CIFAR = [
    "-".join(parts)
    for parts in product(
        ("cifar10", "cifar100"), ("vgg16", "preact_resnet18"), ("float", "w3a4", "w3a2", "w2a2", "w5a8", "w7a16")
    )
]
RESNET8 = [f"cifar10-resnet8-{states}" for states in ("float", "w3a4", "w3a8", "w3a16")]
MIXED = "cifar10-resnet8-mixed"
SMALL_DEVICES = {"cifar10-micro-w3a4": (3, 4), "cifar10-micro-w3a2": (3, 2), "digits-tiny-w3a4": (3, 4)}
"""Recipes for microcontrollers, and their states."""
LANGUAGE = {
    f"shakespeare-{states}": acts for states, acts in (("float", None), ("w3", 255), ("w3a15", 15), ("b158", 255))
}
"""Recipes of language models, and their activation states."""
VARIANTS = [(found.name, variant.budget) for found in RECIPES for variant in found.variants]


def test_every_combination_has_a_recipe_and_no_name_is_used_twice():
    names = [found.name for found in RECIPES]
    assert len(names) == len(set(names))
    assert {
        *CIFAR,
        *RESNET8,
        *SMALL_DEVICES,
        *LANGUAGE,
        MIXED,
        "digits-float",
        "digits-w3a4",
        "digits-w3a2",
        "digits-w2a2",
    } == set(names)
    assert all({variant.budget for variant in recipe(name).variants} == set(Budget) for name in CIFAR)


@pytest.mark.parametrize(("name", "budget"), VARIANTS)
def test_recipe_is_what_its_name_says(name: str, budget: Budget):
    config = recipe(name).variant(budget).config
    assert config.run is None
    assert from_plain(TrainConfig, to_plain(config)) == config
    if name in LANGUAGE:
        assert config.model.quant.act_states == LANGUAGE[name]
        assert (config.data.source, config.model.architecture) == (Source.TEXT, Architecture.LLAMA)
        return
    data, *network, states = name.split("-")
    quant = config.model.quant
    assert config.data.source.value == data
    architecture = config.model.architecture.value
    assert {"vgg16": "vgg", "preact_resnet18": "preact", "resnet8": "preact_resnet8", "micro": "micro"}.get(
        "".join(network), "digits"
    ) in architecture
    if name == MIXED:
        states = "w3a8"  # but for its overrides
    assert states == ("float" if quant.weight_states is None else f"w{quant.weight_states}a{quant.act_states}")
    assert (config.epochs == 200) == (budget is Budget.FULL)


def test_phases_end_with_the_run_itself():
    variant = recipe("digits-w2a2").variant()
    assert [phase.name for phase in variant.phases] == ["float", "last"]
    assert variant.phases[-1].config == variant.config
    first = variant.phases[0].config
    assert (first.model.quant.rounding, variant.config.model.quant.rounding) == (False, True)
    assert first.model.architecture == variant.config.model.architecture
    assert [len(one.phases) for one in recipe("digits-w3a4").variants] == [1]


@pytest.mark.parametrize("name", RESNET8[1:])
def test_resnet8_trains_half_of_its_epochs_without_rounding_and_all_as_long_as_float(name: str):
    first, last = (phase.config for phase in recipe(name).variant().phases)
    assert first.model.quant.rounding is False
    assert replace(first.model.quant, rounding=True) == last.model.quant
    assert first.epochs + last.epochs == recipe(RESNET8[0]).variant().config.epochs
    network = build_model(last.model, in_channels=3, num_classes=10, image_size=32)
    check_overrides(last.model.quant, network)
    assert sum(p.numel() for name, p in network.named_parameters() if p.ndim > 1 and "norm" not in name) == 77_360


def test_resnet8_of_mixed_states_differs_from_its_first_phase_by_them():
    first, last = (phase.config for phase in recipe(MIXED).variant().phases)
    assert (first.epochs, last.epochs) == (6, 14)
    more = [one for one in last.model.quant.overrides if one not in first.model.quant.overrides]
    assert [one.pattern for one in more] == ["stem", "stages.1.0.act1", "stages.2.0.act1", "act"]
    network = build_model(last.model, in_channels=3, num_classes=10, image_size=32)
    check_overrides(last.model.quant, network)
    assert sum(p.numel() for name, p in network.named_parameters() if p.ndim > 1 and "norm" not in name) == 307_296
    assert network.get_submodule("stem").quantizer.states.count == 63
    assert network.get_submodule("act").quantizer.states.count == 16


def test_unknown_names_and_budgets_say_what_there_is():
    with pytest.raises(ConfigError, match="unknown recipe 'cifar10-vgg-w3a4'; did you mean 'cifar10-vgg16-w3a4'"):
        recipe("cifar10-vgg-w3a4")
    with pytest.raises(ConfigError, match="digits-w3a4 has no budget full; use --budget cpu"):
        recipe("digits-w3a4").variant(Budget.FULL)
    assert recipe("cifar10-vgg16-w3a4").variant().budget is Budget.FULL


@pytest.mark.parametrize("name", SMALL_DEVICES)
def test_networks_for_small_devices_fit_them(name: str):
    config = recipe(name).variant().config
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


@pytest.mark.parametrize("name", [name for name in CIFAR if name.startswith("cifar10-")])
def test_short_recipe_builds_a_network_that_classifies(name: str):
    torch.manual_seed(0)
    config = recipe(name).variant(Budget.CPU).config
    model = build_model(config.model, in_channels=3, num_classes=10, image_size=32).eval()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    logits = model(images)
    assert logits.shape == (2, 10)
    assert torch.isfinite(logits).all()
