"""What lowering builds, and what it refuses: with the layer's name, the reason and the remedy."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from maqd.errors import DataError, LoweringError
from maqd.graph import Add, Conv, FixedPoint, GlobalSum, MaxPool, SumPool, Thresholds
from maqd.lowering import TorchEngine, lower
from maqd.models import Architecture, ModelConfig, build_model
from maqd.nn import (
    BatchNorm,
    GlobalSumPool,
    IntegerInput,
    LayerBatchNorm,
    LayerNorm,
    MaxPool2d,
    Norm,
    NormActivation,
    QuantActivation,
    QuantConfig,
    QuantConv1d,
    QuantConv2d,
    Quantizer,
    QuantLinear,
    Values,
    set_rounding,
)
from maqd.numerics.fixedpoint import AffineForm
from maqd.numerics.states import Grid, States
from maqd.runtime.verify import verify

FOUR = Quantizer(states=States(count=4, signed=False))
PIXELS = IntegerInput.grid
EXAMPLE = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def stem() -> list[nn.Module]:
    """uint8 3 x 8 x 8 -> codes 0..3, 4 x 8 x 8."""
    conv = QuantConv2d(3, 4, 3, padding=1, input_grid=PIXELS)
    return [IntegerInput(), conv, NormActivation(LayerBatchNorm(4), FOUR)]


def check(model: nn.Module, example: Tensor = EXAMPLE, **options):
    """Lowers a network and compares it on random images."""
    lowered = lower(model, example, **options)
    result = verify(lowered.graph, [TorchEngine(model, lowered.graph)], [images(5, *example.shape[1:])])
    assert result.ok, result
    return lowered


# ---- what is built --------------------------------------------------------------------------------------------------


def test_names_are_those_of_the_network():
    lowered = check(
        build_model(
            ModelConfig(architecture=Architecture.PREACT_RESNET_NARROW, width=0.25),
            in_channels=3,
            num_classes=10,
            image_size=8,
        )
    )
    names = [node.name for node in lowered.graph.nodes]
    assert names[:4] == ["input", "stem", "stages.0.0.act1", "stages.0.0.conv1"]
    assert {"stages.0.0.add", "stages.1.0.shortcut", "act", "pool", "head", "output"} <= set(names)
    assert [report.name for report in lowered.activations][:2] == ["stages.0.0.act1", "stages.0.0.act2"]


def test_a_layer_that_is_used_twice_gets_two_nodes():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(*stem())
            self.conv = QuantConv2d(4, 4, 3, padding=1, input_grid=FOUR.grid)
            self.act = NormActivation(LayerBatchNorm(4), FOUR)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            x = self.act(self.conv(x))
            return self.act(self.conv(x)) + x

    names = [node.name for node in check(Twice()).graph.nodes]
    assert names[-6:] == ["conv", "act", "conv#2", "act#2", "add", "output"]


@pytest.mark.parametrize("norm", [Norm.LBN, Norm.LEVELLED_LBN, Norm.BN, Norm.EBN])
def test_trained_statistics_fold(norm: Norm):
    torch.manual_seed(0)
    config = ModelConfig(architecture=Architecture.VGG_NARROW, width=0.25, quant=QuantConfig(norm=norm))
    network = build_model(config, in_channels=3, num_classes=10, image_size=8)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(5):
        network(torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8)).square().mean().backward()
        optimizer.step()
    check(network.eval())


def test_the_mode_of_the_network_does_not_matter():
    network = nn.Sequential(*stem())
    trained, evaluated = lower(network.train(), EXAMPLE).graph, lower(network.eval(), EXAMPLE).graph
    assert str(trained) == str(evaluated)
    first, second = trained.nodes[2], evaluated.nodes[2]
    assert isinstance(first, Thresholds)
    assert isinstance(second, Thresholds)
    np.testing.assert_array_equal(first.thresholds, second.thresholds)


def test_branches_are_aligned_by_shifts():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(*stem())
            self.wide = QuantConv2d(4, 4, 1, input_grid=FOUR.grid, gain=8.0)
            self.fine = QuantConv2d(4, 4, 3, padding=1, input_grid=FOUR.grid, gain=0.25)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return torch.add(self.wide(x), self.fine(x))

    network = Residual()
    add = check(network).graph["add"]
    assert isinstance(add, Add)
    assert network.wide.exponent is not None
    assert network.fine.exponent is not None
    assert add.shifts == (network.wide.exponent - network.fine.exponent, 0)
    assert add.shifts[0] > 0


POOLS: dict[str, tuple[Callable[[], nn.Module], type]] = {
    "max": (lambda: nn.MaxPool2d(3, 2, 1), MaxPool),
    "our max": (lambda: MaxPool2d(2), MaxPool),
    "average": (lambda: nn.AvgPool2d(2), SumPool),
    "average of 4 x 1": (lambda: nn.AvgPool2d((4, 1), 2, (1, 0)), SumPool),
    "average with a divisor": (lambda: nn.AvgPool2d(3, divisor_override=8), SumPool),
    "adaptive": (lambda: nn.AdaptiveAvgPool2d(1), SumPool),
    "global": (lambda: GlobalSumPool(64, FOUR.grid), GlobalSum),
}


@pytest.mark.parametrize("name", POOLS)
def test_pooling(name: str):
    make, kind = POOLS[name]
    assert isinstance(check(nn.Sequential(*stem(), make())).graph["3"], kind)


def test_global_sums_of_other_counts_are_exact():
    example = torch.zeros(1, 3, 7, 5, dtype=torch.uint8)
    lowered = check(nn.Sequential(*stem(), GlobalSumPool(35, FOUR.grid)), example)
    assert lowered.graph.types["3"].grid == Grid(low=0, high=105, exponent=-5)


def test_an_activation_on_a_sum_and_dropout():
    network = nn.Sequential(*stem(), nn.Dropout(), nn.AvgPool2d(2), QuantActivation(FOUR), nn.Identity())
    lowered = check(network.eval())
    assert [node.name for node in lowered.graph.nodes] == ["0", "1", "2", "4", "5", "output"]


def test_flatten_forms_and_concatenation():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(*stem())
            self.average = nn.AvgPool2d(1)
            self.blur = nn.AvgPool2d(2, 1, 1)
            self.crop = nn.MaxPool2d(2, 1)
            self.flat = nn.Flatten()

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            joined = torch.cat([self.average(x), x], dim=-3)
            tall = torch.cat((self.crop(self.blur(joined)), joined), 2)
            return torch.cat([tall.flatten(1), torch.flatten(x, start_dim=1), self.flat(x)], 1)

    check(Net())


def test_sequences_with_the_channels_last():
    grid = Grid(low=-128, high=127, exponent=-6)
    network = nn.Sequential(
        IntegerInput(),
        QuantLinear(5, 7, input_grid=grid),
        NormActivation(BatchNorm(7, channel_dim=-1), FOUR),
        QuantLinear(7, 3, bias=True, input_grid=FOUR.grid),
    )
    node = check(network.eval(), torch.zeros(1, 6, 5, dtype=torch.uint8)).graph["2"]
    assert isinstance(node, Thresholds)
    assert node.axis == 1


def test_sequences_with_the_channels_first():
    network = nn.Sequential(
        IntegerInput(),
        QuantConv1d(5, 7, 3, stride=2, padding=2, dilation=2, input_grid=PIXELS),
        NormActivation(LayerBatchNorm(7), FOUR),
        nn.MaxPool1d(2),
    )
    assert isinstance(check(network.eval(), torch.zeros(1, 5, 16, dtype=torch.uint8)).graph["1"], Conv)


@pytest.mark.parametrize(
    ("form", "few", "many"),
    [
        (AffineForm.AUTO, Thresholds, FixedPoint),
        (AffineForm.THRESHOLDS, Thresholds, Thresholds),
        (AffineForm.FIXED_POINT, FixedPoint, FixedPoint),
    ],
)
def test_the_form_of_activations(form: AffineForm, few: type, many: type):
    many_states = Quantizer(states=States(count=16, signed=False), step=0.25)
    last = [QuantConv2d(4, 5, 3, input_grid=FOUR.grid), NormActivation(LayerBatchNorm(5), many_states)]
    lowered = check(nn.Sequential(*stem(), *last), affine=form)
    assert type(lowered.graph["2"]) is few
    assert type(lowered.graph["4"]) is many
    for report in lowered.activations:
        assert (report.shift is None) == (form is AffineForm.THRESHOLDS)
        assert report.mismatches == 0
        kind = lowered.graph.types[lowered.graph[report.name].inputs[0]]
        widths = np.broadcast_to(kind.interval.high - kind.interval.low + 1, (kind.shape[0], 1, 1))
        assert report.checked == widths.sum()


def test_labels_and_progress():
    calls = []
    head = [GlobalSumPool(64, FOUR.grid), QuantLinear(4, 2, input_grid=Grid(low=0, high=192, exponent=-6))]
    lowered = lower(
        nn.Sequential(*stem(), *head), EXAMPLE, labels=("no", "yes"), progress=lambda *call: calls.append(call)
    )
    assert lowered.graph.labels("output") == ("no", "yes")
    assert calls == [("2", 0, 1)]


def test_saturated_and_dead_channels_keep_their_constant_codes():
    network = nn.Sequential(*stem())
    norm = network[2].norm
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.0, 0.0, 1e-30, -1e30]))
        norm.bias.copy_(torch.tensor([1.5, -9.0, 2.75, 0.0]))
    network.eval()
    graph = check(network).graph
    codes = dict(TorchEngine(network, graph).layers(images(4, 3, 8, 8)))["2"]
    assert [set(codes[:, c].flat) for c in range(3)] == [{2}, {0}, {3}]
    assert set(codes[:, 3].flat) == {0, 3}


# ---- what is refused ------------------------------------------------------------------------------------------------


class Calls(nn.Module):
    """A function of the codes after the stem."""

    def __init__(self, function: Callable[[Tensor], object], *layers: nn.Module):
        super().__init__()
        self.stem = nn.Sequential(*stem())
        self.layers = nn.ModuleList(layers)
        self.scale = nn.Parameter(torch.ones(()))
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(self.stem(x))


class Doubled(QuantConv2d):
    """Computes something else than its class."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def off_grid() -> QuantConv2d:
    conv = QuantConv2d(4, 4, 1, bias=True, input_grid=Grid(low=0, high=3 * 2**9, exponent=-9))
    assert conv.bias is not None
    nn.init.constant_(conv.bias, 3 * conv.accumulator_unit)
    return conv


def foreign_norm() -> nn.Module:
    act = NormActivation(BatchNorm(4), FOUR)
    act.norm = nn.BatchNorm2d(4)
    return sequence(act)


def unrounded(module: nn.Module) -> nn.Module:
    set_rounding(module, False)
    return module


def sequence(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*stem(), *layers)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "layer norm": (
        lambda: sequence(QuantConv2d(4, 4, 1, input_grid=FOUR.grid), NormActivation(LayerNorm(4), FOUR)),
        r"^4: LayerNorm takes its statistics from each sample.*; train with LayerBatchNorm or BatchNorm$",
    ),
    "normalization alone": (
        lambda: sequence(LayerBatchNorm(4)),
        "^3: LayerBatchNorm alone leaves a float after it; put it inside of NormActivation",
    ),
    "PyTorch's normalization": (lambda: sequence(nn.BatchNorm2d(4)), "^3: BatchNorm2d alone leaves a float"),
    "float weights": (
        lambda: sequence(QuantConv2d(4, 4, 1, states=None)),
        "^3: its weights are in float; give it states",
    ),
    "unrounded weights": (
        lambda: sequence(unrounded(QuantConv2d(4, 4, 1, input_grid=FOUR.grid))),
        "^3: it is set not to round; set its `rounding`",
    ),
    "unrounded activation": (
        lambda: sequence(unrounded(QuantActivation(FOUR))),
        "^3: it is set not to round; set its `rounding`",
    ),
    "PyTorch's convolution": (lambda: sequence(nn.Conv2d(4, 4, 1)), "^3: Conv2d has float weights; use QuantConv1d"),
    "PyTorch's linear": (lambda: sequence(nn.Flatten(), nn.Linear(256, 2)), "^4: Linear has float weights"),
    "float activation": (lambda: sequence(QuantActivation(None)), "^3: it is a ReLU in float; give it a quantizer"),
    "float norm activation": (lambda: sequence(NormActivation(BatchNorm(4), None)), "^3: it is a ReLU in float"),
    "Tanh": (lambda: sequence(nn.Tanh()), "^3: Tanh has no integer form; use NormActivation after a layer"),
    "a subclass": (lambda: sequence(Doubled(4, 4, 1, input_grid=FOUR.grid)), "^3: Doubled is a subclass"),
    "average without padding": (
        lambda: sequence(nn.AvgPool2d(2, padding=1, count_include_pad=False)),
        "^3: its divisor depends on the position; pool with count_include_pad=True",
    ),
    "adaptive to 3": (
        lambda: sequence(nn.AdaptiveAvgPool2d(3)),
        r"^3: its windows for an output .* differ in size",
    ),
    "bias off the grid": (
        lambda: sequence(off_grid()),
        "^3: its bias is not on the grid of its accumulator; call the layer with inputs of one unit only",
    ),
    "another unit": (
        lambda: sequence(QuantConv2d(4, 4, 1, input_grid=Grid(low=0, high=3, exponent=1))),
        r"^3: its input has codes 0 .. 3 times 2\^0, and it was built for codes 0 .. 3 times 2\^1; build it without",
    ),
    "a smaller range": (
        lambda: sequence(QuantConv2d(4, 4, 1, input_grid=Grid(low=0, high=2, exponent=0))),
        r"^3: its input has codes 0 .. 3 times 2\^0, and it was built for codes 0 .. 2 times 2\^0; build it without",
    ),
    "built for floats": (
        lambda: sequence(QuantConv2d(4, 4, 1, input_grid=Values.FLOAT)),
        "^3: it was built for an input in float; build it without input_grid",
    ),
    "another normalization": (foreign_norm, "^3: it holds BatchNorm2d, which it cannot fold; use BatchNorm"),
    "wrong channels": (
        lambda: sequence(NormActivation(BatchNorm(5), FOUR)),
        r"^3: BatchNorm expects 5 channels in dimension 1, got an input of shape \(N, 4, 8, 8\)",
    ),
    "no input layer": (lambda: nn.Sequential(QuantConv2d(3, 4, 1)), "^0: it takes the raw input; put maqd.nn.Integer"),
    "two input layers": (lambda: sequence(IntegerInput()), "^3: the input layer takes uint8 pixels"),
    "a constant": (lambda: Calls(lambda x: x + 0.3), "^add: it adds 0.3, no multiple of 2"),
    "a product": (lambda: Calls(lambda x: x * 2.3), "^mul: it multiplies by 2.3, no small"),
    "a function": (lambda: Calls(torch.tanh), "^tanh: tanh with 1 arguments is no operation"),
    "a scaled sum": (lambda: Calls(lambda x: torch.add(x, x, alpha=2)), "^add: it scales a summand by 2; add without"),
    "a view of the batch": (lambda: Calls(lambda x: x.view(-1, 128)), "^view: it moves the batch, or mixes it"),
    "flatten of the batch": (lambda: Calls(lambda x: x.flatten()), "^flatten: it moves the batch, or mixes it"),
    "batches joined": (lambda: Calls(lambda x: torch.cat([x, x])), "^cat: it works along dimension 0 of 4"),
    "a number beside the result": (lambda: Calls(lambda x: (x, 3)), "^output: its result 'output1' is 3 and no tensor"),
    "nothing": (lambda: Calls(lambda x: ()), "^output: the network must return tensors"),
    "far too wide sum": (
        lambda: Calls(lambda x: torch.cat([QuantConv2d(4, 4, 1, input_grid=FOUR.grid)(x), x], 1)),
        "cannot be traced",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_layer_reason_and_remedy(case: str):
    make, message = REFUSED[case]
    with pytest.raises(LoweringError, match=message):
        lower(make().eval(), EXAMPLE)


def test_a_parameter_of_the_module_itself_is_refused():
    class Scaled(Calls):
        def forward(self, x: Tensor) -> Tensor:
            return self.stem(x) + self.scale

    with pytest.raises(LoweringError, match=r"^scale: a tensor of the module itself is used; use the layers"):
        lower(Scaled(torch.relu), EXAMPLE)


def test_two_inputs_are_refused():
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    with pytest.raises(LoweringError, match=r"^y: forward\(\) takes 'y', for which there is no example"):
        lower(Two(), EXAMPLE)
    with pytest.raises(LoweringError, match=r"forward takes 2 tensors, and the example has 3; pass a batch for each"):
        lower(Two(), (EXAMPLE,) * 3)


def test_a_course_that_depends_on_the_data_is_refused():
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(LoweringError, match=r"^Branch: it cannot be traced: .*forward.. whose course does not depend"):
        lower(Branch(), EXAMPLE)


def test_accumulators_that_float32_does_not_hold_are_refused():
    class Stream(nn.Module):
        def __init__(self):
            super().__init__()
            self.input = IntegerInput()
            self.conv = QuantConv2d(3, 4, 3, padding=1, states=255, input_grid=PIXELS)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(self.input(x))
            for _ in range(9):
                x = x + x
            return x

    with pytest.raises(LoweringError, match=r"^add#\d: its integers can reach -\d+ .. \d+, and float32"):
        lower(Stream(), EXAMPLE)


def test_examples_must_be_batches_of_what_the_input_takes():
    with pytest.raises(DataError, match=r"lowering needs a batch .*, got torch\.uint8 \(3,\)"):
        lower(nn.Sequential(*stem()), torch.zeros(3, dtype=torch.uint8))
    with pytest.raises(LoweringError, match=r"the input layer takes uint8 pixels 0\.\.255, got torch\.float32"):
        lower(nn.Sequential(*stem()), torch.zeros(1, 3, 8, 8))


def test_images_of_another_size_are_refused():
    with pytest.raises(LoweringError, match=r"^3: PyTorch refuses it: .*\[N, 128\]"):
        lower(nn.Sequential(*stem()[:2], nn.Flatten(), QuantLinear(256, 2)), EXAMPLE[..., :4])


def test_another_network_is_noticed():
    network, other = nn.Sequential(*stem()).eval(), nn.Sequential(*stem()).eval()
    other[1] = QuantConv2d(3, 4, 3, padding=1, input_grid=PIXELS, gain=1 / 64).eval()
    graph = lower(network, EXAMPLE).graph
    with pytest.raises(LoweringError, match=r"^1: PyTorch computes .* not multiples of"):
        list(TorchEngine(other, graph).layers(images(2, 3, 8, 8)))
