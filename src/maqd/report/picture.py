"""A picture of what an image looks like inside a network of integers, and what that costs and saves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maqd.io.pictures import save_png
from maqd.nn import NormActivation, QuantLinear
from maqd.report.sparsity import LayerActivations, LayerWeights, activation_outputs, total_bytes


@dataclass(frozen=True, kw_only=True)
class Portrait:
    """What the picture says of a network.

    Args:
        title: Its name.
        accuracy: Fraction of test images that it classifies correctly.
        weights: Its weights, by layer.
        activations: Its activations over the test set, by layer.
    """

    title: str
    accuracy: float
    weights: list[LayerWeights]
    activations: list[LayerActivations]


def montage(maps: Tensor, columns: int) -> Tensor:
    """Feature maps C x H x W side by side with gaps of one pixel, which are NaN; float32."""
    channels, height, width = maps.shape
    rows = -(-channels // columns)
    sheet = torch.full((rows * (height + 1) - 1, columns * (width + 1) - 1), float("nan"))
    for index in range(channels):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        sheet[top : top + height, left : left + width] = maps[index]
    return sheet


def activation_codes(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """The integer activation codes of one image, C x H x W in float32, by layer.

    Args:
        network: A quantized network in evaluation mode.
        image: uint8 1 x C x H x W.
    """
    modules = dict(network.named_modules())
    codes: dict[str, Tensor] = {}
    for name, output in activation_outputs(network, image).items():
        module = modules[name]
        if isinstance(module, NormActivation) and module.quantizer is not None:
            codes[name] = output[0] / module.quantizer.step
    return codes


def draw(
    path: Path, portraits: Sequence[Portrait], *, shown: Portrait, network: nn.Module, image: Tensor, label: int
) -> None:
    """Save the picture as PNG.

    Args:
        path: The file; its directory is made.
        portraits: The networks that are compared, up to three.
        shown: The one of them whose inside is shown.
        network: Its network of 3 weight states and 4 activation states, in evaluation mode.
        image: A test image, uint8 1 x C x H x W.
        label: Its class.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    codes = activation_codes(network, image)
    with torch.no_grad():
        logits = network(image)[0]
    figure = Figure(figsize=(15, 8.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(
        "A digit inside a network of integers: 3 weight states (-1, 0, 1), 4 activation states (0, 1, 2, 3)",
        fontsize=14,
    )
    parts: Any = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    top, bottom = parts
    axes: Any = top.subplots(1, 2 + len(codes), width_ratios=(0.8, *([1.2] * len(codes)), 0.8))
    axes[0].imshow(image[0, 0].numpy(), cmap="gray")
    axes[0].set_title(f"input: uint8 pixels\n(a {label})")
    colors = mpl.colormaps["viridis"].resampled(4).with_extremes(bad="white")
    mesh = None
    for axis, (name, maps) in zip(axes[1:-1], codes.items(), strict=True):
        channels = maps.shape[0]
        mesh = axis.imshow(montage(maps, 4 if channels <= 16 else 8).numpy(), cmap=colors, vmin=-0.5, vmax=3.5)
        ratio = float((maps != 0).float().mean())
        axis.set_title(
            f"{name.removesuffix('.act')}: {channels} maps {maps.shape[1]}x{maps.shape[2]}\n{ratio:.0%} non-zero"
        )
    for axis in axes[:-1]:
        axis.set_xticks([])
        axis.set_yticks([])
    if mesh is not None:
        top.colorbar(mesh, ax=list(axes[1:-1]), ticks=range(4), shrink=0.6, label="activation code", location="left")
    head = network.get_submodule("head")
    unit = head.accumulator_unit if isinstance(head, QuantLinear) else 1.0
    winner = int(logits.argmax())
    axes[-1].barh(range(10), (logits / unit).tolist(), color=["C1" if i == winner else "C0" for i in range(10)])
    axes[-1].set_yticks(range(10))
    axes[-1].invert_yaxis()
    axes[-1].set_title(f"integer logits:\nthe answer is {winner}")
    left, middle, right = bottom.subplots(1, 3)
    _draw_weights(left, shown, network)
    _draw_activity(middle, portraits)
    _draw_cost(right, portraits)
    save_png(path, figure)


def _draw_weights(axis: Any, row: Portrait, network: nn.Module) -> None:
    modules = dict(network.named_modules())
    base = [0.0] * len(row.weights)
    names = [layer.name.removesuffix(".conv") for layer in row.weights]
    for code, color in zip((-1, 0, 1), ("C3", "lightgray", "C0"), strict=True):
        shares = []
        for layer in row.weights:
            module: Any = modules[layer.name]
            shares.append(float((module.weight_codes() == code).float().mean()))
        axis.bar(names, shares, bottom=base, color=color, label=f"{code:+d}" if code else "0")
        base = [a + b for a, b in zip(base, shares, strict=True)]
    for index, layer in enumerate(row.weights):
        axis.text(index, 1.01, f"{layer.count:,}", ha="center", fontsize=9)
    axis.set_ylim(0, 1.08)
    axis.set_ylabel("share of the layer's weights")
    axis.set_title(f"weight codes of {row.title}\n(0 costs no operation, +-1 no multiplication)")
    axis.legend(title="code", loc="center left", bbox_to_anchor=(1.0, 0.5))


def _draw_activity(axis: Any, rows: Sequence[Portrait]) -> None:
    names = [layer.name.removesuffix(".act") for layer in rows[0].activations]
    width = 0.8 / len(rows)
    for index, row in enumerate(rows):
        ratios = [layer.nonzero / layer.count for layer in row.activations]
        places = [place + (index - (len(rows) - 1) / 2) * width for place in range(len(names))]
        axis.bar(places, ratios, width=width, label=row.title)
    axis.set_xticks(range(len(names)), names)
    axis.set_ylabel("non-zero activations")
    axis.set_title("activity over the test set\n(with 2 states a network of single spikes)")
    axis.margins(y=0.2)
    axis.legend(ncols=len(rows), loc="upper center", fontsize=9)


def _draw_cost(axis: Any, rows: Sequence[Portrait]) -> None:
    # Networks with the same weights lie above each other: one label goes up, the other down.
    for row, (offset, side) in zip(rows, (((-10, 0), "right"), ((10, 14), "left"), ((10, -14), "left")), strict=True):
        size, accuracy = total_bytes(row.weights), 100 * row.accuracy
        axis.plot(size, accuracy, "o", markersize=10)
        text = f"{row.title}\n{accuracy:.1f}%, {size:,.0f} bytes"
        axis.annotate(
            text, (size, accuracy), textcoords="offset points", xytext=offset, ha=side, va="center", fontsize=9
        )
    axis.set_xscale("log")
    axis.margins(x=0.1, y=0.5)
    axis.set_xlabel("bytes of weights")
    axis.set_ylabel("test accuracy in %")
    axis.set_title("what it costs and what it saves")
    axis.grid(alpha=0.3)
