"""Networks that people write convert unedited, train, lower, and give the same integers on all engines."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from effort import long
from float_networks import BasicBlock, Bottleneck, PlainCNN, PreActResNet, ResNet, prepared
from float_published import SMALL, ConvNeXt, ECGNet, MobileNetV3, RegNetY, TransposedUNet
from float_zoo import (
    FPN,
    VGG11BN,
    ConvNeXtBlock,
    CRNNFront,
    DenseNet,
    EfficientNet,
    Inception,
    MobileNetV2,
    SensorResNet,
    ShuffleNetV2,
    Siamese,
    SqueezeNet,
    TwoHeads,
    UNet,
    WaveNet,
)
from torch import nn

import maqd
from maqd.convert import ConversionConfig, ConversionError, Kept, convert
from maqd.lowering import TorchEngine
from maqd.runtime import ENGINES
from maqd.runtime.verify import verify

RUNTIMES = ["native", *(["onnxruntime"] if importlib.util.find_spec("onnxruntime") else [])]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network, the shape of one sample of each input, and what its normalizations become."""

    build: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    norm: Kept = Kept.KEEP


NETWORKS = {
    "plain": Case(build=PlainCNN, shapes=((3, 16, 16),)),
    "resnet18": Case(build=lambda: ResNet(BasicBlock, (1, 2, 1)), shapes=((3, 32, 32),)),
    "resnet50": Case(build=lambda: ResNet(Bottleneck, (1, 2, 1)), shapes=((3, 32, 32),)),
    "efficientnet": Case(build=EfficientNet, shapes=((3, 16, 16),)),
    "squeeze_excite": Case(build=lambda: EfficientNet(gate=nn.Sigmoid), shapes=((3, 16, 16),)),
    "shufflenetv2": Case(build=ShuffleNetV2, shapes=((3, 16, 16),)),
    "unet": Case(build=UNet, shapes=((3, 16, 16),)),
    "fpn": Case(build=FPN, shapes=((3, 16, 16),)),
    "wavenet": Case(build=WaveNet, shapes=((1, 32),)),
    "vgg11": Case(build=VGG11BN, shapes=((3, 32, 32),)),
    "mobilenetv2": Case(build=MobileNetV2, shapes=((3, 16, 16),)),
    "squeezenet": Case(build=SqueezeNet, shapes=((3, 24, 24),)),
    "densenet": Case(build=DenseNet, shapes=((3, 12, 12),)),
    "inception": Case(build=Inception, shapes=((3, 16, 16),)),
    "sensor": Case(build=SensorResNet, shapes=((3, 32),)),
    "crnn": Case(build=CRNNFront, shapes=((1, 16, 20),)),
    "siamese": Case(build=Siamese, shapes=((1, 16, 16), (1, 16, 16))),
    "two_heads": Case(build=TwoHeads, shapes=((3, 16, 16),)),
    "convnext": Case(build=ConvNeXtBlock, shapes=((3, 32, 32),)),
    "preact": Case(build=PreActResNet, shapes=((3, 16, 16),)),
    "transposed_unet": Case(build=TransposedUNet, shapes=((3, 16, 16),)),
    "ecg": Case(build=ECGNet, shapes=((12, 64),)),
    "mobilenetv3": Case(build=lambda: MobileNetV3(0.25, SMALL[:5:2]), shapes=((3, 32, 32),)),
    "regnety": Case(build=lambda: RegNetY((1, 1), (8, 16), 4, 8), shapes=((3, 32, 32),)),
    "layer_norms": Case(build=lambda: ConvNeXt((1, 1), (8, 16), 2), shapes=((3, 16, 16),), norm=Kept.LBN),
    "mobilenetv3_small": Case(build=MobileNetV3, shapes=((3, 64, 64),)),
    "regnety_200mf": Case(build=RegNetY, shapes=((3, 64, 64),)),
    "convnext_atto": Case(build=ConvNeXt, shapes=((3, 64, 64),), norm=Kept.LBN),
}

LONG = {
    "shufflenetv2", "fpn", "wavenet", "squeezenet", "inception", "convnext", "preact", "transposed_unet",
    "resnet50", "densenet", "vgg11", "mobilenetv2", "squeeze_excite", "sensor", "unet", "mobilenetv3", "regnety",
    "mobilenetv3_small", "regnety_200mf", "convnext_atto",
}  # fmt: skip
NAMES = [pytest.param(name, marks=[long] if name in LONG else []) for name in NETWORKS]


def made(case: Case) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    network = prepared(case.build(), *case.shapes)
    return network, tuple(torch.randn(8, *shape) for shape in case.shapes)


def check_engines(model: nn.Module, examples: tuple[torch.Tensor, ...]) -> None:
    """Every tensor of the lowered network is the same in PyTorch, the interpreter and the engines."""
    graph = maqd.lower(model, examples).graph
    engines = [TorchEngine(model, graph), *(ENGINES[name].make(graph, threads=1) for name in RUNTIMES)]
    assert verify(graph, engines, [tuple(example.numpy() for example in examples)]).ok


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_it_converts_trains_lowers_and_is_the_same_everywhere(name: str):
    case = NETWORKS[name]
    network, examples = made(case)
    model = convert(network, examples, ConversionConfig(weights=3, activations=4, stream=16, norm=case.norm)).model
    before = {key: value.clone() for key, value in network.state_dict().items()}
    model.train()
    with torch.no_grad():
        first = flat(model(*examples))
    wanted = torch.randn(first.shape, generator=torch.Generator().manual_seed(1)) * first.std() + first.mean()
    optimizer = torch.optim.Adam([value for value in model.parameters() if value.requires_grad], lr=3e-3)
    losses = []
    for _ in range(12):
        loss = (flat(model(*examples)) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) < sum(losses[:3])
    check_engines(model.eval(), examples)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def flat(result: object) -> torch.Tensor:
    if isinstance(result, torch.Tensor):
        return result.flatten()
    assert isinstance(result, dict)
    return torch.cat([flat(part) for part in result.values()])


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_many_states_are_the_float_network(name: str):
    case = NETWORKS[name]
    network, examples = made(case)
    report = convert(network, examples, weights=255, activations=256, norm=case.norm).report
    assert report.agreement is not None
    if case.norm is not Kept.KEEP:  # statistics of the batch for those of each sample
        assert report.agreement.cosine > 0.8
        return
    assert report.agreement.cosine > 0.999
    assert min(layer.cosine for layer in report.agreement.layers) > 0.998


def test_layer_normalizations_are_refused_with_the_remedy_that_works():
    network, examples = made(NETWORKS["layer_norms"])
    with pytest.raises(ConversionError, match="norm='lbn'") as caught:
        convert(network, examples)
    assert len(caught.value.refusals) == 5
    assert all("layer_norm" in refusal.module or "norm" in refusal.module for refusal in caught.value.refusals)


def test_a_gelu_of_few_states_is_a_rectifier_and_the_report_says_so():
    network, examples = made(NETWORKS["convnext"])
    report = convert(network, examples, weights=255, activations=48).report
    assert [row.name for row in report.rows if "approximation" in row.becomes] == ["act"]
    assert report.agreement is not None
    assert report.agreement.cosine > 0.99
