"""Random small float networks: many states agree with float, and few states are the same integers on every engine."""

import torch
import torch.nn.functional as F
from effort import LONG
from float_networks import prepared
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import maqd
from maqd.convert import ConversionConfig, convert
from maqd.lowering import TorchEngine
from maqd.runtime import ENGINES
from maqd.runtime.verify import verify

STEPS = (
    "conv",
    "conv_bn_relu",
    "depthwise",
    "bn_relu",
    "relu",
    "residual",
    "branches",
    "max_pool",
    "average",
    "constant",
    "difference",
    "silu",
    "tanh",
    "transposed",
    "bilinear",
)


class Random(nn.Module):
    """Steps on N x 4 x 8 x 8, then a head."""

    def __init__(self, steps: list[str]):
        super().__init__()
        self.steps = steps
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.convs = nn.ModuleList(
            [nn.Conv2d(4, 4, 3, padding=1, groups=4 if step == "depthwise" else 1) for step in steps]
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(4) for _ in steps])
        self.transposed = nn.ConvTranspose2d(4, 4, 3, padding=1)
        self.squeezes = nn.ModuleList([nn.Conv2d(8, 4, 1) for _ in steps])
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for step, conv, norm, squeeze in zip(self.steps, self.convs, self.norms, self.squeezes, strict=True):
            match step:
                case "conv" | "depthwise":
                    x = conv(x)
                case "conv_bn_relu":
                    x = self.relu(norm(conv(x)))
                case "bn_relu":
                    x = F.relu(norm(x))
                case "relu":
                    x = F.relu(x)
                case "residual":
                    x = x + norm(conv(x))
                case "branches":
                    x = squeeze(torch.cat([F.relu(x), norm(conv(x))], 1))
                case "max_pool":
                    x = F.max_pool2d(x, 3, 1, 1)
                case "average":
                    x = F.avg_pool2d(x, 2, 1, 0) if x.shape[-1] > 2 else x
                case "constant":
                    x = x * -1.5 + 0.25
                case "difference":
                    x = x - norm(conv(x))
                case "silu":
                    x = F.silu(norm(x))
                case "tanh":
                    x = torch.tanh(x)
                case "transposed":
                    x = self.transposed(x)
                case "bilinear":
                    x = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear") if x.shape[-1] > 2 else x
        return self.head(x.mean((2, 3)))


@example(["constant", "max_pool", "constant"], 3)  # the largest of what a negative factor turns
@example(["average", "bilinear", "bilinear"], 0)  # sums of sums
@given(st.lists(st.sampled_from(STEPS), min_size=1, max_size=5), st.integers(0, 3))
@settings(max_examples=60 if LONG else 3, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_many_states_agree_and_few_are_the_same_everywhere(steps: list[str], seed: int):
    torch.manual_seed(seed)
    network = prepared(Random(steps), (4, 8, 8), seed=seed)
    x = torch.randn(12, 4, 8, 8)
    agreement = convert(network, x, weights=127, activations=128).report.agreement
    assert agreement is not None
    assert agreement.cosine > 0.995, steps
    model = convert(network, x, ConversionConfig(weights=3, activations=4, stream=16)).model
    graph = maqd.lower(model, x).graph
    engines = [TorchEngine(model, graph), ENGINES["native"].make(graph, threads=1)]
    assert verify(graph, engines, [x.numpy()]).ok
