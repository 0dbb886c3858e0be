"""What is known of a tensor while a network is converted, before any number is fitted.

Every tensor of the converted network is an affine function of the float tensor that it stands for. Placement only
decides which modules there are and which tensors share a scale; the numbers are looked up afterwards.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from maqd.nn import NormActivation
from maqd.nn.curves import Curve
from maqd.nn.layers import QuantLayer
from maqd.numerics.states import MAX_STATES, Grid, States


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """float value = a * converted value + b.

    Args:
        a: float64, 1 or C values, not zero.
        b: Like a.
        grid: Where the converted value lies; None if it is not an integer times a power of two.
    """

    a: Tensor
    b: Tensor
    grid: Grid | None


class Scale:
    """The factor of tensors that are added or joined and so must have one: converted value = factor * float value."""

    def __init__(self) -> None:
        self._parent: Scale | None = None
        self._sites: list[Site] = []
        self._value: float | None = None
        self._fixed = False

    def root(self) -> "Scale":
        """The representative of all scales that were joined."""
        scale = self
        while scale._parent is not None:
            scale = scale._parent
        return scale

    def join(self, other: "Scale") -> bool:
        """Makes two scales one; False if both are fixed to different values."""
        a, b = self.root(), other.root()
        if a is b:
            return True
        if a._fixed and b._fixed and a._value != b._value:
            return False
        if b._fixed:
            a, b = b, a
        b._parent = a
        a._sites += b._sites
        return True

    def fix(self, value: float) -> bool:
        """Sets the value for good; False if it has another."""
        root = self.root()
        if root._fixed:
            return root._value == value
        root._value, root._fixed = value, True
        return True

    @property
    def fixed(self) -> bool:
        """Whether the value was set while the network was read."""
        return self.root()._fixed

    @property
    def sites(self) -> "list[Site]":
        """The quantizers with this scale."""
        return self.root()._sites

    @property
    def value(self) -> float:
        """The factor, once it is fitted."""
        value = self.root()._value
        if value is None:
            raise RuntimeError("a scale is read before it is fitted")
        return value

    def fit(self, value: float) -> None:
        """Sets the value."""
        self.root()._value = value


@dataclass(frozen=True, kw_only=True)
class Activation:
    """An activation function, and the kind of states that stand for it.

    Args:
        function: On float tensors.
        signed: Whether its results have a sign.
        curve: The function where it is no straight line between two ends: its states have places of their own.
        most: States that it has at most.
        folded: Whether the line between its two ends is in the numbers of what it is applied to already.
    """

    function: Callable[[Tensor], Tensor]
    signed: bool
    curve: Curve | None = None
    most: int = MAX_STATES
    folded: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Norm:
    """A normalization of the float network.

    Args:
        eps: Added to the variance.
        momentum: Weight of a new batch in running statistics.
        weight, bias: One a channel, or None.
        mean, variance: Its running statistics, one a channel; None where it takes them from each sample.
        read: What it reads, where its statistics have to be observed.
    """

    eps: float
    momentum: float
    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor | None = None
    variance: Tensor | None = None
    read: fx.Node | None = None


class Grade(enum.Enum):
    """What a tensor of the converted network may enter as it is."""

    INPUT = enum.auto()
    """The network's input: weighted layers only."""
    ACCUMULATOR = enum.auto()
    """A sum of products with a scale per channel: a quantizer must follow."""
    SUM = enum.auto()
    """Codes added: further additions."""
    CODES = enum.auto()
    """A quantizer's codes: everything."""
    FLOAT = enum.auto()
    """What stays in float: a quantizer must follow."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Value:
    """A tensor of the converted network, perhaps with a normalization and an activation that are still to be applied.

    Args:
        node: The call that computes it, before what is pending.
        float_node: The float network's call whose result this is, before a pending activation.
        grade: Of `node`.
        numbers: Its relation to the float tensor, before what is pending.
        shape: Of one sample.
        channel_dim: Where its channels are.
        scale: The scale of codes.
        factor: Converted value = scale * factor * float value.
        magnitude: Largest code, if it is known from states and windows alone.
        signed: Whether there are negative codes.
        wide: Whether it has more states than weighted layers are to read.
        norm: A pending normalization, by its name.
        activation: A pending activation.
        applied: The float network's call that applies it.
        name: For a quantizer that has to be made for it.
    """

    node: fx.Node
    float_node: fx.Node
    grade: Grade
    numbers: Callable[[], Numbers]
    shape: tuple[int, ...]
    name: str
    channel_dim: int = 1
    scale: Scale | None = None
    factor: float = 1.0
    magnitude: int = 0
    signed: bool = True
    wide: bool = False
    norm: str | None = None
    activation: Activation | None = None
    applied: fx.Node | None = None

    @property
    def pending(self) -> bool:
        """Whether `node` is not the tensor yet."""
        return self.norm is not None or self.activation is not None

    @property
    def per_channel(self) -> bool:
        """Whether `numbers` may differ from channel to channel."""
        return self.grade in (Grade.ACCUMULATOR, Grade.INPUT)

    @property
    def channels(self) -> int:
        """How many."""
        return self.shape[self.channel_dim if self.channel_dim < 0 else self.channel_dim - 1]


@dataclass(frozen=True)
class Affine:
    """The numbers of k * x + t."""

    value: Value
    k: Tensor
    t: Tensor

    def __call__(self) -> Numbers:
        found = self.value.numbers()
        return Numbers(a=self.k * found.a, b=self.k * found.b + self.t, grid=found.grid)


def hull(grids: list[Grid | None]) -> Grid | None:
    """The smallest grid that contains some others; None if one is not known."""
    known = [grid for grid in grids if grid is not None]
    if len(known) < len(grids):
        return None
    unit = min(grid.exponent for grid in known)
    low = min(grid.low << (grid.exponent - unit) for grid in known)
    high = max(grid.high << (grid.exponent - unit) for grid in known)
    return Grid(low=low, high=high, exponent=unit)


@dataclass(kw_only=True, eq=False)
class Layer:
    """Description of a weighted layer, before it is built.

    Args:
        name: Of the module.
        module: The float layer.
        source: What it reads.
        others: What further calls of it read.
        states: M_w; None for float weights.
        head: Whether its result leaves the network, which keeps its values.
        call: The float network's call.
        made: The layer, once it is made.
        numbers: Of its result, likewise.
        errors: Of its sums, with each weight rounded by itself and along the data, where that was done.
    """

    name: str
    module: Any
    source: Value
    states: int | None
    head: bool
    call: fx.Node
    others: list[Value] = field(default_factory=list)
    made: QuantLayer | None = None
    numbers: Numbers | None = None
    errors: tuple[float, float] | None = None

    @property
    def channel_dim(self) -> int:
        """Where the channels of its result are."""
        return -1 if isinstance(self.module, nn.Linear) and self.call.meta["value"].ndim > 2 else 1


@dataclass(kw_only=True, eq=False)
class Site:
    """Description of a quantizer, before it is built.

    Args:
        name: Of the module.
        source: What it reads, with the normalization and activation that it applies.
        states: Of its codes.
        scale: Of its codes.
        exponent: Of the step, once it is fitted.
        made: The module, once it is made.
    """

    name: str
    source: Value
    states: States
    scale: Scale
    exponent: int = 0
    made: NormActivation | None = None
    again: list[fx.Node] = field(default_factory=list)

    @property
    def straight(self) -> bool:
        """Whether it rounds and clips what it reads, and nothing else."""
        act = self.source.activation
        return act is None or (act.curve is None and not act.folded)

    def target(self, y: Tensor) -> Tensor:
        """The float activation that the codes stand for, of the values before it."""
        return y if self.source.activation is None else self.source.activation.function(y)

    def code_numbers(self) -> Numbers:
        """Of the codes."""
        one = torch.ones(1, dtype=torch.float64)
        return Numbers(a=one / self.scale.value, b=torch.zeros_like(one), grid=self.states.grid(self.exponent))
