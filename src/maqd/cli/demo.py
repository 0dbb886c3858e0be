"""`maqd demo`: three networks on the digits, the integers they become, one table, one picture."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from maqd.bench.conventional import Precision
from maqd.bench.peers import OnnxRuntimePeer
from maqd.bench.timing import alternated, spread
from maqd.cli import report
from maqd.cli.options import Options, UsageError, some_path, whole
from maqd.data import Data, open_data
from maqd.errors import ConfigError, MissingDependencyError
from maqd.export.onnx.integer import Profile, save_onnx
from maqd.graph import container
from maqd.io.outputs import Artefact, check_output, make_directory
from maqd.lowering import TorchEngine, lower
from maqd.recipes import recipe
from maqd.report.picture import Portrait, draw
from maqd.report.sparsity import (
    LayerActivations,
    LayerWeights,
    activations,
    nonzero_ratio,
    total_bytes,
    weights,
)
from maqd.runtime.native import NativeEngine, native_module
from maqd.runtime.onnxruntime import OnnxRuntime
from maqd.runtime.verify import Engine, Verification, verify
from maqd.settings.training import TrainConfig
from maqd.settings.tree import read_config
from maqd.training.checkpoint import Evaluation
from maqd.training.interrupt import Interrupted
from maqd.training.progress import Output
from maqd.training.run_directory import RunDirectory
from maqd.training.runs import open_run
from maqd.training.train import train

PICTURE = "maqd_demo.png"
COMPARED = "compared.html"


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A network of the demo.

    Args:
        name: Its run directory.
        title: Its name in the table.
        recipe: How it is trained.
    """

    name: str
    title: str
    recipe: str

    @property
    def config(self) -> TrainConfig:
        """Its run."""
        return recipe(self.recipe).variant().config


FLOAT = Contestant(name="float", title="float", recipe="digits-float")
FOUR = Contestant(name="w3a4", title="M_w=3 M_a=4", recipe="digits-w3a4")
TWO = Contestant(name="w3a2", title="M_w=3 M_a=2", recipe="digits-w3a2")
CONTESTANTS = (FLOAT, FOUR, TWO)


@dataclass(frozen=True, kw_only=True)
class Integers:
    """A lowered network, compared over the whole test set.

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
            "weight_states": self.contestant.config.model.quant.weight_states,
            "act_states": self.contestant.config.model.quant.act_states,
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
    parser.add_argument(
        "--output", type=some_path, default=Path("demo"), help="directory of runs, files and picture (demo)"
    )
    parser.add_argument("--epochs", type=whole, default=FLOAT.config.epochs, help="epochs of each network")
    parser.add_argument("--seed", type=whole, default=0, help="seed (0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object; progress goes to standard error")
    options = parser.read(arguments)
    output = Output(sys.stderr if options.json else sys.stdout)
    picture, compared = options.output / PICTURE, options.output / COMPARED
    if options.epochs < 1:
        raise UsageError(f"--epochs must be at least 1, got {options.epochs}")
    if options.seed < 0:
        raise UsageError(f"--seed must be at least 0, got {options.seed}")
    make_directory(options.output)
    check_output(picture, Artefact.PICTURE)
    check_output(compared, Artefact.PAGE)
    check_output(options.output / f"{FOUR.name}.html", Artefact.PAGE)
    for contestant in CONTESTANTS:
        check_run(contestant, options.output / contestant.name)
        check_output(options.output / f"{contestant.name}.maqd", Artefact.GRAPH)
        check_output(options.output / f"{contestant.name}.onnx", Artefact.ONNX)
    begin = time.monotonic()
    try:
        rows = [
            train_contestant(contestant, options.output, epochs=options.epochs, seed=options.seed, output=output)
            for contestant in CONTESTANTS
        ]
    except Interrupted as stop:
        output.line("stopped")
        return 128 + stop.signum
    draw_rows(rows, picture)
    pages = write_pages(rows, options.output)
    seconds = time.monotonic() - begin
    if options.json:
        found = [row.plain() for row in rows]
        told = {"picture": str(picture), "pages": [str(one) for one in pages], "seconds": round(seconds, 3)}
        print(json.dumps({"networks": found, **told}))
    else:
        show(rows, output)
        output.line(f"pages for a browser: {' and '.join(str(one) for one in pages)}")
        output.line(f"picture {picture}  ({seconds:.0f} s; repeat a line with: maqd eval {rows[1].run})")
    return 0


def check_run(contestant: Contestant, path: Path) -> None:
    """Check that the demo replaces no run but its own.

    Raises:
        ConfigError: Another run is there.
    """
    directory = RunDirectory(path)
    if directory.holds():
        directory.check(resume=False, overwrite=True)
        stored = read_config(directory.config, TrainConfig)
        wanted = contestant.config
        if (stored.model, stored.data) != (wanted.model, wanted.data):
            raise ConfigError(f"{path} holds a run that is not the demo's; name another directory with --output DIR")


def train_contestant(contestant: Contestant, directory: Path, *, epochs: int, seed: int, output: Output) -> Row:
    """Train a network of the demo and measure it.

    Args:
        contestant: The network.
        directory: Where its run directory goes; an earlier one is replaced.
        epochs: Epochs.
        seed: Seed.
        output: Where progress goes.
    """
    run = directory / contestant.name
    config = replace(contestant.config, run=str(run), epochs=epochs, seed=seed)
    result = train(config, overwrite=True, output=output, label=f"{contestant.title:<11}", epochs_per_line=4)
    network = open_run(run).network
    data = open_data(config.data, seed=seed)
    images = (images for images, _ in data.test_loader())
    quantized = config.model.quant.weight_states is not None
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
        f"  {engines} and NumPy on {checked.samples} images: {checked.engines[0].values:,} integers in "
        f"{checked.engines[0].tensors} tensors, {different} different"
    )
    if integers.onnx is not None:
        path, correct = integers.onnx
        output.line(f"  {path} in ONNX Runtime: {correct}/{checked.samples} digits right")
    if integers.microseconds:
        times = ", ".join(f"{name} {time:.1f}" for name, time in integers.microseconds.items())
        output.line(f"  microseconds an image, one thread: {times}")


def write_pages(rows: Sequence[Row], directory: Path) -> tuple[Path, Path]:
    """Write the page of the four-state network, and one of all beside each other."""
    four, compared = directory / f"{FOUR.name}.html", directory / COMPARED
    subjects = [report.compared(open_run(row.run), row.contestant.title, report.SAMPLES) for row in rows]
    (shown,) = [one for one in subjects if one.name == FOUR.title]
    assert shown.integers is not None, "it is quantized"
    report.write_report(shown.name, shown.integers, shown.training, four)
    report.write_comparison(subjects, compared)
    return four, compared


def draw_rows(rows: Sequence[Row], path: Path) -> None:
    """Draw the networks of the table, the four-state one from inside."""
    four = next(number for number, row in enumerate(rows) if row.contestant is FOUR)
    run = open_run(rows[four].run)
    images, labels = next(iter(open_data(run.config.data, seed=0).test_loader()))
    portraits = [
        Portrait(
            title=row.contestant.title,
            accuracy=row.evaluation.accuracy,
            weights=row.weights,
            activations=row.activations,
        )
        for row in rows
    ]
    shown = portraits[four]
    draw(path, portraits, shown=shown, network=run.network, image=images[:1], label=int(labels[0]))
