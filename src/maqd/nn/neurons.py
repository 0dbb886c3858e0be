"""Integrate-and-fire neurons over several frames, trained through time."""

from typing import Any

import torch
from torch import Tensor, nn

from maqd.errors import ConfigError
from maqd.nn.surrogate import surrogate_gradient
from maqd.numerics.neuron import LIMIT, Neuron, Reset
from maqd.numerics.states import power_of_two_exponent
from maqd.settings.quantization import Surrogate


class _Fire(torch.autograd.Function):
    """[v >= threshold]; backward scale * phi(v / threshold) / threshold, with the surrogate's phi for two states."""

    @staticmethod
    def forward(v: Tensor, threshold: float, surrogate: Surrogate) -> Tensor:
        return (v >= threshold).to(v.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, Surrogate], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.threshold, ctx.surrogate = inputs[1:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (v,) = ctx.saved_tensors
        phi = surrogate_gradient(v / ctx.threshold, 2, ctx.surrogate)
        return grads[0] * phi * (ctx.surrogate.scale / ctx.threshold), None, None


class _Leak(torch.autograd.Function):
    """v - floor(v / 2**leak), of integers; backward its slope without the floor, 1 - 2**-leak."""

    @staticmethod
    def forward(v: Tensor, leak: int) -> Tensor:
        return v - torch.floor(v * 2.0**-leak)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.leak = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * (1 - 2.0**-ctx.leak), None


def integrate_and_fire(currents: Tensor, neuron: Neuron, surrogate: Surrogate) -> Tensor:
    """Spikes of neurons that start at `neuron.initial`, with gradients through time.

    In each frame v = clip(v - (v >> leak) + x, -LIMIT, LIMIT); it fires if v >= threshold, then the threshold is
    subtracted or v becomes 0. All numbers are integers below 2**24 and so exact in float32. Outside the limits the
    gradient is zero.

    Args:
        currents: T x N x ..., integers in a float type.
        neuron: How neurons behave.
        surrogate: What stands in for the derivative of the step at the threshold.

    Returns:
        0 and 1, of the same shape.
    """
    v = torch.full_like(currents[0], neuron.initial)
    spikes = []
    for x in currents:
        kept: Tensor = v if neuron.leak is None else _Leak.apply(v, neuron.leak)  # pyright: ignore[reportAssignmentType]
        charged = torch.clamp(kept + x, -LIMIT, LIMIT)
        fired: Tensor = _Fire.apply(charged, float(neuron.threshold), surrogate)  # pyright: ignore[reportAssignmentType]
        v = charged * (1 - fired) if neuron.reset is Reset.HARD else charged - neuron.threshold * fired
        spikes.append(fired)
    return torch.stack(spikes)


class IntegrateFire(nn.Module):
    """Neurons with memory behind a quantizer: multiples of `unit` in, spikes of 0 and 1 out.

    The layers of a network see all frames of all samples as one batch, (T * N) x ..., the frames of the same step side
    by side: normalizations before it have statistics over T as well. Each call starts at the first potential.

    Args:
        unit: A power of two, the step of the quantizer before it.
        neuron: How they behave; threshold and first potential in units.
        steps: T. A graph computes one frame, and remembers: lower with `set_steps(network, 1)`.
        surrogate: What stands in for the derivative of the step at the threshold.

    Raises:
        ConfigError: The unit is no power of two, or there is no step.
    """

    def __init__(self, *, unit: float, neuron: Neuron, steps: int = 1, surrogate: Surrogate | None = None) -> None:
        super().__init__()
        self.exponent = power_of_two_exponent(unit, "the unit of a neuron")
        if steps < 1:
            raise ConfigError(f"neurons need at least 1 step, got {steps}")
        self.unit, self.neuron, self.steps = unit, neuron, steps
        self.surrogate = Surrogate() if surrogate is None else surrogate

    def forward(self, x: Tensor) -> Tensor:
        """Spikes, of the shape of x: (T * N) x ..., multiples of the unit."""
        if len(x) % self.steps:
            raise ConfigError(
                f"neurons of {self.steps} steps take a batch of frames that is a multiple of it, got {len(x)}; stack "
                "T x N frames, or call maqd.nn.set_steps"
            )
        frames = (x / self.unit).unflatten(0, (self.steps, -1))
        return integrate_and_fire(frames, self.neuron, self.surrogate).flatten(0, 1)

    def extra_repr(self) -> str:
        """For printing."""
        return f"unit={self.unit}, {self.neuron}, steps={self.steps}"


def set_steps(network: nn.Module, steps: int) -> None:
    """How many frames all neurons of a network take at once.

    Raises:
        ConfigError: There is no step.
    """
    if steps < 1:
        raise ConfigError(f"neurons need at least 1 step, got {steps}")
    for module in network.modules():
        if isinstance(module, IntegrateFire):
            module.steps = steps
