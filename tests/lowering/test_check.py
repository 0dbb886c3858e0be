"""All refusals of a network at once, with their lines; what checking and comparing leave as it was."""

import pickle
import pickletools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import maqd
from maqd.errors import GraphError, LoweringError
from maqd.graph import Flatten, GlobalSum, Graph, MaxPool, SumPool
from maqd.lowering import Refusal, TorchEngine, lower
from maqd.nn import IntegerInput, LayerBatchNorm, NormActivation, QuantConv2d, Quantizer, QuantLinear
from maqd.numerics.states import States
from maqd.runtime.verify import verify

FOUR = Quantizer(states=States(count=4, signed=False))
EXAMPLE = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)


class Net(nn.Module):
    """A stem whose codes a function is applied to."""

    def __init__(self, function):
        super().__init__()
        self.input = IntegerInput()
        self.conv = QuantConv2d(3, 4, 3, padding=1, input_grid=IntegerInput.grid)
        self.act = NormActivation(LayerBatchNorm(4), FOUR)
        self.head = QuantLinear(4, 2)
        self.float_conv = nn.Conv2d(4, 4, 1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, self.act(self.conv(self.input(x))))


def lowered(function, **options) -> tuple[Net, Graph]:
    torch.manual_seed(0)
    network = Net(function)
    graph = lower(network, EXAMPLE, **options).graph
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    result = verify(graph, [TorchEngine(network, graph)], [images])
    assert result.ok, result
    return network, graph


def three_faults(net: Net, x: Tensor) -> Tensor:
    x = net.float_conv(x)
    x = torch.sigmoid(x)
    return x * 2.3


def test_all_refusals_come_at_once_in_order_with_module_line_reason_and_remedy():
    refusals = maqd.check(Net(three_faults), EXAMPLE)
    assert [refusal.module for refusal in refusals] == ["float_conv", "sigmoid", "mul"]
    assert [str(refusal.line).split(": ", 1)[1] for refusal in refusals] == [
        "x = net.float_conv(x)", "x = torch.sigmoid(x)", "return x * 2.3"
    ]  # fmt: skip
    assert all("test_check.py:" in str(refusal.line) for refusal in refusals)
    assert refusals[0].reason == "Conv2d has float weights"
    assert refusals[0].remedy == "use QuantConv1d, QuantConv2d or QuantLinear"
    with pytest.raises(LoweringError, match=r"^3 calls have no exact integer form:") as caught:
        lower(Net(three_faults), EXAMPLE)
    assert all(str(refusal) in str(caught.value) for refusal in refusals)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert "Refusal" in pickletools.optimize(pickle.dumps(refusals)).decode("latin-1")


def test_a_network_that_can_be_lowered_has_no_refusals_and_stays_as_it_is():
    network = Net(lambda net, x: net.head(x.mean((2, 3))))
    maqd.check(network, EXAMPLE)  # finds the grid of the head's input, once
    network.act.eval()  # a mode of its own
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert maqd.check(network, EXAMPLE) == ()
    lower(network, EXAMPLE)
    assert network.training
    assert not network.act.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_what_follows_a_refused_call_is_not_blamed_for_its_numbers():
    def function(net: Net, x: Tensor) -> Tensor:
        x = torch.sigmoid(x)
        return net.head(F.max_pool2d(x + x, 8).flatten(1))

    assert [refusal.module for refusal in maqd.check(Net(function), EXAMPLE)] == ["sigmoid"]


def test_the_pytorch_engine_leaves_grad_mode_and_training_modes_alone():
    network, graph = lowered(lambda net, x: net.head(x.mean((2, 3))))
    engine = TorchEngine(network.train(), graph)
    tensors = engine.layers(np.zeros((2, 3, 8, 8), np.uint8))
    next(tensors)
    assert torch.is_grad_enabled()
    assert all(module.training for module in network.modules())
    assert len(list(tensors)) == len(graph.nodes) - 1


def test_values_that_are_not_finite_are_refused_with_one_message():
    network = Net(lambda net, x: net.head(x.mean((2, 3))))
    with torch.no_grad():
        network.conv.weight[0, 0, 0, 0] = torch.nan
        network.act.norm.running_var.fill_(torch.inf)
    assert [str(refusal) for refusal in maqd.check(network, EXAMPLE)] == [
        f"{name}: {count} of the {total} values of its {what} are infinite or not a number; train again, or load a "
        "checkpoint from before the values were lost" + where
        for name, what, count, total, where in (
            ("conv", "weight", 1, 108, refusal_line(network, 0)),
            ("act", "norm.running_var", 1, 1, refusal_line(network, 1)),
        )
    ]


def test_layers_that_do_not_round_are_refused():
    network = Net(lambda net, x: net.head(x.mean((2, 3))))
    network.conv.rounding = network.act.rounding = False
    assert [(r.module, r.reason) for r in maqd.check(network, EXAMPLE)] == [
        ("conv", "it is set not to round"), ("act", "it is set not to round")
    ]  # fmt: skip


def refusal_line(network: nn.Module, place: int) -> str:
    refusal: Refusal = maqd.check(network, EXAMPLE)[place]
    return f" [{refusal.line}]"


# ---- shapes and constants -------------------------------------------------------------------------------------------


def by_shape(net: Net, x: Tensor) -> Tensor:
    n, channels, height, width = x.shape
    if height * width > 16:  # sizes are numbers: code may branch on them
        x = F.avg_pool2d(x, kernel_size=height // 2)
    return x.view(n, channels * 4)


FLAT = {
    "view": lambda _, x: x.view(x.size(0), -1),
    "view by shape": lambda _, x: x.view(x.shape[0], x.shape[1] * x.shape[2] * x.shape[3]),
    "reshape": lambda _, x: x.reshape(len(x.shape) - 5, 4 * 64),
    "torch.reshape": lambda _, x: torch.reshape(x, (x.size(dim=0), -1)),
    "flatten": lambda _, x: torch.flatten(x, start_dim=1),
    "flatten by keyword": lambda _, x: torch.flatten(input=x, start_dim=1, end_dim=3),
    "method": lambda _, x: x.contiguous().flatten(1, -1),
}


@pytest.mark.parametrize("name", FLAT)
def test_spellings_of_flattening(name: str):
    _, graph = lowered(FLAT[name])
    assert isinstance(graph.nodes[-2], Flatten)
    assert graph.types[graph.nodes[-1].name].shape == (256,)


POOLED = {
    "mean": (lambda _, x: x.mean((2, 3)), GlobalSum),
    "mean by keyword": (lambda _, x: torch.mean(input=x, dim=[-2, -1]), GlobalSum),
    "mean that keeps": (lambda _, x: x.mean(dim=(3, 2), keepdim=True), SumPool),
    "sum": (lambda _, x: x.sum((2, 3)), GlobalSum),
    "adaptive, squeezed": (lambda _, x: F.adaptive_avg_pool2d(x, 1).squeeze(), Flatten),
    "adaptive to 2": (lambda _, x: F.adaptive_avg_pool2d(x, (2, 4)), SumPool),
    "average by keyword": (lambda _, x: F.avg_pool2d(x, kernel_size=2, stride=(2, 1)), SumPool),
    "max by keyword": (lambda _, x: F.max_pool2d(input=x, kernel_size=(2, 2), padding=1), MaxPool),
    "max": (lambda _, x: torch.max_pool2d(x, 3, 2), MaxPool),
}


@pytest.mark.parametrize("name", POOLED)
def test_spellings_of_pooling(name: str):
    function, kind = POOLED[name]
    _, graph = lowered(function)
    assert isinstance(graph.nodes[-2], kind)


def test_sizes_are_numbers_and_the_batch_stays_open():
    _, graph = lowered(by_shape)
    assert graph.types[graph.nodes[-1].name].shape == (16,)


def test_concatenations_of_one_and_of_many():
    _, graph = lowered(lambda net, x: net.head(torch.cat([x], 1).mean((2, 3))))
    assert [node.operation for node in graph.nodes].count("concat") == 0
    _, graph = lowered(lambda _, x: torch.concatenate(tensors=[x] * 65, axis=1))
    assert graph.types["concatenate"].shape == (4 * 65, 8, 8)


def test_a_sum_of_a_list_begins_with_zero():
    _, graph = lowered(lambda _, x: sum([x, x, x]))
    assert [node.operation for node in graph.nodes].count("add") == 2


# ---- memory that is written to --------------------------------------------------------------------------------------


def shortcut_in_place(_: Net, x: Tensor) -> Tensor:
    shortcut = x
    x += x
    return x + shortcut


def through_a_view(_: Net, x: Tensor) -> Tensor:
    x.view(-1, 256).add_(x.flatten(1))
    return x


def test_memory_that_is_changed_and_read_again_is_refused():
    for function in (shortcut_in_place, through_a_view):
        (refusal, *_) = maqd.check(Net(function), EXAMPLE)
        assert refusal.reason == "it changes its input in place, and the input is used again"


def test_a_sum_in_place_that_nothing_reads_again_is_a_sum():
    def function(_: Net, x: Tensor) -> Tensor:
        y = F.max_pool2d(x, 3, 1, 1)
        y += x
        return y

    _, graph = lowered(function)
    assert graph.nodes[-2].operation == "add"


def test_saving_what_lower_returns_points_to_its_graph(tmp_path: Path):
    result = lower(Net(lambda net, x: net.head(x.mean((2, 3)))), EXAMPLE)
    with pytest.raises(GraphError, match=r"^a .maqd file holds a Graph, got Lowered; .* as \.graph$"):
        maqd.save(result, tmp_path / "x.maqd")  # pyright: ignore[reportArgumentType]


# ---- wrapped networks -----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_compiled_and_parallel_networks_lower_like_the_network_inside():
    torch.manual_seed(0)
    network = Net(lambda net, x: net.head(x.mean((2, 3))))
    plain = str(lower(network, EXAMPLE).graph)
    assert str(lower(torch.compile(network), EXAMPLE).graph) == plain
    assert str(lower(nn.DataParallel(network), EXAMPLE).graph) == plain
    network.act = torch.compile(network.act)
    assert str(lower(network, EXAMPLE).graph) == plain
