"""Shortcuts of residual networks that average: what they compute, their states, and the integers they lower to."""

import pytest
import torch
import torch.nn.functional as F
from effort import long
from small_models import images, train_a_little
from torch import nn

import maqd
from maqd.errors import ConfigError
from maqd.lowering import TorchEngine
from maqd.models import Architecture, ModelConfig, PreActResNet, Shortcut, build_model
from maqd.models.build import check_overrides
from maqd.models.preact_resnet import PreActBlock
from maqd.nn import Norm, Override, QuantConfig
from maqd.numerics.states import Grid
from maqd.runtime.native import NativeEngine
from maqd.runtime.verify import verify

FINE = [
    Override(pattern="*.shortcut_act", act_states=16, act_step=0.25),
    Override(pattern="*.shortcut", weight_states=15),
]


averaging = pytest.mark.parametrize("shortcut", [Shortcut.POOLED, Shortcut.FINE], ids=lambda shortcut: shortcut.value)


def network(
    shortcut: Shortcut,
    architecture: Architecture = Architecture.PREACT_RESNET8,
    size: int = 16,
    **quant: object,
) -> PreActResNet:
    overrides = FINE if shortcut is Shortcut.FINE else FINE[1:]
    config = ModelConfig(
        architecture=architecture,
        width=0.25,
        shortcut=shortcut,
        quant=QuantConfig(**{"norm": Norm.BN, "overrides": overrides, **quant}),  # pyright: ignore[reportArgumentType]
    )
    made = build_model(config, in_channels=3, num_classes=7, image_size=size)
    assert isinstance(made, PreActResNet)
    check_overrides(config.quant, made)
    return made


def blocks(model: nn.Module) -> list[PreActBlock]:
    return [block for block in model.modules() if isinstance(block, PreActBlock) and block.shortcut is not None]


@averaging
@pytest.mark.parametrize(
    "architecture", [Architecture.PREACT_RESNET8, pytest.param(Architecture.PREACT_RESNET50, marks=long)]
)
def test_shortcuts_lower_to_the_same_integers(shortcut: Shortcut, architecture: Architecture):
    torch.manual_seed(0)
    model = network(shortcut, architecture)
    x = images(architecture, 6, size=16)
    train_a_little(model, x)
    model.eval()
    lowered = maqd.lower(model, x)
    assert all(report.mismatches == 0 for report in lowered.activations)
    engines = [TorchEngine(model, lowered.graph), NativeEngine(lowered.graph)]
    assert verify(lowered.graph, engines, [x.numpy()]).ok
    assert len(torch.unique(model(x), dim=0)) > 1


@averaging
def test_a_shortcut_averages_codes_before_its_convolution(shortcut: Shortcut):
    torch.manual_seed(1)
    block = blocks(network(shortcut).eval())[0]
    x = torch.randn(2, block.act1.norm.num_features, 8, 8)
    assert block.shortcut is not None
    source = block.shortcut_act if shortcut is Shortcut.FINE else block.act1
    assert source is not None
    codes = source(x)
    means = (codes[:, :, ::2, ::2] + codes[:, :, 1::2, ::2] + codes[:, :, ::2, 1::2] + codes[:, :, 1::2, 1::2]) / 4
    weight = block.shortcut.weight_codes().float() * block.shortcut.accumulator_unit / block.shortcut.input_grid.unit
    branch = block.conv2(block.act2(block.conv1(block.act1(x))))
    torch.testing.assert_close(block(x), F.conv2d(means, weight) + branch, rtol=0, atol=0)


def test_states_and_step_are_those_of_the_overrides():
    for block in blocks(network(Shortcut.FINE)):
        assert block.shortcut_act is not None
        assert block.shortcut_act.quantizer is not None
        assert block.act1.quantizer is not None
        assert block.shortcut is not None
        assert (block.shortcut_act.quantizer.states.count, block.shortcut_act.quantizer.step) == (16, 0.25)
        assert (block.act1.quantizer.states.count, block.act1.quantizer.step) == (4, 1.0)
        assert block.shortcut.states is not None
        assert block.shortcut.states.count == 15
        assert block.shortcut.input_grid == Grid(low=0, high=60, exponent=-4)


def test_a_pooled_shortcut_reads_the_codes_of_the_branch():
    for block in blocks(network(Shortcut.POOLED)):
        assert block.shortcut_act is None
        assert block.shortcut is not None
        assert block.shortcut.input_grid == Grid(low=0, high=12, exponent=-2)


@averaging
def test_float_networks_have_such_shortcuts_too(shortcut: Shortcut):
    model = network(shortcut, weight_states=None, act_states=None, overrides=[])
    x = images(Architecture.PREACT_RESNET8, 4, size=16)
    train_a_little(model, x)
    assert model.eval()(x).isfinite().all()


@averaging
def test_what_has_no_such_shortcut_is_refused(shortcut: Shortcut):
    name = shortcut.value
    with pytest.raises(ConfigError, match=f"vgg16 has no shortcuts, got shortcut={name}; leave it out"):
        ModelConfig(architecture=Architecture.VGG16, shortcut=shortcut)
    with pytest.raises(
        ConfigError, match=f"{name} shortcuts halve an even number of rows, stage 2 has 5 for images of 10"
    ):
        network(shortcut, size=10)


def test_an_impossible_step_or_one_for_no_activation_is_refused():
    with pytest.raises(ConfigError, match="act_step must be a positive power of two"):
        Override(pattern="*", act_step=0.3)
    with pytest.raises(ConfigError, match="sets act_step and matches none"):
        network(Shortcut.POOLED, overrides=[Override(pattern="*.conv1", act_step=0.5)])
