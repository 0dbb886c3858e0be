"""Networks of neurons with memory: all frames at once in PyTorch, and frame by frame in a graph that remembers."""

import numpy as np
import pytest
import torch
from effort import LONG
from torch import Tensor, nn

from maqd.errors import ConfigError, LoweringError
from maqd.lowering import TorchEngine, lower
from maqd.nn import (
    IntegerInput,
    IntegrateFire,
    LayerBatchNorm,
    NormActivation,
    QuantConv2d,
    Quantizer,
    QuantLinear,
    Surrogate,
    set_steps,
)
from maqd.nn.neurons import integrate_and_fire
from maqd.numerics.neuron import LIMIT, Neuron, Reset
from maqd.numerics.states import Grid, States
from maqd.runtime import Session
from maqd.runtime.native import NativeEngine, native_module
from maqd.runtime.numpy import NumpyEngine

SPIKES = Grid(low=0, high=1, exponent=0)
CURRENT = Quantizer(states=States(count=31, signed=True), step=0.25)
STEPS = 8


def network(
    classes: int = 4, *, leak: int | None = 2, reset: Reset = Reset.SOFT, steps: int = STEPS, initial: int = 0
) -> nn.Sequential:
    """Convolution, current, neurons, twice; then a head on every frame."""

    def neurons() -> IntegrateFire:
        return IntegrateFire(
            unit=0.25, neuron=Neuron(threshold=4, leak=leak, reset=reset, initial=initial), steps=steps
        )

    return nn.Sequential(
        IntegerInput(),
        QuantConv2d(1, 8, 3, padding=1, states=7, input_grid=IntegerInput.grid),
        NormActivation(LayerBatchNorm(8), CURRENT),
        neurons(),
        QuantConv2d(8, 12, 3, padding=1, stride=2, states=3, input_grid=SPIKES),
        NormActivation(LayerBatchNorm(12), CURRENT),
        neurons(),
        nn.Flatten(),
        QuantLinear(12 * 16, classes, states=7, input_grid=SPIKES),
    )


def moving_dots(random: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Dots that move up, down, left or right, T x N x 1 x 8 x 8; one frame does not tell where to."""
    labels = random.integers(0, 4, count)
    start = random.integers(0, 8, (count, 2))
    images = np.full((STEPS, count, 1, 8, 8), 100, np.uint8)
    images += random.integers(0, 50, images.shape).astype(np.uint8)
    ways = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])[labels]
    for step in range(STEPS):
        rows, columns = ((start + step * ways) % 8).T
        images[step, np.arange(count), 0, rows, columns] = 255
    return torch.from_numpy(images), torch.from_numpy(labels)


def logits(model: nn.Module, images: Tensor) -> Tensor:
    """T x N x classes."""
    return model(images.flatten(0, 1)).unflatten(0, images.shape[:2])


def settle(model: nn.Module, images: Tensor) -> None:
    """Running statistics of the frames."""
    model.train()
    with torch.no_grad():
        for _ in range(3):
            logits(model, images)
    model.eval()


@pytest.mark.parametrize(("leak", "reset"), [(2, Reset.SOFT), (None, Reset.HARD)])
def test_frames_one_by_one_give_what_pytorch_computes_at_once(leak: int | None, reset: Reset):
    torch.manual_seed(0)
    model = network(leak=leak, reset=reset, initial=1)
    images, _ = moving_dots(np.random.default_rng(0), 5)
    settle(model, images)
    with torch.no_grad():
        wanted = logits(model, images).double().numpy()
    set_steps(model, 1)
    graph = lower(model, images[0]).graph
    assert [memory.input for memory in graph.metadata.memories] == ["3.before", "6.before"]
    scale = 2.0 ** graph.types["output"].exponent
    engines = [NumpyEngine(graph), *([NativeEngine(graph)] if native_module() is not None else [])]
    for engine in engines:
        session = Session(engine, 5)
        for frame, expected in zip(images, wanted, strict=True):
            np.testing.assert_array_equal(session.step(frame.numpy())["output"] * scale, expected)
    with pytest.raises(LoweringError, match=r"remembers from frame to frame.*compare sequences"):
        TorchEngine(model, graph)


def test_gradients_go_through_time_as_written():
    currents = torch.tensor([[3.0], [4.0], [-2.0]], requires_grad=True)
    neuron, surrogate = Neuron(threshold=5), Surrogate(width=1.0, scale=2.0)
    spikes = integrate_and_fire(currents, neuron, surrogate)
    assert spikes.flatten().tolist() == [0, 1, 0]
    spikes[2].sum().backward()
    # v = 3, 7 (fires, 2 left), 0: all three are within a window of one threshold; ds/dv = 2 / 5.
    g = 2 / 5
    direct, second = g, g * (1 - 5 * g)
    assert currents.grad is not None
    np.testing.assert_allclose(currents.grad.flatten().tolist(), [second * (1 - 5 * g), second, direct], rtol=1e-6)
    far = torch.tensor([[2.0 * LIMIT]], requires_grad=True)
    integrate_and_fire(far, neuron, surrogate).sum().backward()
    assert far.grad is not None
    assert far.grad.item() == 0


def test_batches_that_are_no_frames_are_refused():
    with pytest.raises(ConfigError, match=r"neurons of 8 steps take a batch of frames.* got 3; stack T x N frames"):
        network()(torch.zeros(3, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(LoweringError, match="set_steps"):
        lower(network().eval(), torch.zeros(8, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(ConfigError, match="at least 1 step, got 0"):
        set_steps(network(), 0)
    with pytest.raises(ConfigError, match="power of two"):
        IntegrateFire(unit=0.3, neuron=Neuron(threshold=1))
    wrong = nn.Sequential(
        IntegerInput(),
        QuantConv2d(1, 2, 3, states=3, input_grid=IntegerInput.grid),
        NormActivation(LayerBatchNorm(2), CURRENT),
        IntegrateFire(unit=0.5, neuron=Neuron(threshold=2)),
    )
    with pytest.raises(LoweringError, match=r"its unit is 2\^-1, and its input comes in units of 2\^-2"):
        lower(wrong.eval(), torch.zeros(1, 1, 8, 8, dtype=torch.uint8))


@pytest.mark.skipif(not LONG, reason="long: make test-all runs it")
def test_neurons_learn_what_one_frame_does_not_tell():
    torch.manual_seed(0)
    model, random = network(), np.random.default_rng(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        images, labels = moving_dots(random, 32)
        loss = nn.functional.cross_entropy(logits(model, images).mean(0), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    images, labels = moving_dots(np.random.default_rng(1), 500)
    with torch.no_grad():
        found = logits(model, images)
    accuracy = float((found.mean(0).argmax(1) == labels).float().mean())
    print(f"accuracy {accuracy:.3f}")
    assert accuracy > 0.6  # 0.25 by chance, and from any one frame
