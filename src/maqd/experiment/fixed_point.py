"""Experiment `bn-fixed-point`: normalizations as integers, rounded in several ways, at every shift."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from maqd.experiment.base import Experiment, Found, table
from maqd.experiment.findings import Figure
from maqd.experiment.small import digits
from maqd.graph import FixedPoint, Graph, Thresholds
from maqd.lowering import lower
from maqd.models import build_model
from maqd.nn import NormActivation
from maqd.nn.norm import FoldableNorm
from maqd.numerics.fixedpoint import AffineForm, FixedAffine, fixed_point_affine
from maqd.recipes import Budget
from maqd.runtime.native import NativeEngine, native_module
from maqd.runtime.numpy import NumpyEngine
from maqd.settings.model import Architecture, ModelConfig
from maqd.settings.phases import Phase
from maqd.settings.quantization import Norm, QuantConfig
from maqd.training.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

SHIFTS = tuple(range(0, 21, 2))
"""The shifts K that are tried."""
STATES = (4, 16)
IMAGES = 360


@dataclass(frozen=True, kw_only=True)
class Normalizations:
    """The normalizations of a network.

    Args:
        architecture: Which network: trained where it is the digits', else with initial weights and statistics of random
            images.
        act_states: M_a.
        image_size: Of a square image.
    """

    architecture: Architecture
    act_states: int
    image_size: int = 32


NETWORKS = (
    (Architecture.DIGITS, 8),
    (Architecture.VGG_NARROW, 32),
    (Architecture.PREACT_RESNET_NARROW, 32),
)
LARGE = ((Architecture.VGG16, 32), (Architecture.PREACT_RESNET18, 32), (Architecture.PREACT_RESNET18, 64))


class BatchNormFixedPoint(Experiment[Normalizations]):
    """Layers one by one, and the digits network as a whole."""

    name = "bn-fixed-point"
    title = "Normalizations in fixed point"
    source = "arXiv 2008.13128, and MaQD's folding"
    text = (
        "Batch normalization and activation map each integer sum x to a code. As integers the map is "
        "clip(floor((A x + B) / 2^K)). Rounded: A and B are the float scale and offset times 2^K, rounded. Powers of "
        "two: A is 2^K times the power of two nearest to the scale. Optimal: A and B with which every possible sum has "
        "the code of the float normalization, where there are any at this K. Shares of wrong codes count every integer "
        "that the layer's sums can be, equally."
    )

    def points(self, budget: Budget) -> Sequence[Normalizations]:
        networks = NETWORKS if budget is Budget.CPU else (*NETWORKS, *LARGE)
        return [
            Normalizations(architecture=architecture, act_states=count, image_size=size)
            for architecture, size in networks
            for count in STATES
        ]

    def phases(self, point: Normalizations) -> tuple[Phase, ...]:
        if point.architecture is not Architecture.DIGITS:
            return ()
        return (Phase(name=f"fixed_point_a{point.act_states}", config=digits(_quant(point), epochs=8)),)

    def figures(self, point: Normalizations, seed: int, run: Run | None) -> Mapping[str, Figure]:
        network = _untrained(point, seed) if run is None else run.network
        images = None if run is None else np.concatenate([batch[0] for batch in run.test_inputs(IMAGES)])
        example = torch.zeros(1, 3 if run is None else 1, point.image_size, point.image_size, dtype=torch.uint8)
        graph = lower(network, example, affine=AffineForm.THRESHOLDS).graph
        layers = _layers(network, graph)
        wrong: dict[str, list[float]] = {"rounded": [], "powers": []}
        right: dict[str, list[float]] = {"rounded": [], "powers": []}
        for shift in SHIFTS:
            for name, maps in (("rounded", _rounded(layers, shift)), ("powers", _powers(layers, shift))):
                wrong[name].append(_wrong(layers, maps))
                if images is not None:
                    right[name].append(_same_classes(graph, maps, images))
        optimal = [layer.optimal for layer in layers.values()]
        return {
            "layers": len(layers),
            "optimal_shift": [float(one.shift) for one in optimal],
            "multiplier_bits": [float(_bits(one.multiplier)) for one in optimal],
            "offset_bits": [float(_bits(one.offset)) for one in optimal],
            **{f"wrong_{name}": values for name, values in wrong.items()},
            **{f"classes_{name}": values for name, values in right.items() if values},
        }

    def lines(self, found: Found) -> Iterator[str]:
        rows = []
        for point in self.points(Budget.FULL):
            for one in found.of(point):
                shifts = one.numbers("optimal_shift")
                rows.append(
                    (
                        f"{point.architecture.value}, {point.image_size} x {point.image_size}",
                        str(point.act_states),
                        f"{one.number('layers'):.0f}",
                        f"{min(shifts):.0f} .. {max(shifts):.0f}",
                        f"{max(one.numbers('multiplier_bits')):.0f} / {max(one.numbers('offset_bits')):.0f}",
                        *(_percent(one.numbers(name)[SHIFTS.index(8)]) for name in ("wrong_rounded", "wrong_powers")),
                        _percent(one.numbers("wrong_rounded")[SHIFTS.index(16)]),
                    )
                )
        yield from table(
            (
                "network", "M_a", "layers", "optimal: K with no wrong code", "bits of A / B", "rounded, K = 8",
                "powers of two, K = 8", "rounded, K = 16",
            ),
            rows,
        )  # fmt: skip
        for point in self.points(Budget.CPU):
            for one in found.of(point):
                if "classes_rounded" in one.figures:
                    yield (
                        f"\n{point.architecture.value}, M_a = {point.act_states}: share of test images with the class "
                        "of the float normalization, by K\n"
                    )
                    yield from table(
                        ("", *map(str, SHIFTS)),
                        [
                            (label, *(_percent(value) for value in one.numbers(f"classes_{name}")))
                            for name, label in (("rounded", "rounded"), ("powers", "powers of two"))
                        ],
                    )

    def draw(self, found: Found, picture: "Picture") -> None:
        axes: Any = picture.subplots(1, 2)
        for point in self.points(Budget.FULL):
            for one in found.of(point):
                label = f"{point.architecture.value} {point.image_size}, M_a = {point.act_states}"
                rounded, powers = (
                    [value or math.nan for value in one.numbers(name)] for name in ("wrong_rounded", "wrong_powers")
                )
                (line,) = axes[0].plot(SHIFTS, rounded, "o-", markersize=3, label=label)
                axes[0].plot(SHIFTS, powers, ":", color=line.get_color())
                shifts = sorted(one.numbers("optimal_shift"))
                share = [sum(value <= shift for value in shifts) / len(shifts) for shift in range(max(SHIFTS) + 1)]
                axes[1].step(range(max(SHIFTS) + 1), share, where="post", color=line.get_color())
        axes[0].set_yscale("log")
        axes[0].set_title("wrong codes: rounded (lines), powers of two (dotted)")
        axes[0].set_ylabel("share of all possible sums")
        axes[0].legend(fontsize=6)
        axes[1].set_title("optimal: layers without a wrong code")
        axes[1].set_ylabel("share of layers")
        for axis in axes:
            axis.set_xlabel("shift K")
            axis.set_xticks(SHIFTS)
            axis.grid(alpha=0.3)


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """A normalization with its activation.

    Args:
        node: Its thresholds.
        low, high: Bounds of the sums, int64, C.
        scale, offset: float64, C: the index is clip(floor(scale * x + offset), 0, M-1) in exact arithmetic.
        optimal: The map with the smallest shift and no wrong code.
    """

    node: Thresholds
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    scale: NDArray[np.float64]
    offset: NDArray[np.float64]
    optimal: FixedAffine


def _quant(point: Normalizations) -> QuantConfig:
    return QuantConfig(act_states=point.act_states, act_step=4 / point.act_states, norm=Norm.BN)


def _untrained(point: Normalizations, seed: int) -> nn.Module:
    """Initial weights; statistics of random images, scales and offsets spread as after training."""
    torch.manual_seed(seed)
    config = ModelConfig(architecture=point.architecture, quant=_quant(point))
    network = build_model(config, in_channels=3, num_classes=10, image_size=point.image_size)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "norm" in name and parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
        for _ in range(20):
            network(torch.randint(0, 256, (8, 3, point.image_size, point.image_size), dtype=torch.uint8))
    return network.eval()


def _layers(network: nn.Module, graph: Graph) -> Mapping[str, Layer]:
    layers: dict[str, Layer] = {}
    for name, module in network.named_modules():
        node = next((node for node in graph.nodes if node.name == name), None)
        if not isinstance(module, NormActivation) or not isinstance(module.norm, FoldableNorm):
            continue
        assert isinstance(node, Thresholds), f"{name} was lowered to thresholds"
        source = graph.types[node.inputs[0]]
        channels = len(node.signs)
        low = np.broadcast_to(source.interval.low.reshape(-1), channels).astype(np.int64)
        high = np.broadcast_to(source.interval.high.reshape(-1), channels).astype(np.int64)
        gain, mean, bias = module.norm.affine_map()
        assert module.quantizer is not None
        step = module.quantizer.step
        optimal = fixed_point_affine(node.thresholds, node.signs, low, high)
        assert optimal is not None, f"{name} has a fixed-point map"
        layers[name] = Layer(
            node=node,
            low=low,
            high=high,
            scale=gain / step * math.ldexp(1.0, source.exponent),
            offset=(bias - gain * mean) / step + 0.5,
            optimal=optimal,
        )
    return layers


Maps = Mapping[str, FixedAffine]


def _rounded(layers: Mapping[str, Layer], shift: int) -> Maps:
    unit = 2.0**shift
    return {
        name: FixedAffine(
            multiplier=np.rint(layer.scale * unit).astype(np.int64),
            offset=np.rint(layer.offset * unit).astype(np.int64),
            shift=shift,
        )
        for name, layer in layers.items()
    }


def _powers(layers: Mapping[str, Layer], shift: int) -> Maps:
    unit = 2.0**shift
    found: dict[str, FixedAffine] = {}
    for name, layer in layers.items():
        size = np.abs(layer.scale) * unit
        power = np.where(size >= 0.5, 2.0 ** np.rint(np.log2(np.maximum(size, 0.5))), 0.0)
        found[name] = FixedAffine(
            multiplier=(np.sign(layer.scale) * power).astype(np.int64),
            offset=np.rint(layer.offset * unit).astype(np.int64),
            shift=shift,
        )
    return found


def _node(node: Thresholds, affine: FixedAffine) -> FixedPoint:
    return FixedPoint(
        name=node.name,
        inputs=node.inputs,
        states=node.states,
        step_exponent=node.step_exponent,
        axis=node.axis,
        multiplier=affine.multiplier,
        offset=affine.offset,
        shift=affine.shift,
    )


def _wrong(layers: Mapping[str, Layer], maps: Maps) -> float:
    """Share of pairs of channel and possible sum whose code differs from the float normalization's."""
    wrong = total = 0
    for name, layer in layers.items():
        node = _node(layer.node, maps[name])
        for channel in range(len(layer.low)):
            x = np.arange(layer.low[channel], layer.high[channel] + 1)
            part = slice(channel, channel + 1)
            wrong += int((node.index(x[None], part) != layer.node.index(x[None], part)).sum())
            total += len(x)
    return wrong / total


def _same_classes(graph: Graph, maps: Maps, images: NDArray[Any]) -> float:
    """Share of images whose class stays what it is, with other maps in the whole network."""
    changed = tuple(
        _node(node, maps[node.name]) if isinstance(node, Thresholds) and node.name in maps else node
        for node in graph.nodes
    )
    before, after = (_engine(one).run(images) for one in (graph, replace(graph, nodes=changed)))
    return float((before.argmax(1) == after.argmax(1)).mean())


def _engine(graph: Graph) -> Any:
    return NumpyEngine(graph) if native_module() is None else NativeEngine(graph)


def _bits(values: NDArray[np.int64]) -> int:
    """Of the widest integer, its sign included."""
    return max(int(abs(value)).bit_length() for value in values) + 1


def _percent(value: float) -> str:
    return f"{100 * value:.3g}%"
