"""The four networks of MLPerf Tiny, and a wide ResNet-8, as integer graphs with random weights.

What a program costs depends on shapes, states and on how many activation codes are not 0, and on nothing that training
would change; so nothing is trained. Thresholds are quantiles of the sums of random images, channel by channel, which
gives every layer the density asked for.

Shapes: Banbury et al., "MLPerf Tiny Benchmark", arXiv 2106.07597, and its reference networks.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from maqd.graph import Add, Conv, GlobalSum, Graph, Input, Linear, Node, Output, SumPool, Thresholds
from maqd.numerics.packing import PackedCodes
from maqd.numerics.states import PIXELS, States
from maqd.settings.tiny import (
    AUTOENCODER_WIDTHS,
    DS_CNN,
    MOBILENET,
    RESNET8_IMAGE,
    RESNET8_WIDTHS,
    SeparableShape,
)

DENSITIES = {2: 0.18, 4: 0.30, 8: 0.40, 16: 0.45}
"""Share of codes that are not 0, by activation states; between the states thresholds divide it evenly."""


@dataclass(frozen=True, kw_only=True)
class TinyStates:
    """How many states a network has.

    Args:
        activations: Of activation codes: one of `DENSITIES`.
        ends: Of the weights of the first and the last layer.
        depthwise: Of the weights of depthwise layers.
        weights: Of all other weights.
    """

    activations: int
    ends: int = 15
    depthwise: int = 3
    weights: int = 3


class _Builder:
    """Adds nodes, and computes them on some images at once, so that thresholds can follow from sums."""

    def __init__(self, shape: tuple[int, ...], images: int, states: TinyStates) -> None:
        self.random = np.random.default_rng(0)
        self.states = states
        self.nodes: list[Node] = [Input(name="input", inputs=(), shape=shape)]
        pixels = self.random.integers(0, 256, (images, *shape), dtype=np.int64)
        self.values: dict[str, NDArray[np.int64]] = {"input": pixels + PIXELS.low}

    def add(self, node: Node) -> str:
        """A node; its name."""
        self.nodes.append(node)
        self.values[node.name] = node.compute(*(self.values[name] for name in node.inputs))
        return node.name

    def weight(self, states: int, *shape: int) -> PackedCodes:
        """Random codes: a unit Gaussian, rounded with the step that training would take to start with."""
        kind = States(count=states, signed=True)
        step = 1.2 if states == 3 else 6 / states
        codes = np.clip(np.round(self.random.standard_normal(shape) / step), kind.low, kind.high)
        return PackedCodes.pack(codes.astype(np.int64), kind)

    def convolution(
        self,
        name: str,
        source: str,
        outputs: int,
        *,
        kernel: tuple[int, int] = (3, 3),
        stride: int = 1,
        padding: tuple[int, int] = (1, 1),
        depthwise: bool = False,
        first: bool = False,
        fine: bool = False,
        exponent: int = 0,
    ) -> str:
        """A convolution; its name."""
        channels = self.values[source].shape[1]
        states = self.states.ends if first or fine else self.states.depthwise if depthwise else self.states.weights
        return self.add(
            Conv(
                name=name,
                inputs=(source,),
                weight=self.weight(states, outputs, 1 if depthwise else channels, *kernel),
                exponent=exponent,
                stride=(stride, stride),
                padding=padding,
                dilation=(1, 1),
                groups=channels if depthwise else 1,
            )
        )

    def linear(self, name: str, source: str, outputs: int, *, end: bool = False) -> str:
        """A linear map; its name."""
        states = self.states.ends if end else self.states.weights
        inputs = self.values[source].shape[1]
        return self.add(Linear(name=name, inputs=(source,), weight=self.weight(states, outputs, inputs), exponent=0))

    def activation(self, source: str) -> str:
        """An activation of the density asked for; its name."""
        sums = self.values[source]
        count = self.states.activations
        shares = DENSITIES[count] * np.arange(count - 1, 0, -1) / (count - 1)
        flat = np.moveaxis(sums, 1, 0).reshape(sums.shape[1], -1)
        cuts = np.quantile(flat, 1 - shares, axis=1, method="higher")
        # Sums of few terms repeat: of a sum and the one above, the threshold that comes nearer.
        below, above = ((flat >= cuts[..., None] + more).mean(2) for more in (0, 1))
        cuts = np.where(np.abs(above - shares[:, None]) < np.abs(below - shares[:, None]), cuts + 1, cuts)
        limit = np.abs(cuts).max() + 1
        return self.add(
            Thresholds(
                name=f"{source}.act",
                inputs=(source,),
                axis=0,
                states=States(count=count, signed=False),
                step_exponent=0,
                thresholds=cuts.astype(np.int16 if limit < 2**15 else np.int32),
                signs=np.ones(sums.shape[1], np.int8),
            )
        )

    def graph(self, source: str) -> Graph:
        """The graph whose result a tensor is."""
        return Graph(nodes=(*self.nodes, Output(name="logits", inputs=(source,))))


def _stages(width: int) -> list[tuple[int, int]]:
    """Channels and stride of the stages of a ResNet-8 whose first one is that wide."""
    return [
        (channels * width // RESNET8_WIDTHS[0], 1 if place == 0 else 2) for place, channels in enumerate(RESNET8_WIDTHS)
    ]


def resnet8(states: TinyStates, *, width: int = RESNET8_WIDTHS[0]) -> Graph:
    """Image classification: 32 x 32 x 3 -> 10."""
    b = _Builder(RESNET8_IMAGE, 2, states)
    x = b.activation(b.convolution("stem", "input", width, first=True))
    for block, (outputs, stride) in enumerate(_stages(width)):
        inner = b.activation(b.convolution(f"block{block}.first", x, outputs, stride=stride))
        shortcut = x
        if stride > 1:
            shortcut = b.convolution(
                f"block{block}.shortcut", x, outputs, kernel=(1, 1), stride=stride, padding=(0, 0), exponent=-1
            )
        second = b.convolution(f"block{block}.second", inner, outputs, exponent=-2)
        total = b.add(Add(name=f"block{block}.sum", inputs=(second, shortcut), shifts=(0, 1 if stride > 1 else 2)))
        x = b.activation(total)
    return b.graph(b.linear("head", b.add(GlobalSum(name="pool", inputs=(x,), shift=0)), 10, end=True))


def pooled_resnet8(states: TinyStates, *, width: int = RESNET8_WIDTHS[0]) -> Graph:
    """The same as `maqd.models` has it: activations in front of the convolutions, shortcuts of fine averages."""
    b = _Builder(RESNET8_IMAGE, 2, states)
    x = b.convolution("stem", "input", width, first=True, exponent=2)
    for block, (outputs, stride) in enumerate(_stages(width)):
        active = b.activation(x)
        if stride > 1:
            pool = SumPool(
                name=f"block{block}.pool", inputs=(active,), kernel=(2, 2), stride=(2, 2), padding=(0, 0), shift=2
            )
            x = b.convolution(
                f"block{block}.shortcut", b.add(pool), outputs, kernel=(1, 1), padding=(0, 0), fine=True, exponent=2
            )
        inner = b.activation(b.convolution(f"block{block}.first", active, outputs, stride=stride))
        second = b.convolution(f"block{block}.second", inner, outputs)
        x = b.add(Add(name=f"block{block}.sum", inputs=(second, x), shifts=(0 if stride > 1 else 4, 0)))
    total = b.add(GlobalSum(name="pool", inputs=(b.activation(x),), shift=0))
    return b.graph(b.linear("head", total, 10, end=True))


def separable(shape: SeparableShape, states: TinyStates, *, images: int) -> Graph:
    """Keyword spotting (49 x 10 x 1 -> 12) or visual wake words (96 x 96 x 3 -> 2), from a number of random images."""
    b = _Builder(shape.image, images, states)
    x = b.convolution("stem", "input", shape.stem, kernel=shape.kernel, stride=2, padding=shape.padding, first=True)
    x = b.activation(x)
    for block, (outputs, stride) in enumerate(shape.blocks):
        inputs = b.values[x].shape[1]
        x = b.activation(b.convolution(f"block{block}.depthwise", x, inputs, stride=stride, depthwise=True))
        x = b.activation(b.convolution(f"block{block}.pointwise", x, outputs, kernel=(1, 1), padding=(0, 0)))
    total = b.add(GlobalSum(name="pool", inputs=(x,), shift=0))
    return b.graph(b.linear("head", total, shape.classes, end=True))


def autoencoder(states: TinyStates) -> Graph:
    """Anomaly detection: 640 -> 640."""
    first, *hidden, last = AUTOENCODER_WIDTHS
    b = _Builder((first,), 64, states)
    x = "input"
    for layer, outputs in enumerate(hidden):
        x = b.activation(b.linear(f"dense{layer}", x, outputs, end=layer == 0))
    return b.graph(b.linear("head", x, last, end=True))


def choice_layer(kind: str, states: TinyStates) -> tuple[Graph, str]:
    """A layer that several kernels can compute, in a small graph; and its name.

    Args:
        kind: depthwise (25 x 5 x 64, of DS-CNN), first (32 x 32 x 3 -> 16, of ResNet-8) or image_dense (640 -> 128).
        states: Of the graph; the dense layer has three.
    """
    shape = {"depthwise": (1, 49, 10), "first": (3, 32, 32), "image_dense": (640,)}[kind]
    b = _Builder(shape, 4, states)
    if kind == "image_dense":
        x = b.linear("layer", "input", 128)
        return b.graph(b.linear("head", b.activation(x), 2)), "layer"
    if kind == "first":
        x = b.activation(b.convolution("layer", "input", 16, first=True))
    else:
        x = b.convolution("stem", "input", 64, kernel=(10, 4), stride=2, padding=(5, 1), first=True)
        x = b.activation(b.convolution("layer", b.activation(x), 64, depthwise=True))
    return b.graph(b.convolution("after", x, 2, kernel=(1, 1), padding=(0, 0))), "layer"


def tiny_network(name: str, *, activations: int, depthwise: int = 3) -> Graph:
    """One of the benchmark's networks.

    Args:
        name: ic, ic26, icp, icp24, icp26, icp32 (with averages in shortcuts), kws, vww or ad.
        activations: States of activation codes: one of `DENSITIES`.
        depthwise: States of the weights of depthwise layers.

    Raises:
        KeyError: There is no such network.
    """
    states = TinyStates(activations=activations, depthwise=depthwise)
    small = TinyStates(activations=activations, ends=3)
    makers = {
        "ic": lambda: resnet8(states),
        "ic26": lambda: resnet8(states, width=26),
        "icp": lambda: pooled_resnet8(states),
        **{f"icp{width}": partial(pooled_resnet8, states, width=width) for width in (24, 26, 32)},
        "kws": lambda: separable(DS_CNN, states, images=4),
        "vww": lambda: separable(MOBILENET, states, images=2),
        "ad": lambda: autoencoder(small),
    }
    return makers[name]()
