"""255 weight and 256 activation states: sums beyond 2^24, which PyTorch evaluates in float64, engines in int32."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from agreement import engines
from torch import Tensor, nn

import maqd
from maqd.errors import ExportError, LoweringError
from maqd.export.onnx.qonnx import Flavour, qonnx_model
from maqd.graph import container
from maqd.graph.proof import Evaluated, candidate
from maqd.lowering import Lowered, TorchEngine, lower
from maqd.nn import (
    GlobalSumPool,
    IntegerInput,
    LayerBatchNorm,
    NormActivation,
    QuantActivation,
    QuantConv2d,
    Quantizer,
    QuantLinear,
)
from maqd.numerics.bounds import Interval
from maqd.numerics.fixedpoint import AffineForm
from maqd.numerics.limits import EXACT_LIMIT
from maqd.numerics.states import States
from maqd.runtime import NativeEngine, NumpyEngine
from maqd.runtime.onnxruntime import OnnxRuntime
from maqd.runtime.verify import verify

BYTES = Quantizer(states=States(count=256, signed=False), step=2.0**-6)
EXAMPLE = torch.zeros(1, 3, 6, 6, dtype=torch.uint8)


class Wide(nn.Module):
    """A fan-in of 4320 with 255 weight states, a residual sum, a signed activation, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.input = IntegerInput()
        self.stem = QuantConv2d(3, 480, 3, states=255)
        self.act1 = NormActivation(LayerBatchNorm(480), BYTES)
        self.conv = QuantConv2d(480, 32, 3, padding=1, states=255, bias=True)
        self.short = QuantConv2d(480, 32, 1, states=128)
        self.act2 = NormActivation(LayerBatchNorm(32), Quantizer(states=States(count=255, signed=True), step=2.0**-5))
        self.linear = QuantLinear(32 * 16, 24, states=255)
        self.act3 = QuantActivation(BYTES)
        self.head = QuantLinear(24, 3, states=255, bias=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.act1(self.stem(self.input(x)))
        x = self.conv(x) + self.short(x)
        y = self.act2(x)
        return self.head(self.act3(self.linear(y.flatten(1)))), x.mean((2, 3))


@pytest.fixture(scope="module")
def network() -> Wide:
    torch.manual_seed(0)
    network = Wide()
    lower(network, EXAMPLE)  # finds the grids
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(3):
        images = torch.randint(0, 256, (8, 3, 6, 6), dtype=torch.uint8)
        sum(part.square().mean() for part in network(images)).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():  # weights of one magnitude reach furthest
        network.conv.weight[:4].copy_(torch.randint(0, 2, (4, 480, 3, 3)) * 2 - 1)
        network.act2.norm.weight[:8].copy_(torch.tensor([1e-3, -1e-2, 0, 3, -5, 100, 1e-30, -1]))
    return network.eval()


@pytest.fixture(scope="module")
def lowered(network: Wide) -> Lowered:
    return lower(network, EXAMPLE)


def test_all_engines_agree(network: Wide, lowered: Lowered):
    graph = container.from_bytes(container.to_bytes(lowered.graph))
    assert graph.types["conv"].grid.magnitude >= EXACT_LIMIT
    assert network.conv.wide
    images = np.random.default_rng(0).integers(0, 256, (12, 3, 6, 6), dtype=np.uint8)
    images[:3] = 255
    images[3:6] = 0
    engines = [TorchEngine(network, graph), NumpyEngine(graph), NativeEngine(graph), OnnxRuntime(graph)]
    result = verify(graph, engines, [images])
    assert result.ok, result
    with torch.no_grad():
        scores, means = network(torch.from_numpy(images))
    found = engines[1].scores(images)
    np.testing.assert_array_equal(found["output0"], scores.numpy())
    np.testing.assert_array_equal(found["output1"], means.numpy())
    assert found["output1"].dtype == means.numpy().dtype == np.float64  # beyond 2^24, which float32 does not hold


class Averages(nn.Module):
    """Averages over 9 positions of sums that come near 2^24, and over 25, which go beyond: float64 in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.input = IntegerInput()
        self.conv = QuantConv2d(3, 16, 11, states=255)
        self.act = NormActivation(LayerBatchNorm(16), Quantizer(states=States(count=64, signed=False), step=2.0**-6))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.conv(self.input(x))
        means = F.avg_pool2d(x, 3, 1)
        return {
            "maps": means,
            "mean": x.mean((2, 3)),
            "codes": self.act(means),
            "from_float32": self.act(means.float()),
        }


def test_averages_are_float32_of_what_pytorch_gives_bit_for_bit():
    torch.manual_seed(3)
    network = Averages()
    images = torch.randint(0, 256, (64, 3, 15, 15), dtype=torch.uint8)
    assert maqd.check(network, images) == ()
    network(images)
    graph = lower(network.eval(), images).graph
    assert network.conv.wide
    assert 9 * graph.types["conv"].grid.magnitude < EXACT_LIMIT
    assert verify(graph, [TorchEngine(network, graph), *engines(graph)], [images.numpy()]).ok
    with torch.no_grad():
        wanted = network(images)
    assert wanted["maps"].dtype == wanted["mean"].dtype == torch.float64
    for engine in engines(graph):
        found = engine.scores(images)
        assert [node.divisor for node in graph.outputs] == [9, 25, 1, 1]
        for key, value in wanted.items():
            assert found[key].dtype == (np.float64 if key == "mean" else np.float32)
            expected = value.numpy().astype(found[key].dtype)
            np.testing.assert_array_equal(found[key], expected, err_msg=f"{engine.name}, {key}")


def test_every_step_of_the_widest_activation_is_proved(lowered: Lowered):
    reports = {report.name: report for report in lowered.activations}
    assert reports["act2"].checked > 10**8
    assert reports["act2"].mismatches == 0
    assert reports["act2"].rounded_mismatches is None


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_step_that_is_off_by_one_in_a_wide_channel_is_found(sign: float):
    limit = np.array([2**30])
    evaluated = Evaluated(
        states=States(count=4, signed=False),
        step_exponent=0,
        thresholds=np.array([[-(2.0**29) - 1], [3.0], [2.0**30 - 1]]),
        signs=np.array([sign], np.float32),
        exponent=0,
        interval=Interval(-limit, limit),
        scale=np.array([2.0**-29]),
        offset=np.array([2.0]),
    )
    right = candidate("act", "x", 0, evaluated, AffineForm.THRESHOLDS)
    assert right is not None
    assert right.prove().mismatches == 0
    assert right.prove().checked == 2**31 + 1
    for k, change in np.ndindex(3, 2):
        thresholds = right.node.thresholds.astype(np.int64)
        thresholds[k] += 2 * change - 1
        wrong = replace(right, node=replace(right.node, thresholds=thresholds))
        assert wrong.prove().mismatches > 0


def test_qonnx_says_what_float32_cannot_hold(lowered: Lowered):
    with pytest.raises(ExportError, match=r"conv node 'conv' can reach .* float32, which is exact below 2\^24"):
        qonnx_model(lowered.graph, Flavour.MULTITHRESHOLD)


def test_gradients_of_evaluation_are_finite_and_reach_the_input_of_wide_layers(network: Wide):
    x = torch.rand(1, 480, 4, 4).mul(256).floor().mul(2.0**-6).requires_grad_()
    network.act2(network.conv(x)).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32
    assert torch.isfinite(x.grad).all()


def test_sums_of_sums_in_float32_are_still_refused():
    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input, self.conv, self.pool = IntegerInput(), QuantConv2d(3, 4, 3, states=7), GlobalSumPool(16)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(self.input(x))
            for _ in range(8):
                x = x + x
            return self.pool(x)

    with pytest.raises(LoweringError, match=r"^pool: its integers can reach -\d+ .. \d+, and float32"):
        lower(Stream(), EXAMPLE)
