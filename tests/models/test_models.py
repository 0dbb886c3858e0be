"""Networks: they build, train and evaluate to the same integers whatever the batch and the memory format."""

import copy
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from effort import long
from small_models import CLASSES, RESNETS, VGGS, images, size_of, small, train_a_little
from torch import Tensor, nn

from maqd import Grid
from maqd.errors import ConfigError, DataError
from maqd.models import (
    Architecture,
    LayerFactory,
    ModelConfig,
    ResNetPlan,
    StridedPlan,
    VGGPlan,
    build_model,
    check_overrides,
)
from maqd.nn import (
    Affine,
    GlobalSumPool,
    LayerNorm,
    MaxPool2d,
    Norm,
    NormActivation,
    Override,
    QuantConfig,
    QuantConv2d,
    QuantLinear,
)

IMAGES = [architecture for architecture in Architecture if architecture is not Architecture.LLAMA]
DEEPER = (Architecture.VGG19, Architecture.PREACT_RESNET34)
"""Those of more blocks of a kind that another one has too."""
architectures = pytest.mark.parametrize(
    "architecture", [pytest.param(a, marks=[long] if a in DEEPER else [], id=a.value) for a in IMAGES]
)
SMALL = [Architecture.DIGITS, Architecture.PREACT_RESNET_NARROW]


def quantized_layers(model: nn.Module) -> dict[str, QuantConv2d | QuantLinear]:
    return {name: m for name, m in model.named_modules() if isinstance(m, QuantConv2d | QuantLinear)}


def activations(model: nn.Module) -> dict[str, NormActivation]:
    return {name: m for name, m in model.named_modules() if isinstance(m, NormActivation)}


@architectures
def test_every_parameter_gets_a_finite_gradient_in_one_step(architecture: Architecture):
    model = small(architecture)
    logits = model(images(architecture, 4))
    assert (logits.shape, logits.dtype) == ((4, CLASSES), torch.float32)
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert silent == []
    assert sum(p.grad.abs().sum().item() > 0 for p in model.parameters()) > 0.9 * len(list(model.parameters()))


@architectures
def test_evaluation_does_not_depend_on_the_batch_or_the_memory_format(architecture: Architecture):
    """Bit for bit: sums of integers are the same in any order."""
    model = small(architecture)
    x = images(architecture, 8)
    train_a_little(model, x)
    model.eval()
    logits = model(x)
    assert torch.equal(torch.cat([model(image[None]) for image in x]), logits)
    assert torch.equal(model(x.to(memory_format=torch.channels_last)), logits)
    assert torch.equal(copy.deepcopy(model).to(memory_format=torch.channels_last)(x), logits)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model(x), logits)
    assert len(torch.unique(logits, dim=0)) > 1


@architectures
def test_logits_are_integers_times_the_heads_unit(architecture: Architecture):
    model = small(architecture)
    x = images(architecture, 8)
    train_a_little(model, x)
    integers = model.eval()(x).double() / model.head.accumulator_unit
    assert torch.equal(integers, integers.round())
    assert integers.abs().max() < 2**24


def record(model: nn.Module, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Inputs and outputs of the layers in evaluation."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    hooks = [
        layer.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: (inputs[0], output)}))
        for name, layer in (quantized_layers(model) | activations(model)).items()
    ]
    model.eval()(x)
    for hook in hooks:
        hook.remove()
    return seen


@architectures
@pytest.mark.parametrize("states", [(3, 4), *(pytest.param(states, marks=long) for states in ((2, 2), (4, 16)))])
def test_every_tensor_lies_on_the_grid_that_the_next_layer_was_told(
    architecture: Architecture, states: tuple[int, int]
):
    model = small(architecture, weight_states=states[0], act_states=states[1])
    x = images(architecture, 4)
    train_a_little(model, x)
    seen = record(model, x)
    for name, layer in quantized_layers(model).items():
        inputs, outputs = seen[name]
        grid: Grid = layer.input_grid
        codes = inputs.double() / grid.unit
        assert torch.equal(codes, codes.round()), name
        assert grid.low <= codes.min(), name
        assert codes.max() <= grid.high, name
        accumulators = outputs.double() / layer.accumulator_unit
        assert torch.equal(accumulators, accumulators.round()), name
    for name, act in activations(model).items():
        codes = seen[name][1].double() / act.quantizer.grid.unit
        assert set(codes.unique().tolist()) <= set(act.quantizer.states.codes), name


@pytest.mark.parametrize("architecture", RESNETS, ids=lambda a: a.value)
def test_the_residual_stream_is_exact_in_float32(architecture: Architecture):
    """One exponent holds it, and its integers stay below 2^24."""
    model = small(architecture, weight_states=16, act_states=16)
    x = images(architecture, 4)
    train_a_little(model, x)
    streams = [inputs for name, (inputs, _) in record(model, x).items() if name.endswith("act1")]
    unit = min(layer.accumulator_unit for layer in quantized_layers(model).values())
    for stream in streams:
        integers = stream.double() / unit
        assert torch.equal(integers, integers.round())
        assert integers.abs().max() < 2**24


VARIANTS: dict[str, dict[str, Any]] = {
    "float": {"weight_states": None, "act_states": None, "norm": Norm.BN},
    "weights only": {"weight_states": 3, "act_states": None},
    "activations only": {"weight_states": None, "act_states": 4},
    "batch norm": {"norm": Norm.BN},
    "layer norm": {"norm": Norm.LN},
    "levelled": {"norm": Norm.LEVELLED_LBN},
    "one affine": {"affine": Affine.LAYER},
    "no affine": {"affine": Affine.NONE},
    "binary": {"weight_states": 2, "act_states": 2, "act_step": 0.5},
    "many states": {"weight_states": 15, "act_states": 32, "act_step": 0.125, "weight_step": 0.25},
}


@pytest.mark.parametrize("architecture", SMALL, ids=lambda a: a.value)
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_train_and_evaluate(architecture: Architecture, variant: str):
    model = small(architecture, width=0.25, **VARIANTS[variant])
    options = VARIANTS[variant]
    x = images(architecture, 8)
    train_a_little(model, x)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    weight_states, act_states = options.get("weight_states", 3), options.get("act_states", 4)
    for layer in quantized_layers(model).values():
        assert (layer.states.count if layer.states else None) == weight_states
    for act in activations(model).values():
        assert (act.states.count if act.states else None) == act_states
    model.eval()
    logits = model(x)
    assert logits.isfinite().all()
    if None not in (weight_states, act_states) and options.get("norm") is not Norm.LN:
        assert torch.equal(torch.cat([model(image[None]) for image in x]), logits)


@pytest.mark.parametrize("architecture", SMALL, ids=lambda a: a.value)
def test_float_networks_are_plain_pytorch_in_evaluation(architecture: Architecture):
    """The baseline: replacing its layers by PyTorch's own changes nothing but rounding."""
    model = small(architecture, width=0.25, weight_states=None, act_states=None, norm=Norm.BN)
    x = images(architecture, 8)
    train_a_little(model, x)
    model.eval()
    expected = model(x)
    for block in list(model.modules()):
        for name, child in list(block.named_children()):
            if isinstance(child, NormActivation):
                norm = nn.BatchNorm2d(child.norm.num_features)
                norm.load_state_dict(child.norm.state_dict(), strict=False)
                setattr(block, name, nn.Sequential(norm, nn.ReLU()).eval())
            elif isinstance(child, QuantConv2d):
                conv = nn.Conv2d(
                    child.in_channels, child.out_channels, child.kernel_size, child.stride, child.padding, bias=False
                )
                conv.load_state_dict(child.state_dict())
                setattr(block, name, conv)
            elif isinstance(child, MaxPool2d):
                setattr(block, name, nn.MaxPool2d(child.kernel_size, child.stride, child.padding))
    assert not quantized_layers(model).keys() - {"head"}
    torch.testing.assert_close(model(x), expected, rtol=1e-3, atol=1e-4)


# With fewer than 12 channels, oneDNN's weight gradient of a channels_last 1x1 convolution of stride 2 writes out of
# bounds on images of 56 x 56 (torch 2.13.0 on AVX2 and AVX-512).
LARGE = [(Architecture.VGG16, 1 / 16), (Architecture.PREACT_RESNET18, 1 / 4)]


@pytest.mark.parametrize(("architecture", "width"), LARGE, ids=str)
def test_large_images_reach_the_head(architecture: Architecture, width: float):
    model = small(architecture, width=width, size=224)
    x = images(architecture, 2, size=224)
    train_a_little(model, x, steps=1)
    logits = model.eval()(x)
    assert logits.shape == (2, CLASSES)
    assert torch.equal(model(x[:1]), logits[:1])
    assert isinstance(model.pool, GlobalSumPool)
    assert model.pool.positions == 49


@pytest.mark.parametrize("size", [32, 33, 45, 95, 96, 97, 130])
def test_residual_networks_take_images_of_any_size(size: int):
    architecture = Architecture.PREACT_RESNET_NARROW
    model = small(architecture, size=size).eval()
    assert model(images(architecture, 1, size=size)).shape == (1, CLASSES)


@pytest.mark.parametrize(
    ("architecture", "smallest"),
    [(a, 32 if a is not Architecture.VGG_NARROW else 8) for a in VGGS] + [(Architecture.DIGITS, 4)],
    ids=str,
)
def test_too_small_images_are_refused(architecture: Architecture, smallest: int):
    assert small(architecture, size=smallest).eval()(images(architecture, 1, size=smallest)).shape == (1, CLASSES)
    with pytest.raises(ConfigError, match=rf"needs at least {smallest} pixels, got {smallest - 1}"):
        small(architecture, size=smallest - 1)


@pytest.mark.parametrize("architecture", [Architecture.VGG11, Architecture.PREACT_RESNET18], ids=lambda a: a.value)
def test_images_of_another_size_are_refused(architecture: Architecture):
    with pytest.raises(ConfigError, match="positions"):
        small(architecture).eval()(images(architecture, 1, size=64))


@architectures
def test_images_in_float_are_refused(architecture: Architecture):
    with pytest.raises(DataError, match="uint8"):
        small(architecture)(images(architecture, 2).float())


@pytest.mark.parametrize("width", [0.0, -1.0, float("nan")])
def test_a_width_that_is_not_positive_is_refused(width: float):
    with pytest.raises(ConfigError, match="width"):
        small(Architecture.DIGITS, width=width)


@architectures
def test_width_scales_every_hidden_layer(architecture: Architecture):
    narrow, wide = (quantized_layers(small(architecture, width=width)) for width in (1 / 16, 1 / 8))
    assert narrow.keys() == wide.keys()
    for name in narrow.keys() - {"head"}:
        assert wide[name].weight.shape[0] == 2 * narrow[name].weight.shape[0]
    assert wide["head"].weight.shape[0] == CLASSES


@architectures
def test_networks_have_the_published_depth(architecture: Architecture):
    """Layers with weights but for 1x1 shortcuts; the narrow ones are this package's own."""
    layers = [name for name in quantized_layers(small(architecture)) if "shortcut" not in name]
    own = {"vgg_narrow": 7, "preact_resnet_narrow": 14, "digits": 4, "micro": 4}
    # VGG11 .. VGG19 count three dense layers, of which one remains.
    published = {"vgg11": 11 - 2, "vgg16": 16 - 2, "vgg19": 19 - 2}
    resnets = {
        "preact_resnet8": 8,
        "preact_resnet20": 20,
        "preact_resnet18": 18,
        "preact_resnet34": 34,
        "preact_resnet50": 50,
    }
    assert len(layers) == (own | published | resnets)[architecture.value]


# ---- overrides -------------------------------------------------------------------------------------------------------


@architectures
def test_the_factorys_names_are_those_of_the_modules(architecture: Architecture):
    """A pattern is written against names that a user can see in the model."""
    asked: set[str] = set()

    class Recorder(LayerFactory):
        def weight_quantizer(self, name: str):
            asked.add(name)
            return super().weight_quantizer(name)

        def quantizer(self, name: str):
            asked.add(name)
            return super().quantizer(name)

    model = small(architecture)
    plan = {
        "vgg11": "VGG11", "vgg16": "VGG16", "vgg19": "VGG19", "vgg_narrow": "NARROW", "digits": "DIGITS",
        "preact_resnet18": "RESNET18", "preact_resnet34": "RESNET34", "preact_resnet50": "RESNET50",
        "preact_resnet_narrow": "NARROW", "preact_resnet8": "RESNET8", "preact_resnet20": "RESNET20",
        "micro": "MICRO",
    }[architecture.value]  # fmt: skip
    kinds = ResNetPlan if architecture in RESNETS else StridedPlan if architecture is Architecture.MICRO else VGGPlan
    type(model)(kinds[plan], Recorder(quant=QuantConfig()), width=1 / 16, in_channels=1, num_classes=2, image_size=32)
    assert asked == quantized_layers(model).keys() | activations(model).keys()


OVERRIDES = [
    Override(pattern="stem*", weight_states=8),
    Override(pattern="*.act*", act_states=2),
    Override(pattern="head", weight_states=None),
    Override(pattern="features.0.*", weight_states=5, act_states=None),
    Override(pattern="stages.1.*", weight_states=5, act_states=7),
    Override(pattern="stages.1.0.shortcut", weight_states=16),
]


@pytest.mark.parametrize("architecture", SMALL, ids=lambda a: a.value)
def test_overrides_change_exactly_the_layers_that_match_and_the_last_wins(architecture: Architecture):
    model = small(architecture, width=0.25, overrides=OVERRIDES)
    for name, layer in quantized_layers(model).items():
        if name == "head":
            expected = None
        elif name == "stages.1.0.shortcut":
            expected = 16
        elif name.startswith(("stages.1.", "features.0.")):
            expected = 5
        else:
            expected = 8 if name.startswith("stem") else 3
        assert (layer.states.count if layer.states else None) == expected, name
    for name, act in activations(model).items():
        if name.startswith("features.0."):
            expected = None
        elif name.startswith("stages.1."):
            expected = 7
        else:
            expected = 2 if ".act" in name else 4
        assert (act.states.count if act.states else None) == expected, name
    train_a_little(model, images(architecture, 4))
    assert model.eval()(images(architecture, 2)).isfinite().all()


def test_an_override_with_impossible_states_is_refused():
    with pytest.raises(ConfigError, match="states"):
        small(Architecture.DIGITS, overrides=[Override(pattern="*", weight_states=1)])


def test_quantization_options_out_of_range_are_refused():
    for options in ({"weight_states": 1}, {"act_states": 65537}, {"weight_step": 0.0}, {"act_step": 0.3}):
        with pytest.raises(ConfigError):
            QuantConfig(**options)  # type: ignore[arg-type]


def test_networks_of_256_states_are_built_though_sums_pass_2_to_the_24():
    quant = QuantConfig(weight_states=256, act_states=256)
    network = build_model(ModelConfig(quant=quant), in_channels=3, num_classes=10, image_size=32)
    layers = [layer for layer in network.modules() if isinstance(layer, QuantConv2d)]
    assert max(layer.weight[0].numel() for layer in layers) * 255 * 255 > 2**24


@pytest.mark.parametrize("architecture", SMALL, ids=lambda a: a.value)
def test_layer_norm_is_used_where_it_was_asked_for(architecture: Architecture):
    model = small(architecture, norm=Norm.LN)
    assert all(isinstance(act.norm, LayerNorm) for act in activations(model).values())


@architectures
def test_state_dicts_restore_the_same_logits(architecture: Architecture):
    model = small(architecture)
    x = images(architecture, 4)
    train_a_little(model, x)
    other = small(architecture).eval()
    assert not torch.equal(other(x), model.eval()(x))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))
    assert x.shape[-1] == size_of(architecture)


@pytest.mark.parametrize(
    ("override", "option"),
    [
        (Override(pattern="stemm.*", weight_states=15), "weight_states"),
        (Override(pattern="stem.act", weight_states=15), "weight_states"),
        (Override(pattern="stem.conv", act_states=2), "act_states"),
    ],
)
def test_overrides_that_match_no_layer_are_refused(override: Override, option: str) -> None:
    quant = QuantConfig(overrides=[Override(pattern="stem.*", weight_states=15, act_states=8), override])
    config = ModelConfig(architecture=Architecture.DIGITS, quant=quant)
    network = build_model(config, in_channels=1, num_classes=10, image_size=8)
    with pytest.raises(ConfigError, match=rf"{re.escape(repr(override.pattern))} sets {option} and matches none"):
        check_overrides(quant, network)
    check_overrides(replace(quant, overrides=quant.overrides[:1]), network)
