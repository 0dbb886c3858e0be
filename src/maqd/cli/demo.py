"""`maqd demo`: three networks on the digits, the integers they become, one table, one picture."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from maqd.bench.conventional import Precision
from maqd.bench.peers import OnnxRuntimePeer
from maqd.bench.timing import alternated, spread
from maqd.cli.options import Options
from maqd.data import Data, DataConfig, Source, open_data
from maqd.errors import MissingDependencyError
from maqd.export.onnx.integer import Profile, save_onnx
from maqd.graph import container
from maqd.lowering import TorchEngine, lower
from maqd.models import Architecture, ModelConfig
from maqd.nn import Norm, NormActivation, QuantConfig, QuantLinear
from maqd.report.sparsity import (
    LayerActivations,
    LayerWeights,
    activation_outputs,
    activations,
    nonzero_ratio,
    total_bytes,
    weights,
)
from maqd.runtime.native import NativeEngine, native_module
from maqd.runtime.onnxruntime import OnnxRuntime
from maqd.runtime.verify import Engine, Verification, verify
from maqd.settings.training import ComputeConfig, Device, OptimConfig, TrainConfig
from maqd.training.checkpoint import Evaluation, load_network
from maqd.training.interrupt import Interrupted
from maqd.training.progress import Output
from maqd.training.train import train

EPOCHS = 24
PICTURE = "maqd_demo.png"


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A network of the demo.

    Args:
        name: Its run directory.
        title: Its name in the table.
        quant: How it is quantized.
    """

    name: str
    title: str
    quant: QuantConfig


FLOAT = Contestant(
    name="float",
    title="float",
    quant=QuantConfig(weight_states=None, act_states=None, norm=Norm.BN),
)
FOUR = Contestant(name="w3a4", title="M_w=3 M_a=4", quant=QuantConfig(weight_states=3, act_states=4, act_step=1.0))
TWO = Contestant(name="w3a2", title="M_w=3 M_a=2", quant=QuantConfig(weight_states=3, act_states=2, act_step=2.0))
CONTESTANTS = (FLOAT, FOUR, TWO)


@dataclass(frozen=True, kw_only=True)
class Integers:
    """A network lowered to integers and compared over the whole test set.

    Args:
        graph: Its file.
        proved: Pairs of channel and accumulator value for which its activations were compared.
        verification: The comparison of PyTorch and ONNX Runtime, if that is installed, with the interpreter.
        onnx: The same as ONNX, and how many digits ONNX Runtime classifies correctly; None if it is not installed.
        microseconds: Time of an image in the native engine and in ONNX Runtime with conventional networks.
    """

    graph: Path
    proved: int
    verification: Verification
    onnx: tuple[Path, int] | None
    microseconds: dict[str, float]

    def plain(self) -> dict[str, object]:
        """For a machine."""
        return {
            "graph": str(self.graph),
            "graph_bytes": self.graph.stat().st_size,
            "proved": self.proved,
            "verification": asdict(self.verification),
            "onnx": None if self.onnx is None else str(self.onnx[0]),
            "onnx_correct": None if self.onnx is None else self.onnx[1],
            "microseconds": self.microseconds,
        }


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table.

    Args:
        contestant: The network.
        run: Its run directory.
        evaluation: Its result on the test set.
        weights: Its weights, by layer.
        activations: Its activations over the test set, by layer.
        seconds: Training time.
        integers: What it was lowered to; None in float.
    """

    contestant: Contestant
    run: Path
    evaluation: Evaluation
    weights: list[LayerWeights]
    activations: list[LayerActivations]
    seconds: float
    integers: Integers | None

    def plain(self) -> dict[str, object]:
        """The line for a machine."""
        return {
            **({} if self.integers is None else self.integers.plain()),
            "name": self.contestant.name,
            "run": str(self.run),
            "weight_states": self.contestant.quant.weight_states,
            "act_states": self.contestant.quant.act_states,
            "test_accuracy": self.evaluation.accuracy,
            **asdict(self.evaluation),
            "nonzero_weights": nonzero_ratio(self.weights),
            "nonzero_activations": nonzero_ratio(self.activations),
            "weight_bytes": total_bytes(self.weights),
            "seconds": round(self.seconds, 3),
        }


def command(arguments: Sequence[str]) -> int:
    """Run `maqd demo` with these options; the exit status."""
    parser = Options(usage="maqd demo [--output DIR] [--epochs N] [--seed N] [--json]", description=__doc__ or "")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="directory of runs, files and picture (demo)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"epochs of each network ({EPOCHS})")
    parser.add_argument("--seed", type=int, default=0, help="seed (0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object; progress goes to standard error")
    options = parser.read(arguments)
    output = Output(sys.stderr if options.json else sys.stdout)
    begin = time.monotonic()
    try:
        rows = [
            train_contestant(contestant, options.output, epochs=options.epochs, seed=options.seed, output=output)
            for contestant in CONTESTANTS
        ]
    except Interrupted as stop:
        output.line("stopped")
        return 128 + stop.signum
    picture = options.output / PICTURE
    draw(rows, picture)
    seconds = time.monotonic() - begin
    if options.json:
        found = [row.plain() for row in rows]
        print(json.dumps({"networks": found, "picture": str(picture), "seconds": round(seconds, 3)}))
    else:
        show(rows, output)
        output.line(f"picture {picture}  ({seconds:.0f} s; repeat a line with: maqd eval {rows[1].run})")
    return 0


def demo_config(contestant: Contestant, run: Path, *, epochs: int, seed: int) -> TrainConfig:
    """The training run of a network of the demo."""
    return TrainConfig(
        seed=seed,
        run=str(run),
        epochs=epochs,
        log_every=10,
        model=ModelConfig(architecture=Architecture.DIGITS, quant=contestant.quant),
        data=DataConfig(source=Source.DIGITS, batch_size=64),
        optim=OptimConfig(lr=4e-3),
        # Images of 8 x 8 pixels are too little work for a second thread.
        compute=ComputeConfig(device=Device.CPU, threads=1),
    )


def train_contestant(contestant: Contestant, directory: Path, *, epochs: int, seed: int, output: Output) -> Row:
    """Train a network of the demo and look at what it became.

    Args:
        contestant: The network.
        directory: Where its run directory goes; an earlier one is replaced.
        epochs: Epochs.
        seed: Seed.
        output: Where progress goes.
    """
    run = directory / contestant.name
    config = demo_config(contestant, run, epochs=epochs, seed=seed)
    result = train(config, overwrite=True, output=output, label=f"{contestant.title:<11}", epochs_per_line=4)
    network, _ = load_network(run)
    data = open_data(config.data, seed=seed)
    images = (images for images, _ in data.test_loader())
    quantized = contestant.quant.weight_states is not None
    return Row(
        contestant=contestant,
        run=run,
        evaluation=result.evaluation,
        weights=weights(network),
        activations=activations(network, images),
        seconds=result.seconds,
        integers=lower_contestant(network, data, directory / contestant.name) if quantized else None,
    )


def lower_contestant(network: nn.Module, data: Data, stem: Path) -> Integers:
    """Lower a network, save it, and compare every engine that is here over the whole test set.

    Args:
        network: A trained network in evaluation mode.
        data: Its data.
        stem: Path of its files without their suffixes.
    """
    size = data.info.image_size
    example = torch.zeros(1, data.info.in_channels, size, size, dtype=torch.uint8)
    lowered = lower(network, example, labels=data.info.class_names)
    file = stem.with_suffix(".maqd")
    container.save(lowered.graph, file)
    graph = container.load(file)  # what is compared is what was saved
    engines: list[Engine] = [TorchEngine(network, graph)]
    native = None
    if native_module() is not None:
        native = NativeEngine(graph)
        engines.append(native)
    onnx = None
    try:
        runtime = OnnxRuntime(graph)
        save_onnx(graph, stem.with_suffix(".onnx"), Profile.COMPATIBLE)
    except MissingDependencyError:
        pass
    else:
        engines.append(runtime)
        answers = ((runtime.run(images.numpy()).argmax(1) == labels.numpy()) for images, labels in data.test_loader())
        onnx = (stem.with_suffix(".onnx"), int(sum(right.sum() for right in answers)))
    batches = (images.contiguous().numpy() for images, _ in data.test_loader())
    return Integers(
        graph=file,
        proved=sum(report.checked for report in lowered.activations),
        verification=verify(graph, engines, batches),
        onnx=onnx,
        microseconds={} if native is None else race(native, next(iter(data.test_loader()))[0].numpy()),
    )


def race(native: NativeEngine, images: NDArray[np.uint8]) -> dict[str, float]:
    """Microseconds an image of the native engine and, if it is installed, of ONNX Runtime, in alternation; medians.

    Args:
        native: The engine.
        images: uint8, N x C x H x W, one call.
    """
    calls: dict[str, Callable[[], object]] = {f"native engine ({native.isa})": lambda: native.run(images)}
    for precision, what in ((Precision.INT8, "8 bits"), (Precision.FLOAT, "float")):
        try:
            peer = OnnxRuntimePeer(native.graph, precision, threads=1, batch=len(images))
        except MissingDependencyError:
            break
        calls[f"ONNX Runtime in {what}"] = partial(peer.run, peer.input(images))
    times = alternated(tuple(calls.values()), repeats=11, seconds=0.01)
    return {name: 1e6 * spread(mine.warm).median / len(images) for name, mine in zip(calls, times, strict=True)}


def show(rows: Sequence[Row], output: Output) -> None:
    """Print the table."""
    from rich.table import Table

    table = Table("network", caption="R_w, R_a: ratio of non-zero weights and activations", caption_justify="left")
    for heading in ("test accuracy", "R_w", "R_a", "bytes of weights", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.contestant.title,
            str(row.evaluation),
            f"{nonzero_ratio(row.weights):.3f}",
            f"{nonzero_ratio(row.activations):.3f}",
            f"{total_bytes(row.weights):,.0f}",
            f"{row.seconds:.1f}",
        )
    output.console.print(table)
    for row in rows:
        if row.integers is not None:
            show_integers(row, row.integers, 4 * sum(layer.count for layer in row.weights), output)


def show_integers(row: Row, integers: Integers, float_bytes: int, output: Output) -> None:
    """Print what a network was lowered to."""
    size, checked = integers.graph.stat().st_size, integers.verification
    names = {"pytorch": "PyTorch", "native": "the native engine", "onnxruntime": "ONNX Runtime"}
    engines = ", ".join(names[engine.name] for engine in checked.engines)
    different = sum(engine.different for engine in checked.engines)
    output.line(
        f"{row.contestant.title}: lowered to {integers.graph}, {size:,} bytes, "
        f"1/{float_bytes / size:.0f} of the float weights"
    )
    output.line(f"  activations proved for all {integers.proved:,} values of their accumulators")
    output.line(
        f"  {engines} and NumPy on {checked.images} images: {checked.engines[0].values:,} integers in "
        f"{checked.engines[0].tensors} tensors, {different} different"
    )
    if integers.onnx is not None:
        path, correct = integers.onnx
        output.line(f"  {path} in ONNX Runtime: {correct}/{checked.images} digits right")
    if integers.microseconds:
        times = ", ".join(f"{name} {time:.1f}" for name, time in integers.microseconds.items())
        output.line(f"  microseconds an image, one thread: {times}")


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


def draw(rows: Sequence[Row], path: Path) -> None:
    """Save the picture: what a digit looks like inside a network of integers, and what that costs and saves."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    four = next(row for row in rows if row.contestant is FOUR)
    network, header = load_network(four.run)
    images, labels = next(iter(open_data(header.config.data, seed=0).test_loader()))
    image, label = images[:1], int(labels[0])
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
    _draw_weights(left, four)
    _draw_activity(middle, rows)
    _draw_cost(right, rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _draw_weights(axis: Any, row: Row) -> None:
    network, _ = load_network(row.run)
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
    axis.set_title(f"weight codes of {row.contestant.title}\n(0 costs no operation, +-1 no multiplication)")
    axis.legend(title="code", loc="center left", bbox_to_anchor=(1.0, 0.5))


def _draw_activity(axis: Any, rows: Sequence[Row]) -> None:
    names = [layer.name.removesuffix(".act") for layer in rows[0].activations]
    width = 0.8 / len(rows)
    for index, row in enumerate(rows):
        ratios = [layer.nonzero / layer.count for layer in row.activations]
        places = [place + (index - (len(rows) - 1) / 2) * width for place in range(len(names))]
        axis.bar(places, ratios, width=width, label=row.contestant.title)
    axis.set_xticks(range(len(names)), names)
    axis.set_ylabel("non-zero activations")
    axis.set_title("activity over the test set\n(with 2 states a network of single spikes)")
    axis.margins(y=0.2)
    axis.legend(ncols=len(rows), loc="upper center", fontsize=9)


def _draw_cost(axis: Any, rows: Sequence[Row]) -> None:
    # Networks with the same weights lie above each other: one label goes up, the other down.
    for row, (offset, side) in zip(rows, (((-10, 0), "right"), ((10, 14), "left"), ((10, -14), "left")), strict=True):
        size, accuracy = total_bytes(row.weights), 100 * row.evaluation.accuracy
        axis.plot(size, accuracy, "o", markersize=10)
        text = f"{row.contestant.title}\n{accuracy:.1f}%, {size:,.0f} bytes"
        axis.annotate(
            text, (size, accuracy), textcoords="offset points", xytext=offset, ha=side, va="center", fontsize=9
        )
    axis.set_xscale("log")
    axis.margins(x=0.1, y=0.5)
    axis.set_xlabel("bytes of weights")
    axis.set_ylabel("test accuracy in %")
    axis.set_title("what it costs and what it saves")
    axis.grid(alpha=0.3)
