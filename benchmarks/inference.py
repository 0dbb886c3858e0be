"""The native engine beside ONNX Runtime and OpenVINO: DS-CNN, MobileNetV1, and VGG-16 and PreActResNet-18 at width 1.

    python benchmarks/inference.py [--path DIR] [--steps 300] [--states 3,2 3,4] [--isa amx avx512 avx2] [--json]

DS-CNN and MobileNetV1 of width 0.25 have random weights and activations of a given density (`maqd.bench.tiny`): 3
states of weights, 15 in depthwise layers, 4 of activations; batch 1, random images. The others are trained on CIFAR-10
(`--path`) for some steps, so that their activations are as sparse as trained ones, lowered, and measured at batch 1 and
64 on test images. `maqd bench --peers` measures, one thread on one processor: each engine has its turn in alternation,
cold calls and warm ones apart. The 8-bit networks have uint8 activations, int8 weights and quantizers where runtimes
fuse them. `--isa` limits the engine and OpenVINO to an instruction set; ONNX Runtime always uses the best one it knows.

Further figures, for the first trained network: two threads over one, the time to import, load and run once in a fresh
process, and the resident memory that the engine adds to NumPy.

Ratios are times faster than the peer, warm: `dscnn_3_4_avx512_batch1_onnxruntime_ratio`,
`mobilenet_3_4_avx512_batch1_openvino_ratio`, `vgg16_3_2_amx_batch1_openvino_ratio` and so on; `threads_ratio` is the
speed of two threads over one, `start_ratio` the time to the first result over 150 ms, `memory_ratio` the engine's
memory over three times the file plus activations and scratch memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness import machine, options_parser, print_json, print_machine
from maqd.bench.tiny import tiny_network
from maqd.graph import container
from maqd.lowering import lower
from maqd.models import Architecture
from maqd.runtime.native import isas
from maqd.training.progress import Output
from maqd.training.runs import load_network
from maqd.training.train import train
from same_integers import Case, config

LIMITS = {"amx": "AVX512_CORE_AMX", "avx512": "AVX512_CORE_VNNI", "avx2": "AVX2"}
"""What OpenVINO's kernel library calls our instruction sets (ONEDNN_MAX_CPU_ISA)."""

TINY = {"dscnn": "kws", "mobilenet": "vww"}
"""Small networks without training: the task of the benchmark that each belongs to."""

START = """
import sys, time
start = time.perf_counter()
import maqd, numpy as np
images = np.load(sys.argv[2])
imported = time.perf_counter()
engine = maqd.load(sys.argv[1])
engine.run(images)
print(1e3 * (imported - start), 1e3 * (time.perf_counter() - start))
"""

MEMORY = """
import gc, sys
import numpy as np
import maqd.runtime, maqd.graph.container
def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * 4096
images = np.load(sys.argv[2])
before = resident()
engine = maqd.runtime.load(sys.argv[1])
engine.run(images)
print(engine.constant_bytes, engine.working_bytes, resident() - before)
"""


def make(case: Case, options: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    """Trains and lowers a network; its run and file."""
    name = f"{case.architecture.value}_{case.weight_states}_{case.act_states}"
    run, file = folder / name, folder / f"{name}.maqd"
    if not file.exists():
        settings = config(case, options, run)
        train(
            replace(settings, optim=replace(settings.optim, lr=options.lr)),
            overwrite=True,
            output=Output(sys.stderr, silent=True),
        )
        network, header = load_network(run)
        size = header.data.image_size
        example = torch.zeros(1, header.data.in_channels, size, size, dtype=torch.uint8)
        container.save(lower(network, example).graph, file)
    return run, file


def bench(file: Path, isa: str, *more: str) -> dict[str, Any]:
    """What `maqd bench` found."""
    environment = {**os.environ, "MAQD_ISA": isa, "ONEDNN_MAX_CPU_ISA": LIMITS[isa]}
    command = [sys.executable, "-m", "maqd.cli", "bench", str(file), "--json", *more]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def numbers(script: str, *arguments: Path) -> list[float]:
    """What a script prints in a fresh process; the median of five by its last number.

    Modules are compiled by then, as those of an installed package are; a checkout's may not be.
    """
    found = []
    with tempfile.TemporaryDirectory() as compiled:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        command = [sys.executable, "-X", f"pycache_prefix={compiled}", "-c", script, *arguments]
        for _ in range(6):
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            found.append([float(value) for value in done.stdout.split()])
    return sorted(found[1:], key=lambda values: values[-1])[2]


def peers(name: str, found: dict[str, Any], figures: dict[str, object], quiet: bool) -> None:
    """Adds one network's ratios to the figures and prints them."""
    densities = [layer["density"] for layer in found["layers"] if layer["density"] is not None and layer["macs"]]
    for result in found["results"]:
        batch = result["engine"]["batch"]
        key = f"{name}_batch{batch}"
        figures[f"{key}_milliseconds"] = {"cold": result["engine"]["cold"], "warm": result["engine"]["warm"]}
        line = [f"{name:24s} batch {batch:2d}  {result['engine']['warm']['median'] / batch:.3f} ms an image"]
        for peer in result["peers"]:
            runtime, precision = peer["name"].split()
            ratio = peer["times_faster"]
            figures[f"{key}_{runtime}{'_float' if precision == 'float' else ''}_ratio"] = ratio["median"]
            figures[f"{key}_{runtime}_{precision}"] = peer
            line.append(
                f"{peer['name']} {peer['warm']['median'] / batch:.3f}: {ratio['median']:.2f} "
                f"[{ratio['low']:.2f} .. {ratio['high']:.2f}], cold {peer['cold_times_faster']['median']:.2f}"
            )
        if not quiet:
            print("; ".join(line), flush=True)
    figures[f"{name}_densities"] = densities
    if not quiet:
        print(f"{name:24s} densities {', '.join(f'{density:.2f}' for density in densities)}", flush=True)


def process(
    name: str, run: Path, file: Path, options: argparse.Namespace, folder: Path, figures: dict[str, object]
) -> None:
    """Adds what one network takes beyond the time of a call: threads, start and memory."""
    one, two = (
        bench(file, options.isa[0], "--against", str(run), "--batch", "64", "--threads", str(threads))["results"][0]
        for threads in (1, 2)
    )
    figures["threads_ratio"] = one["engine"]["warm"]["median"] / two["engine"]["warm"]["median"]
    images = folder / "images.npy"
    np.save(images, np.zeros((1, *container.load(file).input.shape), np.uint8))
    imports, first = numbers(START, file, images)
    figures["start_ratio"] = first / 150
    constants, working, resident = numbers(MEMORY, file, images)
    figures["memory_ratio"] = resident / (3 * file.stat().st_size + working)
    if not options.json:
        print(f"{name}: two threads over one at batch 64: {figures['threads_ratio']:.2f}")
        print(f"{name}: first result after {first:.0f} ms, {imports:.0f} ms of them imports")
        print(
            f"{name}: {resident / 1e6:.1f} MB resident, of them {constants / 1e6:.1f} MB weights and tables, "
            f"{working / 1e6:.1f} MB activations and scratch memory; the file: {file.stat().st_size / 1e6:.1f} MB"
        )


def main() -> None:
    """Measures all networks."""
    parser = options_parser(__doc__, data=True)
    parser.add_argument("--steps", type=int, default=300, help="training steps of each network, of 64 images")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--states", nargs="+", default=["3,2", "3,4"])
    parser.add_argument("--networks", nargs="+", default=["vgg16", "preact_resnet18"])
    parser.add_argument("--isa", nargs="+", default=[isa for isa in isas() if isa in LIMITS], choices=list(LIMITS))
    parser.add_argument("--keep", type=Path, help="directory of trained networks, used again if they are there")
    parser.add_argument("--repeats", type=int, default=31, help="turns of each engine")
    parser.add_argument("--threads", type=int, default=1, help="of training")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        made: list[tuple[str, Path, Path]] = []
        for name, task in TINY.items():
            file = folder / f"{name}_3_4.maqd"
            container.save(tiny_network(task, activations=4, depthwise=15), file)
            for isa in options.isa:
                found = bench(file, isa, "--batch", "1", "--peers", "--repeats", str(options.repeats))
                peers(f"{name}_3_4_{isa}", found, figures, options.json)
        for network in options.networks if options.path else ():
            for states in options.states:
                weight, act = map(int, states.split(","))
                case = Case(architecture=Architecture(network), weight_states=weight, act_states=act, width=1.0)
                made.append((f"{network}_{weight}_{act}", *make(case, options, folder)))
        for isa in options.isa:
            for name, run, file in made:
                peers(
                    f"{name}_{isa}",
                    bench(file, isa, "--against", str(run), "--peers", "--repeats", str(options.repeats)),
                    figures,
                    options.json,
                )
        if made:
            name, run, file = made[0]
            process(name, run, file, options, folder, figures)
    if options.json:
        print_json(machine(), figures)
    else:
        print_machine(machine())


if __name__ == "__main__":
    main()
