"""The networks of MLPerf Tiny, from ordinary float modules to C programs, each in one call of maqd.convert.

    python benchmarks/mlperf_tiny.py [--networks ic kws ..] [--states 3,4] [--latency] [--json]

The networks are those of examples/mlperf_tiny, unedited, after the preparation of uint8 inputs. None is trained: they
have random weights and statistics of random inputs, so that sizes, shapes and equality are those of a trained network
and the density of activations (printed) is not quite. Each is converted, lowered with its proof, compared tensor by
tensor in PyTorch, NumPy, the native engine, ONNX Runtime and the C program, and exported to ONNX and QONNX; its
instructions, flash and RAM on a Cortex-M4 are counted in QEMU beside the recorded figures of 8 bits (maqd.bench.int8).
`--latency` adds the native engine's time beside ONNX Runtime's in 8 bits, one thread; run it on an idle machine.

Ratios, ours over 8 bits: NET_instructions_ratio, NET_flash_ratio, NET_ram_ratio; NET_latency_ratio is ONNX Runtime's
time over ours. About five minutes.
"""

import importlib
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import maqd
from harness import machine, options_parser, print_json, print_machine
from maqd.bench import int8
from maqd.bench.conventional import Precision
from maqd.bench.latency import latency
from maqd.bench.microcontroller import measure
from maqd.bench.peers import OnnxRuntimePeer
from maqd.convert import ConversionConfig
from maqd.export.c99 import Strategy, Target
from maqd.export.onnx.integer import Profile, save_onnx
from maqd.export.onnx.qonnx import Flavour, save_qonnx
from maqd.lowering import TorchEngine
from maqd.runtime import ENGINES
from maqd.runtime.native import NativeEngine
from maqd.runtime.verify import verify

FOLDER = Path(__file__).parents[1] / "examples" / "mlperf_tiny"
IMAGES = 4
"""That the engines are compared on."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """One of the benchmark's networks.

    Args:
        task: What it is for.
        module, function: Where it is defined, and how it is made.
        width: Where it is not the function's own.
        shape: Of one sample.
    """

    task: str
    module: str
    function: str
    shape: tuple[int, ...]
    width: int | None = None


NETWORKS = {
    "ic": Network(task="image classification, ResNet-8", module="resnet8", function="ResNet8", shape=(3, 32, 32)),
    "ic26": Network(task="the same, width 26", module="resnet8", function="ResNet8", shape=(3, 32, 32), width=26),
    "kws": Network(task="keyword spotting, DS-CNN", module="ds_cnn", function="DSCNN", shape=(1, 49, 10)),
    "vww": Network(task="visual wake words, MobileNetV1", module="mobilenet", function="MobileNet", shape=(3, 96, 96)),
    "ad": Network(task="anomaly detection, autoencoder", module="autoencoder", function="autoencoder", shape=(640,)),
    "ww": Network(task="streaming wake words, 1-D", module="wake_word", function="WakeWord", shape=(40, 30)),
}


class FromBytes(nn.Module):
    """A network after the preparation of its inputs: uint8 to about -2 .. 2."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network((x.float() - 128) / 64)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was measured of a network.

    Args:
        task: What it is for.
        weights, macs: Numbers.
        file_bytes, onnx_bytes: Of the .maqd file, and of the compact ONNX file.
        seconds: Of `maqd.convert` on these threads.
        tensors, values, different: That five engines were compared on.
        density: Mean share of activation codes that are not 0.
        instructions, flash, ram: Of the C program on a Cortex-M4.
        latency, peer: Milliseconds of the native engine and of ONNX Runtime in 8 bits; None where not measured.
    """

    task: str
    weights: int
    macs: int
    file_bytes: int
    onnx_bytes: int
    seconds: float
    tensors: int
    values: int
    different: int
    density: float
    instructions: int
    flash: int
    ram: int
    latency: float | None = None
    peer: float | None = None


def made(network: Network) -> nn.Module:
    """The float network, with statistics of random inputs."""
    torch.manual_seed(0)
    function = getattr(importlib.import_module(network.module), network.function)
    model = FromBytes(function() if network.width is None else function(network.width)).train()
    with torch.no_grad():
        for _ in range(2):
            model(torch.randint(0, 256, (16, *network.shape), dtype=torch.uint8))
    return model.eval()


def measured(network: Network, config: ConversionConfig, folder: Path, *, timed: bool) -> Found:
    """All figures of a network."""
    model = made(network)
    x = torch.randint(0, 256, (64, *network.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    start = time.perf_counter()
    result = maqd.convert(model, x, config)
    seconds = time.perf_counter() - start
    graph = maqd.lower(result.model, x[:1]).graph
    maqd.save(graph, folder / "network.maqd")
    save_onnx(graph, folder / "network.onnx", Profile.COMPACT)
    save_qonnx(graph, folder / "network.qonnx.onnx", Flavour.MULTITHRESHOLD)
    engines = [TorchEngine(result.model, graph), *(ENGINES[name].make(graph, threads=1) for name in COMPARED)]
    images = x[:IMAGES].numpy()
    compared = verify(graph, engines, [images])
    program = measure(graph, Target.CORTEX_M4, Strategy.FAST, images)
    densities = [layer.density for layer in program.layers if layer.density is not None and layer.macs]
    ours = peer = None
    if timed:
        engine = NativeEngine(graph, threads=1)
        peers = [OnnxRuntimePeer(graph, Precision.INT8, threads=1, batch=1)]
        times = latency(engine, images[:1], peers=peers)
        ours, peer = times.engine.warm.median, times.peers[0].warm.median
    return Found(
        task=network.task,
        weights=result.report.weights,
        macs=result.report.macs,
        file_bytes=(folder / "network.maqd").stat().st_size,
        onnx_bytes=(folder / "network.onnx").stat().st_size,
        seconds=seconds,
        tensors=max(engine.tensors for engine in compared.engines),
        values=sum(engine.values for engine in compared.engines),
        different=sum(engine.different for engine in compared.engines),
        density=sum(densities[1:]) / max(len(densities[1:]), 1),
        instructions=program.instructions,
        flash=program.emulation.flash,
        ram=program.emulation.ram,
        latency=ours,
        peer=peer,
    )


COMPARED = ("numpy", "native", "onnxruntime", "c99")
"""Engines beside PyTorch."""


def ratios(name: str, found: Found) -> dict[str, float]:
    """Ours over 8 bits."""
    if (known := int8.NETWORKS.get(name)) is None:
        return {}
    figures = {
        f"{name}_instructions_ratio": found.instructions / known.instructions[Target.CORTEX_M4],
        f"{name}_flash_ratio": found.flash / known.flash,
        f"{name}_ram_ratio": found.ram / known.ram,
    }
    if found.latency is not None and found.peer is not None:
        figures[f"{name}_latency_ratio"] = found.peer / found.latency
    return figures


def row(name: str, found: Found) -> str:
    """A line of the table."""
    against = ratios(name, found)

    def beside(value: int, key: str) -> str:
        ratio = against.get(f"{name}_{key}_ratio")
        return f"{value:,}" + ("" if ratio is None else f" ({ratio:.2f})")

    cells = (
        found.task, f"{found.weights:,}", f"{found.macs:,}", f"{found.file_bytes:,}",
        beside(found.instructions, "instructions"), beside(found.flash, "flash"), beside(found.ram, "ram"),
        f"{found.density:.2f}", f"{found.values:,} / {found.different}", f"{found.seconds:.1f}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


HEADINGS = (
    "network", "weights", "multiply-adds", "bytes of .maqd", "M4 instructions", "flash", "RAM", "density",
    "integers compared / different", "seconds to convert",
)  # fmt: skip


def main() -> int:
    """Measures and prints; the exit status."""
    parser = options_parser(__doc__)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--states", default="3,4", help="of weights and activations (3,4)")
    parser.add_argument("--stream", type=int, default=16, help="states of what is added (16)")
    parser.add_argument("--latency", action="store_true")
    options = parser.parse_args()
    weights, activations = (int(part) for part in options.states.split(","))
    config = ConversionConfig(weights=weights, activations=activations, stream=options.stream, depthwise=weights)
    sys.path.insert(0, str(FOLDER))
    torch.set_num_threads(1)
    found: dict[str, Found] = {}
    if not options.json:
        print_machine(machine())
        print("| " + " | ".join(HEADINGS) + " |\n|" + "---|" * len(HEADINGS))
    for name in options.networks:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measured(NETWORKS[name], config, Path(folder), timed=options.latency)
        if not options.json:
            print(row(name, found[name]), flush=True)
    figures: dict[str, object] = {name: asdict(value) for name, value in found.items()}
    for name, value in found.items():
        figures.update(ratios(name, value))
    if options.json:
        print_json(machine(), figures)
    return int(any(value.different for value in found.values()))


if __name__ == "__main__":
    sys.exit(main())
