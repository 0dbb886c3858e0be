"""Lowering VGG-16 at full width with its whole proof: time, memory, file size, time to open.

    python benchmarks/lowering.py [--states 3,4 2,2 ...] [--affine fixed-point] [--json]

The network is VGG-16 (width 1, 32 x 32 images, 10 classes) with initial weights and normalizations spread as after
training: time and size depend on the shapes and on how far the accumulators reach, not on what was learned. Every
figure comes from a process of its own on one thread: the peak memory is that of the whole process, PyTorch included;
opening is measured without PyTorch, cold (the first time in a process, after the imports) and warm.

Ratios: `size_ratio` is the file's size over (sum of n log2 M / 8 + thresholds in their narrowest type), at most 1.05;
`seconds_ratio` the time of lowering over 60 s, `memory_ratio` the peak over 2 GB, `open_ratio` the cold opening over
100 ms: each must be below 1.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import machine, options_parser, print_json, print_machine
from maqd.graph import FixedPoint, Graph, Thresholds, Weighted
from maqd.numerics.fixedpoint import AffineForm

OPEN = """
import sys, time
start = time.perf_counter()
import json
from pathlib import Path
from maqd.graph import container
times, path = [time.perf_counter() - start], Path(sys.argv[1])
for _ in range(6):
    start = time.perf_counter()
    graph = container.load(path)
    graph.validate()
    times.append(time.perf_counter() - start)
assert "torch" not in sys.modules
print(json.dumps([*times[:2], sorted(times[2:])[2]]))
"""


def build(weight_states: int, act_states: int):
    """VGG-16 as after training."""
    import torch

    from maqd.models import Architecture, ModelConfig, build_model
    from maqd.nn import QuantConfig
    from maqd.nn.norm import FoldableNorm

    torch.set_num_threads(1)
    torch.manual_seed(0)
    quant = QuantConfig(weight_states=weight_states, act_states=act_states)
    config = ModelConfig(architecture=Architecture.VGG16, quant=quant)
    network = build_model(config, in_channels=3, num_classes=10, image_size=32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, FoldableNorm) and module.weight is not None and module.bias is not None:
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.weight.normal_(1, 0.3, generator=generator)
                module.bias.normal_(0.3, 0.3, generator=generator)
    return network.eval()


def bound(graph: Graph) -> float:
    """Bytes: the information in the weights, and thresholds or A and B in their narrowest type."""
    total = 0.0
    for node in graph.nodes:
        if isinstance(node, Weighted):
            total += node.weight.size * math.log2(node.weight.states.count) / 8
            total += 0 if node.bias is None else node.bias.nbytes
        elif isinstance(node, Thresholds):
            total += node.thresholds.nbytes
        elif isinstance(node, FixedPoint):
            total += node.multiplier.nbytes + node.offset.nbytes
    return total


def lower_once(weight_states: int, act_states: int, affine: AffineForm, path: Path) -> dict[str, Any]:
    """Lowers and saves in this process."""
    import torch

    from maqd.graph import container
    from maqd.lowering import lower

    network = build(weight_states, act_states)
    start = time.perf_counter()
    lowered = lower(network, torch.zeros(1, 3, 32, 32, dtype=torch.uint8), affine=affine)
    seconds = time.perf_counter() - start
    container.save(lowered.graph, path)
    return {
        "seconds": seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "file_bytes": path.stat().st_size,
        "bound_bytes": bound(lowered.graph),
        "layers": [vars(report) for report in lowered.activations],
    }


def measure(weight_states: int, act_states: int, affine: AffineForm) -> dict[str, Any]:
    """All figures of one network."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vgg16.maqd"
        arguments = [f"{weight_states},{act_states}", "--affine", affine.value, "--one", str(path)]
        output = subprocess.run(
            [sys.executable, __file__, "--states", *arguments], capture_output=True, text=True, check=True
        )
        figures = json.loads(output.stdout)
        output = subprocess.run([sys.executable, "-c", OPEN, str(path)], capture_output=True, text=True, check=True)
        keys = ("import_seconds", "open_cold_seconds", "open_warm_seconds")
        figures |= zip(keys, json.loads(output.stdout), strict=True)
    figures["seconds_ratio"] = figures["seconds"] / 60
    figures["memory_ratio"] = figures["peak_bytes"] / 2e9
    figures["size_ratio"] = figures["file_bytes"] / figures["bound_bytes"]
    figures["open_ratio"] = figures["open_cold_seconds"] / 0.1
    return figures


def main() -> None:
    """Measures each network."""
    parser = options_parser(__doc__)
    parser.add_argument("--states", nargs="+", default=["3,4", "3,2", "2,2", "4,3", "5,8", "7,16"])
    parser.add_argument("--affine", default="auto", choices=[form.value for form in AffineForm])
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    affine = AffineForm(options.affine)
    figures: dict[str, object] = {}
    for pair in options.states:
        weight_states, act_states = map(int, pair.split(","))
        if options.one is not None:
            print(json.dumps(lower_once(weight_states, act_states, affine, options.one)))
            return
        found = measure(weight_states, act_states, affine)
        figures[f"({pair})"] = found
        if not options.json:
            print(
                f"VGG-16 ({pair}): lowered in {found['seconds']:.2f} s, peak {found['peak_bytes'] / 1e6:.0f} MB, "
                f"{found['file_bytes']:,} bytes = {found['size_ratio']:.4f} x bound, opened in "
                f"{1e3 * found['open_cold_seconds']:.0f} ms cold, {1e3 * found['open_warm_seconds']:.0f} ms warm "
                f"(imports before: {1e3 * found['import_seconds']:.0f} ms)"
            )
            print("  layer              form         K  bits A  bits B      checked  mismatches  rounded mismatches")
            for layer in found["layers"]:
                shift, a, b, rounded = (
                    "-" if layer[key] is None else layer[key]
                    for key in ("shift", "multiplier_bits", "offset_bits", "rounded_mismatches")
                )
                print(
                    f"  {layer['name']:<17}  {layer['operation']:<11} {shift:>2}  {a:>6}  {b:>6}  "
                    f"{layer['checked']:>11,}  {layer['mismatches']:>10}  {rounded:>18}",
                    flush=True,
                )
    import torch

    torch.set_num_threads(1)  # as in the processes that were measured
    if options.json:
        print_json(machine(), figures)
    else:
        print_machine(machine())


if __name__ == "__main__":
    main()
