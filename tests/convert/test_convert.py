"""`maqd.convert`: what it leaves alone, what its result can do, and what it says of bad input."""

import copy
from collections.abc import Callable

import pytest
import torch
from float_networks import BasicBlock, PlainCNN, ResNet, prepared
from torch import Tensor, nn

import maqd
from maqd.convert import Centring, ConversionConfig, ConversionError, convert
from maqd.convert.pixels import FromPixels
from maqd.errors import ConfigError, DataError, MaqdError
from maqd.nn import FittedSteps, NormActivation, QuantConv2d, QuantLinear
from maqd.nn.quantizers import RoundClip
from maqd.settings.quantization import Override

SHAPE = (3, 16, 16)


def network() -> nn.Module:
    torch.manual_seed(0)
    return prepared(PlainCNN(), SHAPE)


def batch(count: int = 8, seed: int = 1) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def test_network_and_random_state_are_left_alone():
    model, x = network().train(), batch()
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    state = torch.random.get_rng_state()
    maqd.convert(model, x, weights=3, activations=4)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes


def test_the_package_can_be_called_after_it_was_imported():
    assert callable(maqd.convert)
    result = maqd.convert(network(), batch())
    assert type(result) is type(convert(network(), batch()))


def test_names_and_modes_are_the_float_networks():
    model = convert(network().train(), batch()).model
    assert isinstance(model.conv1, QuantConv2d)
    assert isinstance(model.bn1, NormActivation)
    assert isinstance(model.fc2, QuantLinear)
    assert type(model).__name__ == "PlainCNN"
    assert model.training
    assert not convert(network(), batch()).model.training


def test_first_layer_and_head_have_more_states():
    states = {row.name: row.states for row in convert(network(), batch(), weights=3).report.rows if row.weights}
    assert states == {"conv1": 15, "conv2": 3, "fc1": 3, "fc2": 15}
    config = ConversionConfig(edge=7, overrides=[Override(pattern="fc1", weight_states=5)])
    states = {row.name: row.states for row in convert(network(), batch(), config).report.rows if row.weights}
    assert states == {"conv1": 7, "conv2": 3, "fc1": 5, "fc2": 7}


def test_the_result_is_an_ordinary_module():
    result, x = convert(network(), batch()), batch(4, seed=2)
    model = result.model
    expected = model(x)
    assert torch.equal(copy.deepcopy(model)(x), expected)
    other = convert(prepared(PlainCNN(), SHAPE, seed=5), batch(seed=6)).model
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), expected)


def test_a_branch_keeps_its_size_in_a_residual_network():
    """Standardized weights would change what each branch adds; a converted network does not."""
    torch.manual_seed(0)
    model = prepared(ResNet(BasicBlock, (1, 1)), (3, 32, 32))
    with torch.no_grad():
        model.layer1[0].bn2.weight.mul_(torch.linspace(0.01, 3, 4))
    x = torch.randn(16, 3, 32, 32)
    agreement = convert(model, x, weights=255, activations=256).report.agreement
    assert agreement is not None
    assert agreement.cosine > 0.999
    assert agreement.top1 == 1.0


def test_pixels_stay_pixels():
    torch.manual_seed(0)
    model = FromPixels(network(), (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
    x = torch.randint(0, 256, (8, *SHAPE), dtype=torch.uint8)
    result = convert(model, x, weights=63, activations=64)
    graph = maqd.lower(result.model, x).graph
    assert graph.inputs[0].storage.value == "uint8"
    assert result.report.agreement is not None
    assert result.report.agreement.cosine > 0.99
    with pytest.raises(ConfigError, match="as many means"):
        FromPixels(model, (0.5,), (0.0,))


@pytest.mark.parametrize("as_pixels", [True, False])
def test_zeros_around_an_image_are_the_float_networks(as_pixels: bool):
    """Each channel's mean is another pixel; a border of one pixel for all would be wrong at the edges."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 5))
    model = FromPixels(network, (0.6, 0.4, 0.2), (0.25, 0.2, 0.3)).eval()
    x = torch.randint(0, 256, (32, 3, 8, 8), dtype=torch.uint8)
    result = convert(model if as_pixels else Scaled(network), x if as_pixels else x / 255, weights=255, activations=256)
    found: list[Tensor] = []
    result.model.network.get_submodule("1").register_forward_hook(lambda _, inputs, output: found.append(output))
    with torch.no_grad():
        wanted = network[1](network[0]((x / 255 - model.mean) / model.std))
        result.model(x if as_pixels else x / 255)
    scale = float((found[0] * wanted).sum() / wanted.square().sum())
    off = (found[0] / scale - wanted).abs().amax((0, 1))
    edge = torch.ones(8, 8, dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    assert float(off[edge].max()) < 1.5 * float(off[~edge].max())


class Scaled(nn.Module):
    """A network that prepares floats itself."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor((0.6, 0.4, 0.2)).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor((0.25, 0.2, 0.3)).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.network((x - self.mean) / self.std)


def test_heads_have_the_float_networks_mean():
    model, x = network(), batch(64)
    result = convert(model, x, weights=3, activations=4)
    with torch.no_grad():
        off = result.model(x).mean(0) - model(x).mean(0)
    head = result.model.fc2
    assert isinstance(head, QuantLinear)
    assert head.exponent is not None
    assert float(off.abs().max()) <= 0.501 * 2.0**head.exponent  # biases are multiples of it


def test_filters_lose_their_means_where_that_is_asked_for_or_closer():
    model, x = network(), batch(32)
    made = {kind: convert(model, x, ConversionConfig(weights=127, activations=128, centring=kind)) for kind in Centring}
    assert isinstance(made[Centring.ALWAYS].model.conv2.quantizer, RoundClip)
    assert isinstance(made[Centring.ALWAYS].model.fc2.quantizer, FittedSteps)
    assert not any(isinstance(module, RoundClip) for module in made[Centring.NEVER].model.modules())
    cosines = {kind: one.report.agreement.cosine for kind, one in made.items() if one.report.agreement is not None}
    assert cosines[Centring.CLOSER] == max(cosines[Centring.NEVER], cosines[Centring.ALWAYS])
    assert "QuantConv2d, centred" in {row.becomes for row in made[Centring.ALWAYS].report.rows}
    assert maqd.lower(made[Centring.ALWAYS].model.eval(), x[:1]).graph.outputs


def test_sums_are_finer_where_activations_are():
    assert [ConversionConfig(activations=m).stream_states for m in (4, 64, 65, 256)] == [256, 256, 4095, 4095]
    assert ConversionConfig(activations=256, stream=256).stream_states == 256


def test_the_report_is_a_table():
    report = convert(network(), batch()).report
    lines = str(report).splitlines()
    assert lines[0].split() == ["layer", "was", "becomes", "states", "weights", "MACs", "lowers"]
    assert report.weights == sum(
        module.weight.numel() for module in network().modules() if isinstance(module, nn.Conv2d | nn.Linear)
    )
    assert lines[-1] == "it can be lowered"
    assert report.agreement is not None
    told = [f"cosine {layer.cosine:.4f}" for layer in report.agreement.layers]
    assert told == [row.becomes.rpartition(", ")[2] for row in report.rows if "quantizer, step" in row.becomes]


class TwoFaults(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.GroupNorm(1, 4)
        self.out = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return self.out(torch.softmax(x, 1))


def test_all_refusals_come_at_once_with_lines_and_remedies():
    with pytest.raises(ConversionError) as caught:
        convert(TwoFaults(), batch())
    assert [refusal.module for refusal in caught.value.refusals] == ["norm", "softmax"]
    for refusal, line in zip(caught.value.refusals, ("self.norm(self.conv(x))", "torch.softmax(x, 1)"), strict=True):
        assert refusal.line is not None
        assert line in refusal.line
        assert refusal.remedy in str(caught.value)


def test_what_is_refused_can_stay_in_float():
    model, x = TwoFaults().eval(), batch()
    result = convert(model, x, weights=255, activations=256, partial=True)
    assert {refusal.module for refusal in result.report.refusals} >= {"norm", "softmax"}
    assert isinstance(result.model.norm, nn.GroupNorm)
    assert torch.allclose(result.model(x), model(x), atol=0.05)


class Gate(nn.Module):
    """A course that depends on the data."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if x.mean() > -9 else x


class AroundGate(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.gate = Gate()
        self.last = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.gate(self.first(x))))


class BranchingRoot(AroundGate):
    def forward(self, x: Tensor) -> Tensor:
        x = self.gate(self.first(x))
        return self.last(x) if x.sum() > -1e9 else x


@pytest.mark.parametrize(("kind", "names"), [(AroundGate, ["gate"]), (BranchingRoot, ["BranchingRoot", "gate.Gate"])])
def test_what_cannot_be_traced_is_named_and_the_rest_is_converted(kind: type[nn.Module], names: list[str]):
    torch.manual_seed(0)
    model, x = kind().eval(), batch()
    with pytest.raises(ConversionError) as caught:
        convert(model, x)
    assert [refusal.module for refusal in caught.value.refusals] == names
    assert "x.mean() > -9" in str(caught.value.refusals[-1].line)
    result = convert(model, x, weights=255, activations=256, partial=True)
    assert [refusal.module for refusal in result.report.refusals][: len(names)] == names
    assert torch.allclose(result.model(x), model(x), atol=0.05)
    kinds = {name for name, module in result.model.named_modules() if isinstance(module, QuantConv2d)}
    assert len(kinds) == 4
    result.model.train()(x).sum().backward()
    assert all(value.grad is not None for value in result.model.parameters() if value.requires_grad)


def test_refusals_of_functions_have_the_networks_names_and_lines():
    class Broadcast(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 4, 3)
            self.two = nn.Conv2d(3, 1, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) + self.two(x)

    with pytest.raises(ConversionError) as caught:
        convert(Broadcast(), batch())
    (refusal,) = caught.value.refusals
    assert refusal.module == "add"
    assert "self.one(x) + self.two(x)" in str(refusal.line)


def nan(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        model.conv1.weight[0] = torch.nan
        model.fc1.bias[0] = torch.inf
    return model


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: convert(network().half(), batch()), ConfigError, r"conv1.weight is torch.float16; .*model.float\(\)"),
        (lambda: convert(network().to("meta"), batch()), ConfigError, r"conv1.weight is on meta; .*model.cpu\(\)"),
        (
            lambda: convert(nan(network()), batch()),
            ConfigError,
            r"27 values of conv1.weight .*\n.*1 values of fc1.bias",
        ),
        (lambda: convert(network(), torch.zeros(3)), DataError, "needs a batch"),
        (lambda: convert(network(), torch.zeros(2, 3, 20, 20)), ConversionError, "fc1: PyTorch refuses it"),
        (lambda: convert(network(), batch() / 0), DataError, "infinity or not-a-number"),
        (lambda: convert(network(), batch(), calibrate=[batch()[:, :, :8]]), DataError, "calibration data are"),
        (lambda: convert(network(), batch(), calibrate=[]), DataError, "at least one batch"),
        (lambda: convert(Branching(), batch()), ConversionError, "depend on the data"),
        (
            lambda: convert(
                network(), batch(), ConversionConfig(overrides=[Override(pattern="head*", weight_states=5)])
            ),
            ConfigError,
            r"'head\*' matches none of the layers \(conv1, ",
        ),
        (lambda: convert(network(), batch(), weights=1), ConfigError, "2 .. 256 states, got 1"),
    ],
)
def test_bad_input_says_what_to_do(call: Callable[[], object], error: type[MaqdError], message: str):
    with pytest.raises(error, match=message):
        call()
